"""Settings: flags, file and defaults."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator.cdi import NVIDIA
from allocator.settings import parse_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """Root is always trusted; what a flag says replaces what the file says."""
    root = ["--root", str(tmp_path)]
    assert parse_settings(root).trusted_uids == {0}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text(
        "allocator: {trusted_uids: [7], nvml_deadline_seconds: 3}\nproxy: {}\n"
    )
    assert parse_settings(root).trusted_uids == {0, 7}
    settings = parse_settings([*root, "--trusted-uid", "9", "--run", "/x"])
    assert settings.trusted_uids == {0, 9}
    assert settings.nvml_deadline_seconds == 3
    assert str(settings.tree.allocator_socket) == "/x/allocator.sock"


def test_times_are_local_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    """A zone by its name, the half-life of usage in hours, and after how many days leases are put away."""
    root = ["--root", str(tmp_path)]
    (tmp_path / "etc").mkdir()
    assert parse_settings(root).zone is not None
    (tmp_path / "etc/daemon.yaml").write_text(
        "allocator: {time_zone: Europe/Berlin, half_life_hours: 24, archive_days: 90}\n"
    )
    settings = parse_settings(root)
    assert str(settings.zone) == "Europe/Berlin"
    assert (settings.timing.half_life_seconds, settings.timing.archive_days) == (86400, 90)


@pytest.mark.parametrize(
    "text",
    [
        "allocator: {trusted_uid: [7]}",
        "allocator: {half_life_hours: 0}",
        "allocator: {archive_days: x}",
        "allocator: {time_zone: Mars/Phobos}",
        "allocator: {trusted_uids: [true]}",
        "allocator: {trusted_uids: 7}",
        "allocator: {nvml_deadline_seconds: 0.0001e-9999}",
        "allocator: {nvml_deadline_seconds: x}",
        "allocator: {kernel_log: kmsg}",
        "allocator: {kernel_log: false}",
        "allocator: [1]",
        "[]x: {",
    ],
)
def test_a_mistake_in_the_file_stops_the_start(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown keys and wrong types are named with the file, and nothing starts."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse_settings(["--root", str(tmp_path)])
    assert "daemon.yaml" in capsys.readouterr().err


def test_the_kernel_log_may_be_elsewhere(tmp_path: Path) -> None:
    """The kernel's own unless the file names another."""
    root = ["--root", str(tmp_path)]
    assert str(parse_settings(root).kernel_log) == "/dev/kmsg"
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text("allocator: {kernel_log: /x/kmsg}\n")
    assert str(parse_settings(root).kernel_log) == "/x/kmsg"


def test_the_command_for_cdi_is_a_list_of_words(tmp_path: Path) -> None:
    """NVIDIA's own where nothing is said, none where GPUs come without CDI."""
    root = ["--root", str(tmp_path)]
    assert parse_settings(root).cdi_command == NVIDIA
    (tmp_path / "etc").mkdir()
    file = tmp_path / "etc/daemon.yaml"
    file.write_text("allocator: {cdi_command: [/bin/true, x]}\n")
    assert parse_settings(root).cdi_command == ("/bin/true", "x")
    file.write_text("allocator: {cdi_command: []}\n")
    assert parse_settings(root).cdi_command == ()
    for wrong in ("/bin/true", "[1]"):
        file.write_text(f"allocator: {{cdi_command: {wrong}}}\n")
        with pytest.raises(SystemExit):
            parse_settings(root)
