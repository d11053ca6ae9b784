"""`/build?version=2` through the whole proxy, to a scripted dockerd."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from h2 import events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection

from buildkit import api_pb2 as pb
from buildkit.framing import frame
from buildkit.giving import PULL
from host.cgroups import Bounds
from policy.buildkit.methods import SOLVE, STATUS
from socket_proxy import builds
from tests.fakes import whole_proxy as fakes
from tests.fakes.proxy_world import ENGINE
from tests.fakes.whole_proxy import POLICY, WholeProxy, document_of, status_of, whole_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.scripted_dockerd import Talk

SECONDS = 5
ID = "sha256:" + "a" * 64
BUILD = "POST /build?version=2&session=s1&remote=client-session&buildid=b1&t=mine"


class Buildkit:
    """dockerd's /grpc: keeps what it is sent, and answers with `made` once `go` is set; `refusal` is a failed build."""

    def __init__(self) -> None:
        self.sent: dict[str, list[bytes]] = {}
        self.go = asyncio.Event()
        self.go.set()
        self.refusal = ""
        self.over = asyncio.Event()

    async def serve(self, talk: Talk) -> None:
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        connection.initiate_connection()
        paths: dict[int, str] = {}
        async with asyncio.TaskGroup() as tasks:
            while True:
                await talk.say(connection.data_to_send())
                data = await talk.reader.read(65536)
                if not data:
                    break
                for event in connection.receive_data(data):
                    match event:
                        case h2.RequestReceived():
                            paths[event.stream_id] = next(
                                str(value) for name, value in event.headers if str(name) == ":path"
                            )
                        case h2.DataReceived():
                            self.sent.setdefault(paths[event.stream_id], []).append(event.data[5:])
                        case h2.StreamEnded():
                            tasks.create_task(
                                self._answer(talk, connection, event.stream_id, paths[event.stream_id])
                            )
            self.over.set()
            self.go.set()

    async def _answer(self, talk: Talk, connection: H2Connection, stream: int, path: str) -> None:
        connection.send_headers(stream, [(":status", "200")])
        if path == STATUS:
            connection.send_data(stream, frame(b"step"))
        await talk.say(connection.data_to_send())
        await self.go.wait()
        if self.over.is_set():
            return
        words = [("grpc-status", "2"), ("grpc-message", self.refusal)]
        if path == SOLVE and not self.refusal:
            made = pb.SolveResponse(ExporterResponse={"containerimage.digest": ID})
            connection.send_data(stream, frame(made.SerializeToString()))
        connection.send_headers(
            stream, words if path == SOLVE and self.refusal else [("grpc-status", "0")], end_stream=True
        )
        await talk.say(connection.data_to_send())


@pytest.fixture
def engine() -> Buildkit:
    return Buildkit()


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, engine: Buildkit
) -> AsyncIterator[WholeProxy]:
    """A proxy in front of an engine whose BuildKit can be confined; the marker's text is added to the policy."""
    monkeypatch.setattr(builds, "bound", lambda _path, _bounds: None)
    version, allow = getattr(request, "param", ("28.5.2", "mediated"))
    monkeypatch.setattr(fakes, "ENGINE", replace(ENGINE, version=version))
    text = POLICY.replace('registries: ["*"]', f'registries: ["*"], builds: {allow}')
    async with whole_proxy(tmp_path, monkeypatch, policy=text) as running:
        running.answers["POST /grpc"] = engine.serve
        running.answers["GET /images/json"] = (200, [])
        running.answers["GET /images/"] = (404, {"message": "no such image"})
        yield running


def lines_of(answer: bytes) -> list[dict[str, object]]:
    """The JSON lines of a chunked answer."""
    body, lines = answer.partition(b"\r\n\r\n")[2], b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        lines += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return [json.loads(line) for line in lines.splitlines()]


