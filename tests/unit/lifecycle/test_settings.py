"""Settings: the block of daemon.yaml, over defaults."""

from __future__ import annotations

from pathlib import Path

import pytest

from lifecycle.settings import Timing, parse_settings


def written(directory: Path, text: str) -> list[str]:
    (directory / "etc").mkdir()
    (directory / "etc/daemon.yaml").write_text(text)
    return ["--root", str(directory)]


def test_without_a_file_there_are_defaults(tmp_path: Path) -> None:
    """A look every half minute, a warning half an hour and five minutes before."""
    settings = parse_settings(["--root", str(tmp_path)])
    assert settings.timing == Timing(look_seconds=30, warn_seconds=(1800, 300))
    assert settings.tree.lib == tmp_path / "lib"


@pytest.mark.parametrize(
    ("text", "timing"),
    [
        ("users: [alice]\nallocator: {archive_days: 3}", Timing()),
        ("lifecycle:", Timing()),
        ("lifecycle: {look_seconds: 5}", Timing(look_seconds=5)),
        ("lifecycle: {warn_seconds: [60, 600, 60]}", Timing(warn_seconds=(600, 60))),
        ("lifecycle: {warn_seconds: []}", Timing(warn_seconds=())),
    ],
)
def test_the_file_wins_over_the_defaults(tmp_path: Path, text: str, timing: Timing) -> None:
    """Times come longest first, each once; other blocks are others'."""
    assert parse_settings(written(tmp_path, text)).timing == timing


@pytest.mark.parametrize(
    "text",
    [
        "lifecycle: {looks: 5}",
        "lifecycle: {look_seconds: 0}",
        "lifecycle: {look_seconds: 61}",
        "lifecycle: {look_seconds: true}",
        "lifecycle: {look_seconds: 1.5}",
        "lifecycle: {warn_seconds: 300}",
        "lifecycle: {warn_seconds: [0]}",
        "lifecycle: {warn_seconds: [604801]}",
        "lifecycle: {warn_seconds: [5m]}",
        "lifecycle: [1]",
        "[]x: {",
    ],
)
def test_a_mistake_in_the_file_stops_the_start(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its path, and what to write."""
    with pytest.raises(SystemExit) as caught:
        parse_settings(written(tmp_path, text))
    assert caught.value.code == 2
    assert "daemon.yaml" in capsys.readouterr().err
