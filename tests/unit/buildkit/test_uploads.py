"""Contexts that come by a call of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from buildkit import uploads
from buildkit.uploads import Uploads
from http1.errors import ClientGone
from policy.model import Uid

ALICE, BOB = Uid(1), Uid(2)


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_it_is_fetched_once_by_its_users_sessions() -> None:
    """Whoever sent it waits until then."""
    all_ = Uploads()
    upload = all_.expect(ALICE, "b")
    path = upload.address.removeprefix("http://buildkit-session")
    giving = asyncio.get_running_loop().create_task(upload.give(body(b"one", b"two")))
    await asyncio.sleep(0)
    assert not giving.done()
    assert all_.at(BOB, path) is None
    assert all_.at(ALICE, "/other") is None
    assert all_.at(ALICE, path) is upload
    assert [piece async for piece in upload.fetch()] == [b"one", b"two"]
    assert await giving
    assert [piece async for piece in upload.fetch()] == []


@pytest.mark.parametrize("first", ["build", "upload"])
async def test_whichever_comes_first_waits(first: str) -> None:
    """For the other one of the same name and user."""
    all_ = Uploads()
    if first == "build":
        upload = all_.expect(ALICE, "b")
        assert await all_.wanted(ALICE, "b") is upload
    else:
        waiting = asyncio.get_running_loop().create_task(all_.wanted(ALICE, "b"))
        others = asyncio.get_running_loop().create_task(all_.wanted(BOB, "b"))
        await asyncio.sleep(0)
        all_.expect(ALICE, "other")
        await asyncio.sleep(0)
        upload = all_.expect(ALICE, "b")
        assert await waiting is upload
        assert not others.done()
        others.cancel()


async def test_what_is_offered_need_not_be_waited_for() -> None:
    """A context that is the body of the build's own call."""
    upload = Uploads().expect(ALICE, "b")
    assert upload.offer(body(b"one"))
    assert not upload.offer(body(b"two"))
    assert [piece async for piece in upload.fetch()] == [b"one"]


async def test_what_never_comes_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the build nor the context."""
    monkeypatch.setattr(uploads, "WAIT_SECONDS", 0.01)
    all_ = Uploads()
    assert await all_.wanted(ALICE, "b") is None
    with pytest.raises(TimeoutError):
        [piece async for piece in all_.expect(ALICE, "b").fetch()]


async def test_the_end_of_a_build_frees_whoever_uploads() -> None:
    """And the name."""
    all_ = Uploads()
    upload = all_.expect(ALICE, "b")
    giving = asyncio.get_running_loop().create_task(upload.give(body(b"x")))
    await asyncio.sleep(0)
    assert not await upload.give(body(b"second"))
    with pytest.raises(KeyError):
        all_.expect(ALICE, "b")
    all_.forget(ALICE, "b")
    assert await giving
    assert all_.at(ALICE, f"/{upload.token}") is None
    all_.expect(ALICE, "b")


async def test_a_client_that_leaves_in_the_middle() -> None:
    """Is an error of the fetch, and over for the upload."""

    async def cut() -> AsyncIterator[bytes]:
        yield b"one"
        raise ClientGone("left")

    upload = Uploads().expect(ALICE, "b")
    giving = asyncio.get_running_loop().create_task(upload.give(cut()))
    await asyncio.sleep(0)
    with pytest.raises(ClientGone):
        [piece async for piece in upload.fetch()]
    assert await giving
