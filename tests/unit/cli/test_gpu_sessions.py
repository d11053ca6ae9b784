"""`ds01 gpu sessions`: files for those to come, systemctl for those who are there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from cli.gpu_sessions import close, reopen, run, shown, uids
from cli.outcome import Exit, Failed
from policy.model import Uid

DEVICES = "Character devices:\n  1 mem\n195 nvidia\n"
ADMIN = Uid(1005)


def test_closing_writes_files_and_tells_who_is_there(tmp_path: Path) -> None:
    """But not root, admins, and who has a grant, whose slice the allocator tells."""
    told: list[Sequence[str]] = []
    done = close(
        [ADMIN],
        present=[0, 1000, 1001, 1005],
        granted=[1001],
        devices=DEVICES,
        units=tmp_path,
        tell=told.append,
    )
    assert done.told == (1000,)
    (command,) = told
    assert command[3] == "user-1000.slice"
    assert "DeviceAllow=char-mem rw" in command
    assert not any("nvidia" in word for word in command)
    assert "user-1005.slice.d/60-ds01-gpu.conf" in done.files
    assert "DevicePolicy=closed" in (tmp_path / "user-.slice.d" / "40-ds01-gpu.conf").read_text()
    assert "closed" in shown(done)


def test_opening_takes_it_all_back(tmp_path: Path) -> None:
    """No file of ours is left, and slices may open everything."""
    told: list[Sequence[str]] = []
    close([], present=[], devices=DEVICES, units=tmp_path, tell=told.append)
    done = reopen(present=[0, 1000], units=tmp_path, tell=told.append)
    assert list(tmp_path.glob("*.d/*")) == []
    (command,) = told
    assert command[3] == "user-1000.slice"
    assert "DeviceAllow=char-* rwm" in command
    assert "open" in shown(done)


def test_who_is_free_must_exist() -> None:
    """A slip would lock an admin's sudo out."""
    assert uids(["root"]) == {0}
    with pytest.raises(Failed, match="no such user") as failed:
        uids(["root", "nobody-of-that-name"])
    assert failed.value.code is Exit.USAGE


def test_what_fails_is_told(tmp_path: Path) -> None:
    """systemctl's words; a program that is not there; a directory that cannot be written."""
    with pytest.raises(Failed, match="one two; nothing else"):
        run(["sh", "-c", "printf 'one\\ntwo' >&2; exit 1"])
    with pytest.raises(Failed, match="nonexistent"):
        run(["/nonexistent/systemctl"])
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(Failed, match="file"):
        close([], present=[], devices=DEVICES, units=file, tell=run)
    run(["true"])
