"""BuildKit's connection through the whole proxy, to a scripted dockerd."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from h2 import events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection

from buildkit import api_pb2 as pb
from buildkit.framing import BadMessage, frame
from buildkit.ports import Failed
from buildkit.status import Code
from host.cgroups import Bounds
from policy.buildkit.methods import CONTROL
from socket_proxy import builds
from socket_proxy.refusals import Unavailable
from tests.fakes import whole_proxy as fakes
from tests.fakes.proxy_world import ENGINE
from tests.fakes.whole_proxy import POLICY, WholeProxy, document_of, whole_proxy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.fakes.scripted_dockerd import Talk

UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
SECONDS = 5


class Grpc:
    """One gRPC connection, by h2 alone, on an upgraded stream."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self.h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self.h2.initiate_connection()

    async def call(self, path: str, message: bytes) -> tuple[dict[str, str], bytes]:
        stream = self.h2.get_next_available_stream_id()
        self.h2.send_headers(
            stream,
            [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x"),
             ("content-type", "application/grpc")],
        )  # fmt: skip
        self.h2.send_data(stream, frame(message), end_stream=True)
        headers: dict[str, str] = {}
        data = b""
        while True:
            self._writer.write(self.h2.data_to_send())
            for event in self.h2.receive_data(await asyncio.wait_for(self._reader.read(65536), SECONDS)):
                match event:
                    case h2.ResponseReceived() | h2.TrailersReceived():
                        headers |= {str(name): str(value) for name, value in event.headers}
                    case h2.DataReceived():
                        data += event.data
                    case h2.StreamEnded():
                        return headers, data

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


SENT: list[bytes] = []
BOUND: list[tuple[str, Bounds]] = []


async def serve_grpc(talk: Talk) -> None:
    """dockerd: upgrades, then answers each call well; SENT holds what it got."""
    await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n")
    connection = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    connection.initiate_connection()
    messages: dict[int, bytes] = {}
    while True:
        await talk.say(connection.data_to_send())
        data = await talk.reader.read(65536)
        if not data:
            return
        for event in connection.receive_data(data):
            if isinstance(event, h2.DataReceived):
                messages[event.stream_id] = messages.get(event.stream_id, b"") + event.data
            elif isinstance(event, h2.StreamEnded):
                SENT.append(messages[event.stream_id][5:])
                connection.send_headers(event.stream_id, [(":status", "200")])
                connection.send_data(event.stream_id, frame(b""))
                connection.send_headers(event.stream_id, [("grpc-status", "0")], end_stream=True)


@pytest.fixture
async def world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> AsyncIterator[WholeProxy]:
    """A proxy in front of an engine whose BuildKit can be confined; the marker's text is added to the policy."""
    monkeypatch.setattr(builds, "bound", lambda path, bounds: BOUND.append((path, bounds)))
    monkeypatch.setattr(fakes, "ENGINE", replace(ENGINE, version="28.5.2"))
    allow = getattr(request, "param", "mediated")
    text = POLICY.replace('registries: ["*"]', f'registries: ["*"], builds: {allow}')
    async with whole_proxy(tmp_path, monkeypatch, policy=text) as running:
        running.answers["POST /grpc"] = serve_grpc
        running.answers["GET /images/json"] = (200, [])
        running.answers["GET /images/"] = (404, {"message": "no such image"})
        yield running


async def connect(world: WholeProxy, name: str = "alice") -> Grpc:
    reader, writer = await world.connect(name)
    writer.write(UPGRADE)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), SECONDS)
    assert head.startswith(b"HTTP/1.1 101"), head
    return Grpc(reader, writer)


async def test_a_build_goes_through_with_its_user_in_it(world: WholeProxy) -> None:
    """Decided, rewritten, and on record under the number of its connection."""
    grpc = await connect(world)
    asked = pb.SolveRequest(
        Ref="abc", Frontend="dockerfile.v0", Exporters=[pb.Entry(Type="moby", Attrs={"name": "m"})]
    )
    headers, _ = await grpc.call(f"{CONTROL}/Solve", asked.SerializeToString())
    assert headers["grpc-status"] == "0"
    sent = pb.SolveRequest.FromString(SENT[-1])
    assert sent.Ref == "ds01-1001-abc"
    assert sent.FrontendAttrs["cgroup-parent"] == "/ds01/1001/build"
    assert BOUND[-1] == ("/ds01/1001/build", Bounds(memory_bytes=1024**3, cpu_millis=1000, pids=100))
    await grpc.close()
    lines = [line for line in world.audit() if line.get("event") == "build_call"]
    assert [(line["call"], line["actor"], line["tags"]) for line in lines] == [
        (f"{CONTROL}/Solve", "alice", ["m"])
    ]
    connection = next(line for line in world.audit() if line.get("operation") == "Grpc")
    assert connection["request_id"] == lines[0]["request_id"]


