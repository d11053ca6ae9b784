"""Bytes behind a request: pipelined, hidden in a body, or behind an upgrade."""

from __future__ import annotations

import json
import socket

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API
from tests.fakes.raw_socket import Answer, connected, read_answer, request

_PRIVILEGED = request(
    "POST", f"{API}/containers/create", {"Image": "busybox", "HostConfig": {"Privileged": True}}
)
_PING = request("GET", "/_ping")


def _statuses(client: socket.socket, most: int) -> list[int]:
    """The status of each answer on a connection, until it is quiet."""
    data = b""
    client.settimeout(2)
    try:
        while data.count(b"HTTP/1.1 ") < most and (piece := client.recv(65536)):
            data += piece
    except (TimeoutError, ConnectionResetError):
        pass
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def _sent(world: World, data: bytes, most: int = 3) -> list[int]:
    with connected(world.socket("alice"), world.alice) as client:
        client.sendall(data)
        return _statuses(client, most)


@play
def pipelined_privileged(world: World) -> Played:
    """A good request in front does not carry a bad one through."""
    found = _sent(world, _PING + _PRIVILEGED, 2)
    played = Played(answers=[Answer(status=200)])
    played.unless(found == [200, 403], f"answered {found}")
    return played


@play
def pipelined_half(world: World) -> Played:
    """Half a create behind a ping, the rest never: the ping is served, and nothing is made."""
    found = _sent(world, _PING + _PRIVILEGED[:80], 2)
    played = Played(answers=[Answer(status=200)])
    played.unless(found == [200], f"answered {found}")
    return played


@play
def smuggled_in_body(world: World) -> Played:
    """A whole request as the body of another is a body."""
    inner = request("DELETE", f"{API}/containers/mine?force=1")
    outer = request("POST", f"{API}/containers/mine/wait?condition=removed", inner)
    with connected(world.socket("alice"), world.alice) as client:
        client.sendall(outer + _PING)
        found = _statuses(client, 3)
    played = Played(answers=[Answer(status=200)])
    played.unless(204 not in found, f"answered {found}")
    kept = world.ask("GET", f"{API}/containers/mine/json").status
    played.unless(kept == 200, "the hidden removal was served")
    return played


def _echo(world: World) -> str:
    """A container of alice's that echoes its input."""
    body = {"Image": "busybox", "Cmd": ["cat"], "OpenStdin": True, "AttachStdin": True}
    made = world.must("alice", "POST", "/containers/create?name=box", body).json["Id"]
    world.must("alice", "POST", f"/containers/{made}/start")
    return str(made)


@play
def behind_upgrade(world: World) -> Played:
    """What is behind a hijacked call is the container's input: a request among it is never served."""
    box = _echo(world)
    attach = request(
        "POST",
        f"{API}/containers/{box}/attach?stream=1&stdin=1&stdout=1",
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
    )
    played = Played(answers=[Answer(status=200)])
    with connected(world.socket("alice"), world.alice) as client:
        client.sendall(attach + request("POST", f"{API}/containers/{box}/kill"))
        answer = read_answer(client)
        played.unless(answer.status == 101, f"the attach was answered {answer.status}")
        client.settimeout(20)
        echoed = answer.body or client.recv(65536)  # the echo may have come with the head
    played.unless(
        b"POST /v1.41/containers/" in echoed and b"HTTP/1.1 204" not in echoed, f"echoed {echoed!r}"
    )
    played.unless(
        world.root("GET", f"/containers/{box}/json")["State"]["Running"], "the hidden kill was served"
    )
    return played


@play
def behind_refused_upgrade(world: World) -> Played:
    """Behind an upgrade that was refused the connection is HTTP again, and each request is decided on its own."""
    attach = request(
        "POST",
        f"{API}/containers/bobc/attach?stream=1&stdin=1",
        headers={"Connection": "Upgrade", "Upgrade": "tcp"},
    )
    found = _sent(world, attach + _PRIVILEGED, 2)
    played = Played(answers=[Answer(status=200)])
    played.unless(found in ([404, 403], [404]), f"answered {found}")
    return played


@play
def behind_websocket(world: World) -> Played:
    """A request behind a websocket's handshake goes to the container's socket as frames, or nowhere."""
    box = _echo(world)
    handshake = request(
        "GET",
        f"{API}/containers/{box}/attach/ws?stream=1&stdin=1&stdout=1",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Origin": "http://x",
            "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version": "13",
        },
    )
    found = _sent(world, handshake + request("POST", f"{API}/containers/{box}/kill"), 2)
    played = Played(answers=[Answer(status=200)])
    played.unless(found == [101], f"answered {found}")
    played.unless(
        world.root("GET", f"/containers/{box}/json")["State"]["Running"], "the hidden kill was served"
    )
    return played


@play
def audit_injection(world: World) -> Played:
    """Line ends and quotes in what is refused: every line of the audit log stays one record of ds01's own."""
    path = world.lab.root / "log" / "audit.jsonl"
    before = path.stat().st_size
    forged = '{"event":"forged"}'
    world.ask(
        "POST", f"{API}/containers/create?name=a%0A%7B%22event%22:%22forged%22%7D%0A", {"Image": "busybox"}
    )
    world.ask("POST", f"{API}/volumes/create", {"Name": f"x\n{forged}\n"})
    world.ask(
        "POST",
        f"{API}/containers/create",
        {"Image": f"x\n{forged}\n", "HostConfig": {"Runtime": f"\n{forged}\n"}},
    )
    with path.open("rb") as log:
        log.seek(before)
        lines = log.read().splitlines()
    played = Played(answers=[Answer(status=200)])
    played.unless(lines, "nothing was recorded")
    for line in lines:
        try:
            played.unless(json.loads(line).get("event") != "forged", f"a forged record: {line!r}")
        except ValueError:
            played.harm.append(f"a torn line: {line!r}")
    return played
