"""Where a lab's files are, and how users get there."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest

from lab.tree import ALLOCATOR_UID, LabTree, prepare, reachable


def test_a_reachable_root_is_seen_where_it_is(tmp_path: Path) -> None:
    """Nothing is mounted for a root that every account can get to."""
    tree = LabTree.at(Path("/srv/lab"))
    assert tree.seen == tree.root == Path("/srv/lab")


def test_a_closed_root_is_seen_below_run(tmp_path: Path) -> None:
    """Below a directory that others may not pass, users and daemons get a mount instead."""
    tmp_path.chmod(0o700)
    tree = LabTree.at(tmp_path / "lab")
    assert tree.root == tmp_path / "lab"
    assert tree.seen == tree.short / "tree"


def test_a_long_root_is_seen_by_a_short_path() -> None:
    """Every user's socket address fits into 107 bytes, however deep the root is."""
    tree = LabTree.at(Path("/srv") / ("deep" * 20) / "lab")
    assert len(os.fsencode(tree.base.user_socket("x" * 32))) <= 107


def test_different_roots_share_no_name() -> None:
    """Two labs have different ids, and names that the kernel accepts (15 bytes for an interface)."""
    one, other = LabTree.at(Path("/srv/a")), LabTree.at(Path("/srv/b"))
    for name in ("short", "netns", "link", "cgroup"):
        assert getattr(one, name) != getattr(other, name)
    assert len(one.link) <= 15


def test_passing_is_not_listing(tmp_path: Path) -> None:
    """A directory is reachable by its x bit alone, its own and those above."""
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    shared = Path(tempfile.gettempdir()).resolve()
    for above in (inner, *inner.parents):
        if above != shared and above.is_relative_to(shared):
            above.chmod(0o711)
    assert reachable(inner)
    inner.parent.chmod(0o710)
    assert not reachable(inner)


@pytest.mark.skipif(os.geteuid() != 0, reason="gives directories to other accounts")
def test_what_daemons_keep_is_closed_to_users(tmp_path: Path) -> None:
    """Logs, the proxy's keys and the allocator's ledger are for their owners alone, also on a second call."""
    tree = LabTree.at(tmp_path / "lab")
    for _ in range(2):
        prepare(tree)
        for path, owner in (("log", 0), ("lib/proxy", 0), ("lib/allocator", ALLOCATOR_UID)):
            status = (tree.root / path).stat()
            assert (stat.S_IMODE(status.st_mode), status.st_uid) == (0o700, owner)
        (tree.root / "log").chmod(0o777)
    assert stat.S_IMODE((tree.root / "lib").stat().st_mode) == 0o711
