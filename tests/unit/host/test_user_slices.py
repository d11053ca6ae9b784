"""User slices that are there, and drop-ins as files."""

from __future__ import annotations

import stat
from pathlib import Path

from host.user_slices import present, write_drop_ins


def test_slices_are_found_on_both_versions_of_cgroups(tmp_path: Path) -> None:
    """Once each; what is no slice of a user is left out, and a machine without systemd has none."""
    assert present(tmp_path) == ()
    for path in (
        "user.slice/user-1001.slice",
        "systemd/user.slice/user-1000.slice",
        "unified/user.slice/user-1001.slice",
    ):
        (tmp_path / path).mkdir(parents=True)
    (tmp_path / "user.slice" / "session.slice").mkdir()
    assert present(tmp_path) == (1000, 1001)


def test_drop_ins_are_made_exactly_what_is_wanted(tmp_path: Path) -> None:
    """Ours that are not wanted go, others' stay, and what is right already is not touched."""
    (tmp_path / "cron.service.d").mkdir()
    (tmp_path / "cron.service.d" / "40-ours.conf").write_text("old")
    (tmp_path / "cron.service.d" / "50-theirs.conf").write_text("theirs")
    wanted = {"user-.slice.d/40-ours.conf": "closed\n"}
    changed = write_drop_ins(wanted, names=["40-ours.conf"], directory=tmp_path)
    assert changed == ("cron.service.d/40-ours.conf", "user-.slice.d/40-ours.conf")
    written = tmp_path / "user-.slice.d" / "40-ours.conf"
    assert written.read_text() == "closed\n"
    assert stat.S_IMODE(written.stat().st_mode) == 0o644
    assert (tmp_path / "cron.service.d" / "50-theirs.conf").exists()
    assert write_drop_ins(wanted, names=["40-ours.conf"], directory=tmp_path) == ()
