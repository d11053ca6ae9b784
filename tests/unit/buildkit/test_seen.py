"""Which blobs a user may read."""

from __future__ import annotations

from buildkit.seen import SeenContent
from policy.model import Uid


def test_each_user_has_seen_their_own() -> None:
    """And nobody else's."""
    seen = SeenContent()
    seen.add(Uid(1), ["a"])
    assert seen.has(Uid(1), "a")
    assert not seen.has(Uid(2), "a")
    assert not seen.has(Uid(1), "b")


def test_the_oldest_are_forgotten() -> None:
    """A user cannot fill the memory."""
    seen = SeenContent()
    seen.add(Uid(1), map(str, range(10_000)))
    assert seen.has(Uid(1), "9999")
    assert not seen.has(Uid(1), "0")
