"""One user against everybody: connections, memory, file descriptors, the disk under the audit log. All bounded in count and time."""

from __future__ import annotations

import random
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from tests.attacks.model import load_all, text_of
from tests.attacks.plays.played import Played, World, play
from tests.attacks.plays.races import eventually
from tests.attacks.world import API, WorldBroken
from tests.fakes.raw_socket import Answer, connected, exchange, request

_PING = request("GET", "/_ping")
_PATIENCE_SECONDS = (
    1.5  # what bob may wait for a ping while alice does her worst, on a machine with nothing else to do
)
_MOST_PER_USER = 64  # connections, in the lab's policy
_MIB = 1 << 20


@contextmanager
def _held(world: World, count: int, door: str = "own") -> Iterator[list[socket.socket]]:
    with ExitStack() as open_ones:
        path = world.socket("alice", door)
        yield [open_ones.enter_context(connected(path, world.alice)) for _ in range(count)]


def _fine() -> Played:
    return Played(answers=[Answer(status=200)])


def _patience(world: World) -> float:
    """Longer where pings are slow for other reasons: the machine may have more to do than this."""
    quiet = sorted(world.serves("bob") for _ in range(5))[2]
    return max(_PATIENCE_SECONDS, 20 * quiet)


def _bob_is_served(world: World, played: Played, what: str, patience: float = _PATIENCE_SECONDS) -> None:
    """The quickest of three pings: one that the machine delayed is not alice's doing, three are."""
    try:
        seconds = min(world.serves("bob") for _ in range(3))
    except WorldBroken as error:
        played.harm.append(f"{what}: {error}")
    else:
        played.unless(seconds < patience, f"{what}: bob waited {seconds:.1f} s for a ping")


def _proxy(world: World) -> Path:
    return Path("/proc", str(world.lab.pid("proxy")))