async def test_a_build_goes_by_grpc_with_its_user_in_it(world: WholeProxy, engine: Buildkit) -> None:
    """Dockerd never sees the query; the client sees what it would have said."""
    answer = await world.ask("alice", f"{BUILD}&target=one")
    assert status_of(answer) == 200
    assert lines_of(answer) == [
        {"id": "moby.buildkit.trace", "aux": "c3RlcA=="},
        {"id": "moby.image.id", "aux": {"ID": ID}},
    ]
    sent = pb.SolveRequest.FromString(engine.sent[SOLVE][0])
    assert sent.Ref.startswith("ds01-1001-")
    assert sent.Session == "ds01-1001-s1"
    assert sent.Frontend == "dockerfile.v0"
    assert sent.FrontendAttrs["target"] == "one"
    assert sent.FrontendAttrs["cgroup-parent"] == "/ds01/1001/build"
    assert sent.FrontendAttrs["cmdline"]
    assert pb.StatusRequest.FromString(engine.sent[STATUS][0]).Ref == sent.Ref
    assert not any(line.startswith("POST /build") for line in world.asked)
    calls = [line for line in world.audit() if line.get("event") == "build_call"]
    assert [(line["call"], line["actor"], line["tags"]) for line in calls] == [(SOLVE, "alice", ["mine"])]


async def test_a_failed_build_is_told_in_the_stream(world: WholeProxy, engine: Buildkit) -> None:
    """As dockerd does once it has begun."""
    engine.refusal = "exit code: 1"
    assert lines_of(await world.ask("alice", BUILD))[-1]["error"] == "exit code: 1"


async def test_quietly_the_id_alone_is_said(world: WholeProxy, engine: Buildkit) -> None:
    """For `docker build -q`."""
    del engine
    assert lines_of(await world.ask("alice", f"{BUILD}&q=1")) == [{"stream": f"{ID}\n"}]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("&networkmode=host", "force-network-mode"),
        ("&networkmode=bridge", "networkmode"),
        ("&buildargs=%7B%22BUILDKIT_SYNTAX%22%3A%22x%22%7D", "BUILDKIT_SYNTAX"),
        ("&outputs=%5B%7B%22Type%22%3A%22registry%22%7D%5D", "Exporters"),
    ],
)
async def test_a_refusal_can_be_explained(world: WholeProxy, engine: Buildkit, more: str, said: str) -> None:
    """Nothing of it reaches BuildKit, and it is on record once."""
    answer = await world.ask("alice", BUILD + more)
    message = document_of(answer)["message"]
    assert status_of(answer) == 403
    assert said in message
    assert "rule buildkit" in message
    assert world.running().trail.find(message.rpartition(" ")[2], uid=1001) is not None
    assert not engine.sent


@pytest.mark.parametrize(
    "world", [("20.10.24", "mediated"), ("20.10.24", "opaque"), ("28.5.2", "classic")], indirect=True
)
async def test_where_buildkit_cannot_be_had_the_advice_is_the_same(world: WholeProxy) -> None:
    """As for /grpc and /session."""
    answer = await world.ask("alice", BUILD)
    assert status_of(answer) == 403
    assert "DOCKER_BUILDKIT=0" in document_of(answer)["message"]
    assert not any(line.startswith("POST") for line in world.asked)


@pytest.mark.parametrize("world", [("28.5.2", "opaque")], indirect=True)
async def test_opaque_passes_it_to_dockerd(world: WholeProxy) -> None:
    """As it passes /grpc."""
    world.answers["POST /build"] = (200, {"stream": "x"})
    assert status_of(await world.ask("alice", BUILD)) == 200
    assert any(line.startswith("POST /build?") for line in world.asked)


