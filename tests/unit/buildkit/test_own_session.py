"""A session of ds01's own: dockerd is given the context, and nothing else."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from buildkit import api_pb2 as pb
from buildkit.giving import PULL
from buildkit.own_session import HEALTH, METHODS, OwnSession
from buildkit.uploads import Upload, Uploads
from policy.model import Uid
from tests.fakes.grpc_ends import SECONDS, Client, duplex


@asynccontextmanager
async def asked(upload: Upload) -> AsyncIterator[Client]:
    """dockerd, that asks."""
    ours, theirs = socket.socketpair()
    for one in (ours, theirs):
        one.setblocking(False)
    dockerd, session = Client(ours, client_side=True), OwnSession(await duplex(theirs), upload)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(dockerd.run())
        tasks.create_task(session.run())
        try:
            yield dockerd
        finally:
            session.close()
            await asyncio.wait_for(dockerd.closed.wait(), SECONDS)
    ours.close()


def expected() -> Upload:
    return Uploads().expect(Uid(1), "b")


async def body(*pieces: bytes) -> AsyncIterator[bytes]:
    for piece in pieces:
        yield piece


async def test_the_context_is_given() -> None:
    """Of any size, at its address."""
    upload, pieces = expected(), [os.urandom(300_000) for _ in range(5)]
    upload.offer(body(*pieces))
    async with asked(upload) as dockerd:
        answer = await dockerd.call(PULL, b"", (("urlpath", f"/{upload.token}"),))
        assert answer.status == "0"
        assert b"".join(pb.BytesMessage.FromString(one).data for one in answer.messages) == b"".join(pieces)


async def test_it_is_healthy() -> None:
    """dockerd ends a session that does not say so."""
    async with asked(expected()) as dockerd:
        answer = await dockerd.call(HEALTH)
        assert (answer.status, answer.messages) == ("0", [b"\x08\x01"])
    assert set(METHODS) == {PULL, HEALTH}


@pytest.mark.parametrize(
    ("path", "at"),
    [(PULL, "/other"), (PULL, ""), ("/moby.filesync.v1.Auth/Credentials", ""), ("/x", "")],
)
async def test_nothing_else_is_given(path: str, at: str) -> None:
    """No passwords, no files, no other context."""
    async with asked(expected()) as dockerd:
        assert (await dockerd.call(path, b"", (("urlpath", at),))).status == "12"


async def test_what_is_no_http2_ends_it() -> None:
    """Without an error of ds01's."""
    async with asked(expected()) as dockerd:
        await dockerd.call(HEALTH)
        await dockerd.raw(b"\xff" * 64)
        await asyncio.wait_for(dockerd.closed.wait(), SECONDS)
