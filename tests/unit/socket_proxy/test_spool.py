"""Uploads on disk, within a limit per user."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from policy.model import Uid
from socket_proxy.refusals import Refusal, Unavailable
from socket_proxy.spool import Spools

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

ALICE, BOB = Uid(1001), Uid(1002)


async def pieces(count: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b"x" * 1000


async def test_an_upload_is_there_whole(tmp_path: Path) -> None:
    """In memory or on disk, and its file is gone afterwards."""
    spools = Spools(tmp_path / "spool")
    for count in (3, 3000):
        with spools.open(ALICE, 10**9) as spool:
            assert await spool.fill(pieces(count)) is None
            spool.file.seek(0)
            assert len(spool.file.read()) == count * 1000 == spool.size
    assert list((tmp_path / "spool").iterdir()) == []


async def test_a_users_uploads_count_together(tmp_path: Path) -> None:
    """What one holds another of the same user cannot; another user can; and it is free again at the end."""
    spools = Spools(tmp_path)
    with spools.open(ALICE, 5000) as first:
        assert await first.fill(pieces(3)) is None
        with spools.open(ALICE, 5000) as second, spools.open(BOB, 5000) as theirs:
            refusal = await second.fill(pieces(3))
            assert isinstance(refusal, Refusal)
            assert (refusal.status, refusal.rules) == (413, ("uploads",))
            assert "limits.uploads" in refusal.message
            assert await theirs.fill(pieces(5)) is None
    with spools.open(ALICE, 5000) as again:
        assert await again.fill(pieces(5)) is None


async def test_a_full_disk_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """503 and not a bug of ds01."""
    with Spools(tmp_path).open(ALICE, 10**9) as spool:

        def full(_: bytes) -> int:
            raise OSError(errno.ENOSPC, "no space")

        monkeypatch.setattr(spool.file, "write", full)
        with pytest.raises(Unavailable, match="no room"):
            await spool.fill(pieces(1))


async def test_what_is_announced_too_large_is_not_taken(tmp_path: Path) -> None:
    """The refusal comes before the first byte."""
    with Spools(tmp_path).open(ALICE, 5000) as spool:
        refusal = await spool.fill(pieces(1), announced_bytes=5001)
        assert isinstance(refusal, Refusal)
        assert refusal.status == 413
        assert spool.size == 0
        assert await spool.fill(pieces(1), announced_bytes=5000) is None
