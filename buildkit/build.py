"""A decided build, asked for on ds01's own connection and told in the lines of dockerd's `/build?version=2`.

SOURCE: moby v28.5, builder/builder-next/builder.go: each StatusResponse as `moby.buildkit.trace`, then `moby.image.id`.
"""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from typing import Final

from buildkit import api_pb2 as pb
from buildkit import messages
from buildkit.client import Client
from buildkit.ports import Failed
from buildkit.verdicts import Call, Forward
from policy.buildkit import methods
from policy.dockerapi import responses

Say = Callable[[bytes], Awaitable[None]]
"""Give the client a line. Raises: ClientGone."""

_LAST_WORDS_SECONDS: Final = 5  # what a build may still tell when it is over


def watch(ref: str) -> Call:
    """The call that tells how a build goes."""
    return Call(path=methods.STATUS, metadata=(), message=messages.write(pb.StatusRequest(Ref=ref)))


async def carry_out(client: Client, *, solve: Forward, status: Forward, say: Say, quiet: bool) -> None:
    """Build, and say how it goes.

    Args:
        solve: the build, decided; its `ended` is the caller's to call.
        status: how to hear of it.
        quiet: say the image's id and nothing else.
    Raises: whatever `say` does; the build goes on until the connection is closed.
    """
    async with asyncio.TaskGroup() as tasks:
        telling = tasks.create_task(_tell(client, status, None if quiet else say))
        try:
            made = await _result(client, solve)
        except Failed as error:
            last = responses.error_line(str(error))
        else:
            last = _made_line(made, quiet=quiet)
        await asyncio.wait([telling], timeout=_LAST_WORDS_SECONDS)
        telling.cancel()
        await say(last)


async def _result(client: Client, solve: Forward) -> tuple[str, ...]:
    """The images that were made. Raises: Failed."""
    made: tuple[str, ...] = ()
    async for message in client.call(solve.path, solve.metadata, solve.message):
        if solve.reshape is not None:
            solve.reshape(message)
        made += messages.image_ids(message)
    return made


async def _tell(client: Client, status: Forward, say: Say | None) -> None:
    try:
        async for message in client.call(status.path, status.metadata, status.message):
            shown = message if status.reshape is None else status.reshape(message)
            if say is not None and shown is not None:
                await say(_line({"id": "moby.buildkit.trace", "aux": base64.b64encode(shown).decode()}))
    except Failed:  # the build's own end says why
        return


def _made_line(made: tuple[str, ...], *, quiet: bool) -> bytes:
    if not made:  # the result went to the client, or nowhere
        return b""
    if quiet:
        return _line({"stream": f"{made[0]}\n"})
    return _line({"id": "moby.image.id", "aux": {"ID": made[0]}})


def _line(value: dict[str, object]) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode() + b"\r\n"