async def test_a_build_without_limits_does_not_happen(
    world: WholeProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its user hears what to do instead."""

    def fail(_path: str, _bounds: Bounds) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(builds, "bound", fail)
    grpc = await connect(world)
    headers, _ = await grpc.call(f"{CONTROL}/Solve", pb.SolveRequest(Ref="abc").SerializeToString())
    assert headers["grpc-status"] == str(int(Code.UNAVAILABLE))
    assert "DOCKER_BUILDKIT=0" in headers["grpc-message"]
    await grpc.close()


async def test_a_refused_build_can_be_explained(world: WholeProxy) -> None:
    """By the number in its words."""
    grpc = await connect(world)
    headers, _ = await grpc.call(
        f"{CONTROL}/Solve", pb.SolveRequest(Ref="abc", Definition=b"x").SerializeToString()
    )
    assert headers["grpc-status"] == str(int(Code.PERMISSION_DENIED))
    number = headers["grpc-message"].rpartition(" ")[2]
    found = world.running().trail.find(number, uid=1001)
    assert found is not None
    assert found["rules"] == ["buildkit"]
    assert world.running().trail.find(number, uid=1002) is None
    await grpc.close()


@pytest.mark.parametrize("world", ["opaque"], indirect=True)
async def test_opaque_passes_everything(world: WholeProxy) -> None:
    """Word for word, raw LLB too."""
    grpc = await connect(world)
    message = pb.SolveRequest(Ref="abc", Definition=b"x").SerializeToString()
    headers, _ = await grpc.call(f"{CONTROL}/Solve", message)
    assert (headers["grpc-status"], SENT[-1]) == ("0", message)
    await grpc.close()


@pytest.mark.parametrize("world", ["classic"], indirect=True)
@pytest.mark.parametrize("call", ["/grpc", "/session"])
async def test_classic_refuses_with_the_advice(world: WholeProxy, call: str) -> None:
    """Before dockerd hears of it."""
    answer = await world.ask(
        "alice", f"POST {call}", headers="Upgrade: h2c\r\nX-Docker-Expose-Session-Uuid: abc\r\n"
    )
    assert b" 403 " in answer.partition(b"\r\n")[0]
    assert b"DOCKER_BUILDKIT=0" in answer
    assert world.asked == []


async def test_an_engine_that_refuses_the_upgrade_is_heard(world: WholeProxy) -> None:
    """As an ordinary answer."""
    world.answers["POST /grpc"] = (501, {"message": "no such thing here"})
    reader, writer = await world.connect("alice")
    writer.write(UPGRADE)
    assert (await asyncio.wait_for(reader.readline(), SECONDS)).startswith(b"HTTP/1.1 501")
    writer.close()
    await writer.wait_closed()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BadMessage("x"), Code.INVALID_ARGUMENT),
        (Failed("x"), Code.UNAVAILABLE),
        (Unavailable("x"), Code.UNAVAILABLE),
        (ValueError("x"), Code.INTERNAL),
    ],
)
def test_how_a_call_ends_that_could_not_be_decided(error: Exception, code: Code) -> None:
    """Told apart by who can do something about it."""
    status = builds._failed("/x", error)
    assert status.code is code
    assert status.message.startswith("ds01: ")


async def test_a_user_prunes_own_cache_and_no_others(world: WholeProxy) -> None:
    """`docker system prune` asks for it too."""
    own = {"ID": "a1", "Type": "exec.cachemount", "Size": 5, "CreatedAt": "2026-01-01T00:00:00Z",
           "Description": 'RUN x with id "ds01-1001/c"'}  # fmt: skip
    world.answers["GET /v1.42/system/df"] = (200, {"Images": None, "BuildCache": [own]})
    world.answers["POST /v1.42/build/prune"] = (200, {"CachesDeleted": ["a1"], "SpaceReclaimed": 5})
    assert document_of(await world.ask("alice", "POST /build/prune")) == {
        "CachesDeleted": ["a1"],
        "SpaceReclaimed": 5,
    }
    nothing = {"CachesDeleted": None, "SpaceReclaimed": 0}
    assert document_of(await world.ask("bob", "POST /build/prune")) == nothing


async def test_an_engine_whose_buildkit_is_refused_has_no_cache_of_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is not asked."""
    async with whole_proxy(tmp_path, monkeypatch) as running:
        nothing = {"CachesDeleted": None, "SpaceReclaimed": 0}
        assert document_of(await running.ask("alice", "POST /build/prune")) == nothing
        assert not any("prune" in line or "df" in line for line in running.asked)