async def test_a_client_that_leaves_ends_its_build(world: WholeProxy, engine: Buildkit) -> None:
    """BuildKit gives up what nobody listens to."""
    engine.go.clear()
    reader, writer = await world.connect("alice")
    writer.write(f"{BUILD} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"moby.buildkit.trace"), SECONDS)
    writer.close()
    await writer.wait_closed()
    await asyncio.wait_for(engine.over.wait(), SECONDS)


async def test_a_build_is_cancelled_by_its_user_alone(world: WholeProxy, engine: Buildkit) -> None:
    """Of what is not there nothing is said."""
    engine.go.clear()
    reader, writer = await world.connect("alice")
    writer.write(f"{BUILD} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"moby.buildkit.trace"), SECONDS)
    assert status_of(await world.ask("bob", "POST /build/cancel?id=b1")) == 200
    assert not engine.over.is_set()
    assert status_of(await world.ask("alice", "POST /build/cancel?id=b1")) == 200
    await asyncio.wait_for(engine.over.wait(), SECONDS)
    await asyncio.wait_for(reader.readuntil(b"errorDetail"), SECONDS)
    writer.close()
    await writer.wait_closed()


async def test_an_engine_without_buildkit_is_heard(world: WholeProxy) -> None:
    """As an ordinary answer."""
    world.answers["POST /grpc"] = (501, {"message": "no such thing here"})
    assert status_of(await world.ask("alice", BUILD)) == 501


async def test_a_context_that_no_build_waits_for(world: WholeProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Is not kept."""
    monkeypatch.setattr("buildkit.uploads.WAIT_SECONDS", 0.05)
    answer = await world.ask("alice", "POST /build?version=2&buildid=upload-request:b1")
    assert status_of(answer) == 500
    assert "no build waits" in document_of(answer)["message"]


async def test_a_context_is_found_by_its_users_build(world: WholeProxy, engine: Buildkit) -> None:
    """The address is one that BuildKit asks the session for; two builds of one name are one too many."""
    engine.go.clear()
    build = BUILD.replace("client-session", "upload-request")
    reader, writer = await world.connect("alice")
    writer.write(f"{build} HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n".encode())
    await asyncio.wait_for(reader.readuntil(b"moby.buildkit.trace"), SECONDS)
    context = pb.SolveRequest.FromString(engine.sent[SOLVE][0]).FrontendAttrs["context"]
    assert context.startswith("http://buildkit-session/")
    assert status_of(await world.ask("alice", build)) == 409
    upload, uploading = await world.connect("alice")
    uploading.write(
        b"POST /build?version=2&buildid=upload-request:b1 HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\ntar"
    )
    engine.go.set()  # the build ends without having asked for it
    assert (await asyncio.wait_for(upload.readline(), SECONDS)).startswith(b"HTTP/1.1 200")
    for one in (writer, uploading):
        one.close()
        await one.wait_closed()


async def test_a_context_in_the_body_is_fetched_from_ds01(world: WholeProxy, engine: Buildkit) -> None:
    """In a session of ds01's own, that has nothing else to give."""
    fetched: list[bytes] = []
    heads: list[str] = []

    async def fetch(talk: Talk) -> None:
        heads.append(talk.heads[-1].decode())
        await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
        while SOLVE not in engine.sent:  # noqa: ASYNC110  nothing tells of it
            await asyncio.sleep(0.01)
        context = pb.SolveRequest.FromString(engine.sent[SOLVE][0]).FrontendAttrs["context"]
        connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        connection.initiate_connection()
        path = context.removeprefix("http://buildkit-session")
        connection.send_headers(
            1,
            [
                (":method", "POST"),
                (":scheme", "http"),
                (":path", PULL),
                (":authority", "x"),
                ("urlpath", path),
            ],
            end_stream=True,
        )
        while True:
            await talk.say(connection.data_to_send())
            data = await talk.reader.read(65536)
            if not data:
                return
            for event in connection.receive_data(data):
                if isinstance(event, h2.DataReceived):
                    fetched.append(event.data)
                elif isinstance(event, h2.StreamEnded):
                    engine.go.set()

    engine.go.clear()
    world.answers["POST /session"] = fetch
    reader, writer = await world.connect("alice")
    writer.write(b"POST /build?version=2&t=mine HTTP/1.1\r\nHost: d\r\nContent-Length: 3\r\n\r\ntar")
    await asyncio.wait_for(reader.readuntil(b"moby.image.id"), SECONDS)
    assert pb.BytesMessage.FromString(b"".join(fetched)[5:]).data == b"tar"
    sent = pb.SolveRequest.FromString(engine.sent[SOLVE][0])
    assert sent.Session.startswith("ds01-1001-")
    assert f"x-docker-expose-session-uuid: {sent.Session}\r\n" in heads[0].lower()
    writer.close()
    await writer.wait_closed()


async def test_an_engine_without_sessions_is_heard(world: WholeProxy) -> None:
    """As an ordinary answer."""
    world.answers["POST /session"] = (501, {"message": "no such thing here"})
    assert status_of(await world.ask("alice", "POST /build?version=2")) == 501


async def test_limits_that_cannot_be_set_are_an_end(
    world: WholeProxy, monkeypatch: pytest.MonkeyPatch, engine: Buildkit
) -> None:
    """And the next step is said."""

    def fail(_path: str, _bounds: Bounds) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builds, "bound", fail)
    answer = await world.ask("alice", BUILD)
    assert status_of(answer) == 503
    assert "DOCKER_BUILDKIT=0" in document_of(answer)["message"]
    assert not engine.sent
