"""Shares of containers: what outlives its end, and whose a name is."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API, WorldBroken
from tests.fakes.raw_socket import Answer, connected, request

_SHARE, _UNSHARE = "/ds01/v1/containers/share", "/ds01/v1/containers/unshare"
_SOON_SECONDS = 5.0


@contextmanager
def _shared(world: World) -> Iterator[str]:
    """Bob has one more container, which alice may use; gives its id. It is gone afterwards, the share before that."""
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "while true; do echo tick; sleep 0.2; done"]}
    made: str = world.must("bob", "POST", "/containers/create", body).json["Id"]
    try:
        world.must("bob", "POST", f"/containers/{made}/start")
        wish = {"container": made, "with": ["user:<alicename>"], "share": "use", "seconds": 60}
        if world.ask("POST", _SHARE, wish, user="bob").status != 200:
            raise WorldBroken("bob could not share")
        yield made
    finally:
        world.must("bob", "DELETE", f"/containers/{made}?force=1")


def _unshare(world: World, container: str) -> None:
    if world.ask("POST", _UNSHARE, {"container": container}, user="bob").status != 200:
        raise WorldBroken("bob could not end his share")


@play
def exec_kept_over_the_end(world: World) -> Played:
    """An exec id is good for as long as the share."""
    with _shared(world) as container:
        made = world.must("alice", "POST", f"/containers/{container}/exec", {"Cmd": ["true"]}).json["Id"]
        _unshare(world, container)
        return Played(answers=[world.ask("POST", f"{API}/exec/{made}/start", {"Detach": True})])


@play
def streams_kept_over_the_end(world: World) -> Played:
    """logs -f and a hijacked exec: their connections are closed within seconds."""
    played = Played(answers=[Answer(status=200)])
    with ExitStack() as stack:
        container = stack.enter_context(_shared(world))
        run = {"Cmd": ["sh", "-c", "while true; do echo tick; sleep 0.2; done"], "AttachStdout": True}
        made = world.must("alice", "POST", f"/containers/{container}/exec", run).json["Id"]
        follow = request("GET", f"{API}/containers/{container}/logs?follow=1&stdout=1")
        upgrade = {"connection": "Upgrade", "upgrade": "tcp"}
        start = request("POST", f"{API}/exec/{made}/start", {"Detach": False}, headers=upgrade)
        clients = {}
        for name, data in (("logs", follow), ("exec", start)):
            client = clients[name] = stack.enter_context(connected(world.socket("alice"), world.alice))
            client.sendall(data)
            played.unless(client.recv(1), f"preparation: {name} did not begin")
        _unshare(world, container)
        for name, client in clients.items():
            played.unless(_ends(client), f"{name} goes on after the end of the share")
    return played


def _ends(client: socket.socket) -> bool:
    """Whether the connection is closed soon."""
    until = time.monotonic() + _SOON_SECONDS
    client.settimeout(1)
    while time.monotonic() < until:
        try:
            if not client.recv(65536):
                return True
        except TimeoutError:
            continue
        except ConnectionResetError:
            return True
    return False


@play
def shared_names(world: World) -> Played:
    """Alice shares containers named like bob's, his id and its beginnings: each of his words still means his."""
    played = Played(answers=[Answer(status=200)])
    wanted = world.words["bobc"]
    for number, name in enumerate(["bobc", f"{world.bob}.bobc", "<bobsnames>bobc", "bobc.bobc"]):
        made = world.must("alice", "POST", f"/containers/create?name={name}", {"Image": "busybox"}).json["Id"]
        wish = {"container": made, "with": ["user:<bobname>"], "share": "use", "seconds": 60}
        shared = world.ask("POST", _SHARE, wish)
        played.unless(shared.status == 200, f"preparation {number}: {shared.status}")
        for word in ("bobc", "/bobc", wanted, wanted[:12], wanted[:1], "<bobsnames>bobc"):
            answer = world.ask("GET", f"{API}/containers/{word.removeprefix('/')}/json", user="bob")
            found = answer.json.get("Id") if answer.status == 200 else None
            played.unless(found in (wanted, None), f"{word} means {found} to bob, with {name} shared")
        world.must("alice", "DELETE", f"/containers/{made}?force=1")
    return played
