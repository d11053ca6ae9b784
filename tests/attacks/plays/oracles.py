"""What the clock and ds01's own pages tell."""

from __future__ import annotations

import ipaddress
import secrets
import socket
import time

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API
from tests.fakes.raw_socket import Answer, connected, read_answer, request

_SAMPLES = 250
_TELLING = 0.22  # how far from 0.5 the share of slower answers is before an attacker could use it
_TRIES = 3


@play
def timing(world: World, *, kind: str) -> Played:
    """How often a 404 for what is bob's takes longer than one for what is not there.

    Interleaved pairs on one connection, compared by rank, so that load and outliers hit both alike: 0.5 is no difference.
    A machine's mood can pass the bound once, three times in a row it cannot.
    """
    targets = {
        "container": ("/containers/bobc/json", "/containers/nobc/json"),
        "exec": (f"/exec/{world.words['exec']}/json", f"/exec/{secrets.token_hex(32)}/json"),
        "network": (f"/networks/{world.words['bobn']}", f"/networks/{secrets.token_hex(32)}"),
        "volume": ("/volumes/bobv", "/volumes/nobv"),
    }[kind]
    requests = [request("GET", API + target) for target in targets]
    shares: list[float] = []
    with connected(world.socket("alice"), world.alice) as client:
        first = _ask(client, requests[0])[1]
        while len(shares) < _TRIES:
            pairs = [_pair(client, requests, swapped=number % 2 == 1) for number in range(_SAMPLES)]
            shares.append(_slower_share(pairs))
            if abs(shares[-1] - 0.5) < _TELLING:
                break
    played = Played(answers=[Answer(status=first.status)])  # its words repeat the id that was asked for
    played.unless(
        abs(shares[-1] - 0.5) < _TELLING,
        f"the clock tells bob's {kind} from none: {[f'{x:.2f}' for x in shares]}",
    )
    return played


def _pair(client: socket.socket, requests: list[bytes], *, swapped: bool) -> tuple[float, float]:
    first, second = (_ask(client, each)[0] for each in (requests[::-1] if swapped else requests))
    return (second, first) if swapped else (first, second)


def _ask(client: socket.socket, data: bytes) -> tuple[float, Answer]:
    started = time.perf_counter()
    client.sendall(data)
    answer = read_answer(client)
    return time.perf_counter() - started, answer


def _slower_share(pairs: list[tuple[float, float]]) -> float:
    """The probability that a foreign answer is slower than an absent one (Mann-Whitney, as a share)."""
    absent = sorted(second for _, second in pairs)
    total = 0
    below = 0
    for foreign in sorted(first for first, _ in pairs):
        while below < len(absent) and absent[below] < foreign:
            below += 1
        total += below
    return total / (len(pairs) * len(pairs))


@play
def explain_bobs(world: World) -> Played:
    """The id of a decision about bob, as it stands in his denial, asked for by alice."""
    refused = world.ask(
        "POST",
        f"{API}/containers/create",
        {"Image": "busybox", "HostConfig": {"Privileged": True}},
        user="bob",
    )
    request_id = refused.message.rpartition(" ")[2]
    own = world.ask("GET", f"/ds01/v1/explain/{request_id}", user="bob")
    played = Played(answers=[world.ask("GET", f"/ds01/v1/explain/{request_id}")])
    played.unless(own.status == 200, "bob himself is not told: this proves nothing")
    return played


@play
def many_labels(world: World) -> Played:
    """A thousand labels of a kilobyte each would be in every list and event."""
    body = {"Image": "busybox", "Labels": {f"l{number}": "x" * 500 for number in range(1000)}}
    return Played(answers=[world.ask("POST", f"{API}/containers/create", body)])


@play
def forged_volume(world: World) -> Played:
    """A volume of alice's that is labelled as bob's is hers in the engine."""
    body = {"Name": "forged", "Labels": {"ds01.owner": world.bob, "ds01.uid": world.words["bobuid"]}}
    answer = world.ask("POST", f"{API}/volumes/create", body)
    played = Played(answers=[answer])
    if answer.status == 201:
        labels = world.root("GET", f"/volumes/u{world.words['uid']}.forged")["Labels"]
        played.unless(labels["ds01.owner"] == world.alice, f"labelled {labels}")
        world.ask("DELETE", f"{API}/volumes/forged")
    return played


@play
def hosts_subnet(world: World) -> Played:
    """A network in the very subnet that the host (here the lab's network) is in."""
    host = str(ipaddress.ip_network(f"{world.lab.address}/30", strict=False))
    body = {"Name": "n", "IPAM": {"Config": [{"Subnet": host}]}}
    return Played(answers=[world.ask("POST", f"{API}/networks/create", body)])


@play
def old_events(world: World) -> Played:
    """Alice reads the history of events while bob uses a name again: it must stay his, and unambiguous."""
    played = Played(answers=[Answer(status=200)])
    for number in range(2):
        made = world.ask("POST", f"{API}/containers/create?name=again", {"Image": "busybox"}, user="bob")
        played.unless(made.status == 201, f"round {number}: bob cannot make it: {made.message}")
        world.ask("GET", f"{API}/events?since=0&until={int(time.time())}")
        gone = world.ask("DELETE", f"{API}/containers/again", user="bob")
        played.unless(gone.status == 204, f"round {number}: bob cannot remove it: {gone.message}")
    return played


@play
def taken_names(world: World, *, kind: str) -> Played:
    """What alice makes under bob's name is hers: looked at by that name, she finds her own, and bob finds his."""
    (name, all_of_kind) = {"volume": ("bobv", "/volumes"), "network": ("bobn", "/networks")}[kind]
    one = f"{all_of_kind}/{name}"
    bobs = world.must("bob", "GET", one).json
    played = Played(answers=[world.ask("POST", f"{API}{all_of_kind}/create", {"Name": name})])
    own = world.must("alice", "GET", one).json
    made = world.root("GET", f"{all_of_kind}/u{world.words['uid']}.{name}")
    played.unless(made["Labels"]["ds01.owner"] == world.alice, f"alice has made {made}")
    played.unless(own.get("Id") == made.get("Id"), f"alice is given {own}")
    played.unless(own.get("Id", 0) != bobs.get("Id", 1), "both have one network")
    played.unless(world.must("bob", "GET", one).json == bobs, f"bob's {kind} has changed")
    return played