def _memory_mib(world: World) -> float:
    lines = (_proxy(world) / "status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def _descriptors(world: World) -> int:
    return len(list((_proxy(world) / "fd").iterdir()))


def _told(client: socket.socket) -> bytes:
    try:
        return client.recv(4096)
    except BlockingIOError:
        return b""


@play
def idle_connections(world: World) -> Played:
    """Alice opens 300 connections and leaves them: beyond her 64 she waits or is refused, with the rule; bob notices nothing."""
    played = _fine()
    with _held(world, 300) as clients:
        _bob_is_served(world, played, "300 idle connections")
        for client in clients:
            client.sendall(_PING)
            client.setblocking(False)
        time.sleep(5.5)  # the first that wait are told so after five seconds
        told = [_told(client) for client in clients]
        served, refused = (sum(text in each for each in told) for text in (b"200 OK", b"(rule connections)"))
        played.unless(served <= _MOST_PER_USER, f"{served} connections were let in")
        played.unless(refused >= _MOST_PER_USER, f"only {refused} connections were refused")
    served = eventually(lambda: exchange(world.socket("alice"), world.alice, _PING).status == 200, 3)
    played.unless(served, "alice stays locked out after her connections are closed")
    return played


@play
def slow_heads(world: World) -> Played:
    """Fifty clients that send a head byte by byte (slowloris)."""
    played = _fine()
    with _held(world, 50) as clients:
        for byte in b"GET /_pin":
            for client in clients:
                client.sendall(bytes([byte]))
            _bob_is_served(world, played, "slow heads")
    return played


@play
def slow_bodies(world: World) -> Played:
    """Fifty creates whose bodies come byte by byte."""
    played = _fine()
    head = request("POST", f"{API}/containers/create", b" " * 100_000)[:-100_000]
    with _held(world, 50) as clients:
        for client in clients:
            client.sendall(head)
        for byte in b'{"Image"':
            for client in clients:
                client.sendall(bytes([byte]))
            _bob_is_served(world, played, "slow bodies")
    return played


@play
def never_reads(world: World) -> Played:
    """A thousand pipelined lists whose answers are never read stop being served, not the proxy."""
    played = _fine()
    before = _memory_mib(world)
    with _held(world, 1) as (client,):
        client.setblocking(False)
        sent = request("GET", f"{API}/images/json?all=1") * 1000
        with suppress(BlockingIOError):
            while sent:
                sent = sent[client.send(sent) :]
        _bob_is_served(world, played, "answers that are not read")
    played.unless(_memory_mib(world) - before < 64, "answers that are not read pile up in memory")
    return played


@play
def event_streams(world: World) -> Played:
    """Sixty streams of events that nobody reads, while events happen."""
    played = _fine()
    before = _memory_mib(world)
    with _held(world, 60) as clients:
        for client in clients:
            client.sendall(request("GET", f"{API}/events"))
        for number in range(5):
            world.must("bob", "POST", "/volumes/create", {"Name": f"flood{number}"})
            world.ask("DELETE", f"{API}/volumes/flood{number}", user="bob")
        _bob_is_served(world, played, "streams of events")
    played.unless(_memory_mib(world) - before < 64, "streams that are not read pile up in memory")
    played.unless(eventually(lambda: world.serves("bob") < _PATIENCE_SECONDS, 5), "bob waits afterwards too")
    return played


@play
def large_bodies(world: World) -> Played:
    """Sixty bodies of 850 KB at once, made of as many values as fit: neither memory nor bob's patience ends."""
    played = _fine()
    before, patience = _memory_mib(world), _patience(world)
    body = b'{"Image":"busybox","Env":[' + b",".join([b'""'] * 280_000) + b"]}"
    data = request("POST", f"{API}/containers/create", body)
    with _held(world, _MOST_PER_USER - 4) as clients:
        for client in clients:
            client.setblocking(False)
        pending = dict.fromkeys(clients, data)
        deadline = time.monotonic() + 20
        slowest = 0.0
        while pending and time.monotonic() < deadline:
            for client in list(pending):
                with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
                    pending[client] = pending[client][client.send(pending[client]) :]
                if not pending[client]:
                    del pending[client]
            slowest = max(slowest, world.serves("bob"))
        for _ in range(10):
            slowest = max(slowest, world.serves("bob"))
        most = _memory_mib(world)
    played.unless(
        slowest < patience, f"bob waited {slowest:.1f} s for a ping, with {patience:.1f} s of patience"
    )
    played.unless(most - before < 400, f"the proxy grew by {most - before:.0f} MiB")
    return played


@play
def descriptors(world: World) -> Played:
    """As many connections as alice can open by both doors: the proxy keeps room for everybody else."""
    played = _fine()
    before = _descriptors(world)
    with _held(world, 200), _held(world, 200, "front"):
        _bob_is_served(world, played, "connections by two doors")
        opened = _descriptors(world) - before
    # By each door as many that are served, and as many that wait to be.
    played.unless(opened <= 4 * _MOST_PER_USER + 8, f"{opened} descriptors are alice's")
    gone = eventually(lambda: _descriptors(world) <= before + 8, 10)
    played.unless(gone, f"{_descriptors(world) - before} descriptors stay open")
    return played


@play
def audit_disk(world: World) -> Played:
    """Long names in what is refused: a refusal costs the disk no more than a few kilobytes, and is on record all the same."""
    played = _fine()
    log = world.lab.root / "log" / "audit.jsonl"
    before = log.stat().st_size
    name = "n" * 60_000
    count = 20
    for _ in range(count):
        world.ask("GET", f"{API}/containers/{name}/json")
        world.ask("DELETE", f"{API}/networks/{name}")
        world.ask("POST", f"{API}/images/busybox/tag?repo={name}")
        world.ask("POST", f"{API}/containers/create", {"Image": "busybox", "HostConfig": {"Runtime": name}})
        world.ask(
            "POST", f"{API}/containers/create", {"Image": "busybox", "HostConfig": {"VolumesFrom": [name]}}
        )
        world.ask("GET", f"{API}/{name}")
    with log.open("rb") as lines:
        lines.seek(before)
        written = lines.read()
    requests = 6 * count
    played.unless(
        len(written) < requests * 4096, f"{len(written) / requests:.0f} bytes of audit for one refusal"
    )
    mine = written.count(f'"actor":"{world.alice}"'.encode())
    played.unless(mine == requests, f"{mine} of {requests} refusals are on record")
    return played


def _is_decided(answer: Answer, data: bytes) -> bool:
    """Closed without a word, a refusal in Docker's form, or a read that was served."""
    if answer.status == 0 or (answer.status == 200 and data.startswith((b"GET ", b"HEAD "))):
        return True
    if not answer.body and 400 <= answer.status < 500:
        return "content-length" in answer.headers  # to a HEAD
    return (400 <= answer.status < 500 or answer.status == 505) and bool(answer.message)


@play
def noise(world: World, *, count: int = 150, seed: int = 20240117) -> Played:
    """Payloads of random bytes: each ends decided, and dockerd gets none."""
    played = _fine()
    chosen = random.Random(seed)
    log_size = world.log_size()
    for _ in range(count):
        data = chosen.randbytes(chosen.randrange(1, 600)) + b"\r\n\r\n"
        answer = exchange(world.socket("alice"), world.alice, data, seconds=10, then_close=True)
        played.unless(_is_decided(answer, data), f"{data!r} was answered {answer}")
    calls = world.reached(log_size)
    played.unless(not calls, f"dockerd was asked: {calls}")
    return played


@play
def knocked_bytes(world: World, *, count: int = 350, seed: int = 20240118) -> Played:
    """The raw requests of the corpus with bytes knocked out of place: some are whole by chance, none makes a container."""
    chosen = random.Random(seed)
    raws = [
        text_of(s.given["raw"])
        for attack in load_all()
        for s in attack.steps
        if s.kind == "raw" and s.user == "alice"
    ]
    whole = [data for data in raws if len(data) < 2000]
    before = world.root("GET", "/containers/json?all=1")
    played = _fine()
    for _ in range(count):
        mutable = bytearray(chosen.choice(whole))
        for _ in range(chosen.randrange(1, 5)):
            mutable[chosen.randrange(len(mutable))] = chosen.randrange(256)
        data = bytes(mutable)
        answer = exchange(world.socket("alice"), world.alice, data, seconds=10, then_close=True)
        played.unless(_is_decided(answer, data), f"{data!r} was answered {answer}")
    after = world.root("GET", "/containers/json?all=1")
    played.unless(len(after) == len(before), f"{len(after) - len(before)} containers were made")
    return played


@play
def connect_and_go(world: World) -> Played:
    """Two hundred clients that leave in the middle of a request leave nothing open behind them."""
    played = _fine()
    before = _descriptors(world)
    data = request("POST", f"{API}/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    for number in range(200):
        with connected(world.socket("alice"), world.alice) as client:
            client.sendall(data[: len(data) * number // 210])
    _bob_is_served(world, played, "clients that leave")
    played.unless(eventually(lambda: _descriptors(world) <= before + 8, 10), "descriptors stay open")
    return played
