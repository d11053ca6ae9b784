"""The upload of `docker cp` on its way: unpacked if it is compressed, and filtered, never held whole."""

from __future__ import annotations

from collections.abc import AsyncIterator

from policy.dockerapi.archive import ArchiveFilter, Destination
from policy.dockerapi.compressed import Plain


async def filtered(upload: AsyncIterator[bytes], destination: Destination) -> AsyncIterator[bytes]:
    """The same archive as a plain tar that dockerd may extract.

    Raises: MalformedRequest: within the upload, which then never looks complete to dockerd.
    """
    plain, archive = Plain(), ArchiveFilter(destination)
    async for data in upload:
        for piece in plain.feed(data):
            if passed := b"".join(archive.feed(piece)):
                yield passed
    for piece in plain.close():
        if passed := b"".join(archive.feed(piece)):
            yield passed
    yield b"".join(archive.close())
