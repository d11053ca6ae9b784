"""The policy is swapped whole, and a wrong file changes nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from host.policy_files import PolicyFiles, PolicyMissing

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

OWN = frozenset({os.geteuid()})


def build(texts: Mapping[str, str]) -> str:
    """A policy is its texts, one behind the other; `wrong` is a mistake."""
    joined = "+".join(texts.values())
    if "wrong" in joined:
        raise ValueError("policy.yaml:1: a mistake")
    return joined


def files(etc: Path, rejected: list[str] | None = None) -> PolicyFiles[str]:
    """The files of a directory, failures noted in `rejected`."""
    noted = [] if rejected is None else rejected
    return PolicyFiles(
        etc, build, on_loaded=lambda _digest, _files: None, on_rejected=noted.append, owners=OWN
    )


def put(path: Path, text: str) -> None:
    """As an editor does: a new file under the old name."""
    fresh = path.with_name(path.name + ".new")
    fresh.write_text(text)
    fresh.chmod(0o644)
    fresh.rename(path)


@pytest.fixture
def etc(tmp_path: Path) -> Path:
    (tmp_path / "policy.d").mkdir()
    put(tmp_path / "policy.yaml", "one")
    return tmp_path


def test_files_are_read_in_order(etc: Path) -> None:
    """policy.yaml first, then policy.d by name."""
    put(etc / "policy.d" / "20.yaml", "three")
    put(etc / "policy.d" / "10.yaml", "two")
    assert files(etc).current == "one+two+three"


def test_a_changed_file_swaps_the_policy(etc: Path) -> None:
    """Changed, added and removed files count; an unchanged one costs no parsing."""
    store = files(etc)
    assert not store.reload_if_changed()
    put(etc / "policy.yaml", "two")
    assert store.reload_if_changed()
    put(etc / "policy.d" / "x.yaml", "x")
    assert store.reload_if_changed()
    assert store.current == "two+x"
    (etc / "policy.d" / "x.yaml").unlink()
    assert store.reload_if_changed()
    assert store.current == "two"


@pytest.mark.parametrize("change", ["wrong", "writable", "gone", "not UTF-8"])
def test_a_wrong_file_changes_nothing(etc: Path, change: str) -> None:
    """The last good policy stays, and the mistake is reported once, not each second."""
    rejected: list[str] = []
    store = files(etc, rejected)
    file = etc / "policy.yaml"
    match change:
        case "wrong":
            put(file, "wrong")
        case "writable":
            put(file, "evil")
            file.chmod(0o666)
        case "gone":
            file.unlink()
        case _:
            file.write_bytes(b"\xff\xff\xff\xff")
    assert not store.reload_if_changed()
    assert not store.reload_if_changed()
    assert len(rejected) == 1
    assert store.current == "one"
    put(file, "mended")
    assert store.reload_if_changed()
    assert store.current == "mended"


@pytest.mark.parametrize("text", ["wrong", None])
def test_without_a_policy_nothing_starts(etc: Path, text: str | None) -> None:
    """There is no built-in policy to fall back to."""
    (etc / "policy.yaml").unlink()
    if text is not None:
        put(etc / "policy.yaml", text)
    with pytest.raises(PolicyMissing):
        files(etc)


def test_the_former_policy_is_known_for_a_while(etc: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five seconds after a swap it is gone, and a file that changed nothing has no former one."""
    now = [0.0]
    monkeypatch.setattr("host.policy_files.time.monotonic", lambda: now[0])
    store = files(etc)
    put(etc / "policy.yaml", "two")
    store.reload_if_changed()
    assert (store.former, store.current) == ("one", "two")
    now[0] = 5.1
    put(etc / "policy.yaml", "wrong")
    store.reload_if_changed()
    assert store.current == "two"
    assert store.former is None
