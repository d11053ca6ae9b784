"""A decided build, told in the lines of /build."""

from __future__ import annotations

import asyncio
import base64
import json

import pytest

from buildkit import api_pb2 as pb
from buildkit import build
from buildkit.verdicts import Forward
from tests.fakes.grpc_ends import SECONDS, Engine, calling

ID = "sha256:" + "a" * 64
SOLVE = Forward(path="/Solve", metadata=(), message=b"s")
STATUS = Forward(path="/Status", metadata=(), message=b"t")


async def told(
    answers: dict[str, tuple[tuple[bytes, ...], int, str]], *, solve: Forward = SOLVE, quiet: bool = False
) -> list[dict[str, object]]:
    """The lines of a build whose calls are answered so: messages, status, words."""
    lines: list[bytes] = []

    async def say(line: bytes) -> None:
        if line:
            lines.append(line)

    async def script(engine: Engine, stream: int) -> None:
        messages, status, words = answers[engine.streams[stream].headers[":path"]]
        await engine.give(stream, *messages, status=status, words=words)

    async with calling() as (client, engine):
        engine.script = script
        await asyncio.wait_for(
            build.carry_out(client, solve=solve, status=STATUS, say=say, quiet=quiet), SECONDS
        )
    assert all(line.endswith(b"\r\n") and line.count(b"\n") == 1 for line in lines)
    return [json.loads(line) for line in lines]


MADE = pb.SolveResponse(ExporterResponse={"containerimage.digest": ID}).SerializeToString()
BUILT = {"/Solve": ((MADE,), 0, ""), "/Status": ((b"one", b"two"), 0, "")}


async def test_a_build_is_told_from_its_first_step_to_its_image() -> None:
    """As dockerd tells it."""
    traces = [
        {"id": "moby.buildkit.trace", "aux": base64.b64encode(one).decode()} for one in (b"one", b"two")
    ]
    assert await told(BUILT) == [*traces, {"id": "moby.image.id", "aux": {"ID": ID}}]


async def test_quietly_the_image_alone_is_told() -> None:
    """In the words that `docker build -q` prints."""
    assert await told(BUILT, quiet=True) == [{"stream": ID + "\n"}]


async def test_a_failure_is_told_behind_its_steps() -> None:
    """In the engine's words."""
    lines = await told({"/Solve": ((), 2, "exit code: 1"), "/Status": ((b"one",), 0, "")})
    assert lines[0]["id"] == "moby.buildkit.trace"
    assert lines[1] == {"errorDetail": {"message": "exit code: 1"}, "error": "exit code: 1"}


async def test_a_build_whose_progress_is_not_to_be_had() -> None:
    """Is built all the same."""
    assert await told({"/Solve": ((MADE,), 0, ""), "/Status": ((), 5, "no such job")}) == [
        {"id": "moby.image.id", "aux": {"ID": ID}}
    ]


async def test_a_result_that_went_to_the_client_names_no_image() -> None:
    """And is no error."""
    assert await told({"/Solve": ((b"",), 0, ""), "/Status": ((), 0, "")}) == []


async def test_what_was_built_is_recorded() -> None:
    """By whoever decided the build."""
    seen: list[bytes] = []

    def built(message: bytes) -> bytes:
        seen.append(message)
        return message

    await told(BUILT, solve=Forward(path="/Solve", metadata=(), message=b"s", reshape=built))
    assert seen == [MADE]


async def test_progress_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the build is over."""
    monkeypatch.setattr(build, "_LAST_WORDS_SECONDS", 0.1)
    lines: list[bytes] = []

    async def say(line: bytes) -> None:
        lines.append(line)

    async def script(engine: Engine, stream: int) -> None:
        if engine.streams[stream].headers[":path"] == "/Solve":
            await engine.give(stream, MADE)

    async with calling() as (client, engine):
        engine.script = script
        await asyncio.wait_for(
            build.carry_out(client, solve=SOLVE, status=STATUS, say=say, quiet=False), SECONDS
        )
    assert b"moby.image.id" in lines[-1]


def test_how_a_build_is_watched() -> None:
    """By its name."""
    assert pb.StatusRequest.FromString(build.watch("r").message).Ref == "r"
