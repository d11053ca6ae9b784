"""The upload of `docker cp` as a stream: unpacked, filtered, and cut off where it is no tar."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import AsyncIterator

import pytest

from policy.dockerapi.archive import Destination
from policy.dockerapi.model import MalformedRequest
from socket_proxy.archives import filtered


def tar() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        info = tarfile.TarInfo("a")
        info.size, info.mode = 100_000, 0o4755
        made.addfile(info, io.BytesIO(b"x" * info.size))
        node = tarfile.TarInfo("sda")
        node.type = tarfile.BLKTYPE
        made.addfile(node)
    return buffer.getvalue()


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


@pytest.mark.parametrize("size", [100, 4096, 10**6])
@pytest.mark.parametrize("packed", [False, True])
async def test_what_comes_out_is_a_plain_tar(size: int, *, packed: bool) -> None:
    """In whatever pieces it comes, and none of them is empty, which would end the request."""
    data = gzip.compress(tar()) if packed else tar()
    passed = [piece async for piece in filtered(pieces(data, size), Destination(path="/"))]
    assert all(passed)
    with tarfile.open(fileobj=io.BytesIO(b"".join(passed)), mode="r:") as read:
        assert [(info.name, info.size, info.mode) for info in read] == [("a", 100_000, 0o755)]


async def test_what_is_no_tar_never_looks_whole() -> None:
    """The error comes out of the stream before its end."""
    passed: list[bytes] = []

    async def send() -> None:
        async for piece in filtered(pieces(tar()[:5000], 1000), Destination(path="/")):
            passed.append(piece)  # noqa: PERF401  what came before the error counts

    with pytest.raises(MalformedRequest):
        await send()
    assert passed
    assert not b"".join(passed).endswith(b"\0" * 1024)
