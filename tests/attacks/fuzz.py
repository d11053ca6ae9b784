"""Differential fuzzing: random create bodies through the proxy, and what the engine made of each held against what ds01 decided.

Three documents must agree for each container: the body that the rules, asked again here, decide to send; the digest of
what was sent, from the audit log; and what root finds in the engine.
"""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from hashlib import sha256
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from policy import gpus
from policy.compile import Policy
from policy.dockerapi.bind import bind
from policy.dockerapi.model import Incoming, MalformedRequest, Request, UnknownField
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.evaluate import evaluate
from policy.facts import needed
from policy.model import (
    Actor,
    DeviceUuid,
    Effect,
    EngineFacts,
    Facts,
    JoinOwnNetwork,
    Kind,
    LeaseGpus,
    ObjectFact,
    Reference,
    Usage,
)
from policy.names import real
from policy.obligations import apply, join
from policy.ownership import CREATED_BY, LABELS, default_network
from tests.attacks.forger import Forger, account_of
from tests.attacks.fuzz_bodies import bodies
from tests.attacks.fuzz_compare import Owner, differences, harms
from tests.attacks.world import API, World
from tests.fakes.raw_socket import Answer, connected, read_answer, request

CREATE = f"{API}/containers/create"
_VOLUME = "fuzzvol"
_AT_ONCE = 4  # most of a body's time dockerd waits for its disk
# Refusals that come after the rules, or by what the other processes hold: of files, of another's volume, of a GPU that is not free.
_LATER = ("(rule bind_mounts)", "(rule volume_names)", "(rule gpu_lease)", "(rule gpu_limit)")


class Line:
    """One kept-alive connection. Opened again where the server has closed it, as it does after what it cannot frame."""

    def __init__(self, world: World, user: str) -> None:
        self._world, self._user = world, user
        self._stack = ExitStack()
        self._client: socket.socket | None = None

    def ask(self, data: bytes) -> Answer:
        for _ in range(2):
            if self._client is None:
                self._client = self._stack.enter_context(
                    connected(self._world.socket(self._user), self._world.account(self._user))
                )
            try:
                self._client.sendall(data)
                answer = read_answer(self._client)
            except OSError:
                answer = Answer(status=0)
            if answer.status == 0 or answer.headers.get("connection") == "close":
                self._client = None
            if answer.status:
                return answer
        return answer

    def close(self) -> None:
        self._stack.close()


@dataclass(slots=True, kw_only=True)
class Tally:
    """What became of the bodies, and everything that was found."""

    accepted: int = 0
    refused: Counter[int] = field(default_factory=Counter)
    findings: list[str] = field(default_factory=list)

    @property
    def attempted(self) -> int:
        return self.accepted + self.refused.total()


@dataclass(frozen=True, slots=True, kw_only=True)
class Oracle:
    """Decides a body as the proxy does: the same reader and rules, with facts of its own."""

    policy: Policy
    actor: Actor
    engine: EngineFacts
    known: Mapping[tuple[Kind, str], ObjectFact]
    own_network: str  # the id of the actor's own bridge

    def decide(self, body: bytes) -> Request | None:
        """The canonical request, None if it is refused."""
        headers = (("content-type", "application/json"),)
        try:
            asked = read(
                Incoming(method="POST", target=CREATE, headers=headers, body=body), engine_max=(1, 41)
            )
        except (MalformedRequest, UnknownField):
            return None
        decision = evaluate(self.policy, self.actor, asked, self._facts(asked))
        return asked if decision.effect is Effect.ALLOW else None

    def rewritten(self, asked: Request, found: Mapping[str, Any]) -> bytes:
        """What the proxy sends for a request that is allowed. Seal, devices and the way to them are its own choice: taken from `found`."""
        facts = self._facts(asked)
        obligations = evaluate(self.policy, self.actor, asked, facts).obligations
        labels = {key: value for key, value in found["Config"]["Labels"].items() if key in LABELS}
        leased = any(isinstance(item, LeaseGpus) for item in obligations)
        devices = gpus.granted_devices(_granted_part(found), runtime=self.engine.runtime) if leased else ()
        by_cdi = any(one["Driver"] == "cdi" for one in found["HostConfig"].get("DeviceRequests") or ())
        shaped = apply(
            asked,
            obligations,
            labels=labels,
            devices=tuple(map(DeviceUuid, devices or ())),
            engine=replace(self.engine, gpu_path="cdi" if by_cdi else "hook"),
        )
        volumes = {
            reference: self._volume(reference.text)
            for reference in facts.objects
            if reference.kind is Kind.VOLUME  # made by now
        }
        made = replace(facts, objects={**facts.objects, **volumes})
        bound = bind(shaped, made, uid=self.actor.uid)
        if any(isinstance(item, JoinOwnNetwork) for item in obligations):
            bound = join(bound, self.own_network)
        return write(bound).body or b""

    def _volume(self, name: str) -> ObjectFact:
        return ObjectFact(kind=Kind.VOLUME, id=real(self.actor.uid, name), owner=self.actor.uid, name=name)

    def _facts(self, asked: Request) -> Facts:
        objects = {reference: self._known(reference) for reference in needed(asked)}
        return Facts(engine=self.engine, objects=objects, usage=Usage(containers=1, networks=1))

    def _known(self, reference: Reference) -> ObjectFact | None:
        return self.known.get((reference.kind, reference.text.removeprefix("/")))


def _granted_part(found: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a grant alone, as they are in the engine: `granted_devices` takes no others into account."""
    host = found["HostConfig"]
    return {
        "Env": found["Config"]["Env"],
        "HostConfig": {"Runtime": host["Runtime"], "DeviceRequests": host["DeviceRequests"]},
    }


class Fuzzer:
    """One run against one lab."""

    def __init__(self, world: World, seed: int | str) -> None:
        self._world = world
        self._home = world.words["alice"]
        self._bodies = bodies(Random(seed), self._home)
        self._alice, self._root = Line(world, "alice"), Line(world, "root")
        self._audit = (world.lab.root / "log" / "audit.jsonl").open("rb")
        self._audit.seek(0, 2)
        self._image = world.root("GET", "/images/busybox/json")["Config"]
        self._networks = {one["Id"]: one["Name"] for one in world.root("GET", "/networks")}
        self._oracle = self._make_oracle()
        self.owner = Owner(
            name=world.alice,
            uid=int(world.words["uid"]),
            home=self._home,
            socket=str(world.socket("alice")),
            containers=frozenset({world.words["mine"]}),
            networks=frozenset({"none", default_network(self._oracle.actor.uid), self._oracle.own_network}),
        )
        self.tally = Tally()

    def _make_oracle(self) -> Oracle:
        world, forger = self._world, Forger.of(self._world.lab)
        actor = account_of(int(world.words["uid"])).actor()
        mine, image = world.words["mine"], world.words["image"]
        own = ObjectFact(kind=Kind.CONTAINER, id=mine, owner=actor.uid, name="mine")
        busybox = ObjectFact(kind=Kind.IMAGE, id=image, owner=None, shared=True, name="busybox")
        volume = ObjectFact(kind=Kind.VOLUME, id=real(actor.uid, _VOLUME), owner=actor.uid, name=_VOLUME)
        known: dict[tuple[Kind, str], ObjectFact] = {
            (Kind.CONTAINER, "mine"): own,
            (Kind.IMAGE, "busybox"): busybox,
            (Kind.VOLUME, _VOLUME): volume,
        }
        networks = {network["Name"]: network["Id"] for network in world.root("GET", "/networks")}
        for word in ("none", "host"):
            fact = ObjectFact(kind=Kind.NETWORK, id=networks[word], owner=None, shared=True, name=word)
            known[(Kind.NETWORK, word)] = fact
        name = default_network(actor.uid)
        own_bridge = ObjectFact(kind=Kind.NETWORK, id=networks[name], owner=actor.uid, name=name)
        known |= {(Kind.NETWORK, text): own_bridge for text in ("bridge", name)}
        return Oracle(
            policy=forger.policy(),
            actor=actor,
            engine=forger.engine(),
            known=known,
            own_network=networks[name],
        )

    def close(self) -> None:
        self._alice.close()
        self._root.close()
        self._audit.close()

    def step(self) -> None:
        """Send one body, and look at what it made."""
        body = next(self._bodies)
        answer = self._alice.ask(request("POST", CREATE, body))
        decided = self._oracle.decide(body)
        if answer.status != 201:
            self._refused(answer, body, decided)
            return
        self.tally.accepted += 1
        container = answer.json["Id"]
        found = self._root.ask(request("GET", f"{API}/containers/{container}/json")).json
        if decided is None:
            self._note(body, "the engine made a container of a body that the rules refuse")
        else:
            self._compare(body, decided, found)
        for harm in harms(found, self.owner):
            self._note(body, harm)
        self._alice.ask(request("DELETE", f"{API}/containers/{container}?force=1&v=1"))

    def _refused(self, answer: Answer, body: bytes, decided: Request | None) -> None:
        """A refusal must be one, in Docker's form. What the rules allow may still fail for a file, a GPU or in the engine."""
        self.tally.refused[answer.status] += 1
        by_ds01 = answer.message.startswith("ds01: ")
        if not answer.message:
            self._note(body, f"answered {answer.status} without Docker's form: {answer.body[:200]!r}")
        elif by_ds01 and answer.status >= 500:
            self._note(body, f"answered {answer.status} {answer.message}")
        elif by_ds01 and decided is not None and not any(rule in answer.message for rule in _LATER):
            self._note(body, f"the rules allow it, and the proxy refused: {answer.message}")

    def _compare(self, body: bytes, decided: Request, found: Mapping[str, Any]) -> None:
        sent = self._oracle.rewritten(decided, found)
        digest = self._digest(found["Config"]["Labels"].get(CREATED_BY, ""))
        if digest != sha256(sent).hexdigest():
            self._note(body, f"what the rules decide here is not what was sent: {sent!r}")
            return
        for difference in differences(json.loads(sent), found, self._image, self._networks):
            self._note(body, difference)

    def _digest(self, request_id: str) -> str:
        """The digest of the body that the proxy sent, from the audit lines written since the last call."""
        for line in self._audit:
            record = json.loads(line)
            if record.get("request_id") == request_id and "digest" in record:
                return str(record["digest"])
        return ""

    def _note(self, body: bytes, what: str) -> None:
        self.tally.findings.append(f"{what}\n    {body[:600]!r}")

    def can_fail(self) -> list[str]:
        """Make each field of a real container wrong, and see that it is noticed. Gives what is not."""
        body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": {"Binds": [f"{self._home}/fuzz:/data"]}}
        made = self._alice.ask(request("POST", CREATE, body))
        container = made.json["Id"]
        found = self._root.ask(request("GET", f"{API}/containers/{container}/json")).json
        decided = self._oracle.decide(json.dumps(body).encode())
        self._alice.ask(request("DELETE", f"{API}/containers/{container}?force=1"))
        if decided is None:
            return ["the body that everything is tried with is refused"]
        sent = json.loads(self._oracle.rewritten(decided, found))
        blind = [
            f"an untouched container differs: {one}"
            for one in differences(sent, found, self._image, self._networks)
        ]
        blind += [f"an untouched container is harmful: {one}" for one in harms(found, self.owner)]
        for name, change in _spoilers(found):
            spoiled = json.loads(json.dumps(found))
            change(spoiled)
            if not any(differences(sent, spoiled, self._image, self._networks)):
                blind.append(f"{name} made wrong is not noticed by the comparison")
        for name, change in _HARMS.items():
            spoiled = json.loads(json.dumps(found))
            change(spoiled)
            if not any(harms(spoiled, self.owner)):
                blind.append(f"{name} made harmful is not noticed")
        return blind


Change = Callable[[dict[str, Any]], None]


def _spoilers(found: Mapping[str, Any]) -> Iterator[tuple[str, Change]]:
    """For each field of the container, a change of it alone."""
    for part, left_out in (("HostConfig", {"ConsoleSize", "Isolation"}), ("Config", {"Hostname", "Image"})):
        for name, value in found[part].items():
            if name not in left_out:
                yield f"{part}.{name}", _setting(part, name, _other_than(name, value))


def _setting(part: str, name: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document[part][name] = value

    return change


def _other_than(name: str, value: Any) -> Any:
    """A value that is not this one, of its type as far as it can be told."""
    if name in ("MaskedPaths", "ReadonlyPaths"):
        return []
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case str():
            return f"{value}x"
        case [*items]:
            return [*items, "x"]
        case {}:
            return {**value, "x": "y"}
        case _:
            return ["x"]


def _adding(part: str, name: str, value: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        document[part][name] = [*(document[part][name] or ()), value]

    return change


def _mounting(mount: dict[str, Any]) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["Mounts"] = [*document["Mounts"], mount]

    return change


def _labelled(name: str, value: str) -> Change:
    def change(document: dict[str, Any]) -> None:
        document["Config"]["Labels"][name] = value

    return change


def _joined(document: dict[str, Any]) -> None:
    document["NetworkSettings"]["Networks"]["bobn"] = {}


_HARMS: dict[str, Change] = {
    "Privileged": _setting("HostConfig", "Privileged", value=True),
    "CapAdd": _adding("HostConfig", "CapAdd", "CAP_SYS_ADMIN"),
    "CapDrop": _setting("HostConfig", "CapDrop", []),
    "PidMode": _setting("HostConfig", "PidMode", "host"),
    "a joined PidMode": _setting("HostConfig", "PidMode", "container:" + "0" * 64),
    "IpcMode": _setting("HostConfig", "IpcMode", "host"),
    "NetworkMode": _setting("HostConfig", "NetworkMode", "host"),
    "Networks": _joined,
    "UTSMode": _setting("HostConfig", "UTSMode", "host"),
    "UsernsMode": _setting("HostConfig", "UsernsMode", "host"),
    "CgroupnsMode": _setting("HostConfig", "CgroupnsMode", "host"),
    "CgroupParent": _setting("HostConfig", "CgroupParent", "/ds01/0"),
    "Runtime": _setting("HostConfig", "Runtime", "nvidia"),
    "Devices": _adding("HostConfig", "Devices", {"PathOnHost": "/dev/mem"}),
    "DeviceCgroupRules": _adding("HostConfig", "DeviceCgroupRules", "a *:* rwm"),
    "DeviceRequests": _adding("HostConfig", "DeviceRequests", {"Count": -1, "DeviceIDs": []}),
    "the GPU variable": _adding("Config", "Env", "NVIDIA_VISIBLE_DEVICES=all"),
    "SecurityOpt": _adding("HostConfig", "SecurityOpt", "seccomp=unconfined"),
    "MaskedPaths": _setting("HostConfig", "MaskedPaths", []),
    "ReadonlyPaths": _setting("HostConfig", "ReadonlyPaths", []),
    "Sysctls": _setting("HostConfig", "Sysctls", {"kernel.core_pattern": "|/x"}),
    "LogConfig": _setting("HostConfig", "LogConfig", {"Type": "syslog", "Config": {}}),
    "RestartPolicy": _setting("HostConfig", "RestartPolicy", {"Name": "always"}),
    "Memory": _setting("HostConfig", "Memory", 0),
    "MemorySwap": _setting("HostConfig", "MemorySwap", -1),
    "PidsLimit": _setting("HostConfig", "PidsLimit", None),
    "OomKillDisable": _setting("HostConfig", "OomKillDisable", value=True),
    "OomScoreAdj": _setting("HostConfig", "OomScoreAdj", -1),
    "Links": _adding("HostConfig", "Links", "/bobc:/x"),
    "a foreign bind": _mounting({"Type": "bind", "Source": "/etc"}),
    "a foreign volume": _mounting({"Type": "volume", "Name": "bobv"}),
    "an owner label": _labelled("ds01.owner", "root"),
    "a seal": _labelled("ds01.seal", ""),
    "MacAddress": _setting("Config", "MacAddress", "02:42:ac:11:00:02"),
}


@contextmanager
def prepared(world: World, seed: int) -> Iterator[Fuzzer]:
    """A directory and a volume of alice's that bodies name, and a fuzzer."""
    directory = Path(world.words["alice"], "fuzz")
    directory.mkdir()
    shutil.chown(directory, world.alice, world.alice)
    world.must("alice", "POST", "/volumes/create", {"Name": _VOLUME})
    fuzzer = Fuzzer(world, seed)
    try:
        yield fuzzer
    finally:
        fuzzer.close()
        world.tidy()
        directory.rmdir()


def run(world: World, *, count: int, seed: int) -> int:
    """Fuzz with `count` bodies and print what came of it. Returns: the exit status."""
    print(f"seed: {seed}", flush=True)
    with prepared(world, seed) as fuzzer:
        blind = fuzzer.can_fail()
        for line in blind:
            print(f"blind: {line}")
        started = time.monotonic()
        tally = _together(world, count=count, seed=seed)
        seconds = time.monotonic() - started
    for line in tally.findings[:20]:
        print(f"finding: {line}")
    statuses = ", ".join(f"{status}: {number}" for status, number in sorted(tally.refused.items()))
    print(f"attempted: {tally.attempted}")
    print(f"refused: {tally.refused.total()} ({statuses})")
    print(f"accepted and compared: {tally.accepted}")
    print(f"findings: {len(tally.findings)}")
    print(f"bodies per second: {count / seconds:.0f}")
    return 1 if tally.findings or blind or tally.attempted < count or not tally.accepted else 0


def _together(world: World, *, count: int, seed: int) -> Tally:
    """`count` bodies from processes of their own: connecting as a user changes the ids of a whole process."""
    parts = [len(range(number, count, _AT_ONCE)) for number in range(_AT_ONCE)]
    whole = Tally()
    with ProcessPoolExecutor(_AT_ONCE, mp_context=get_context("fork")) as pool:
        for tally in pool.map(_part, repeat(world), (f"{seed}/{each}" for each in range(_AT_ONCE)), parts):
            whole.accepted += tally.accepted
            whole.refused += tally.refused
            whole.findings += tally.findings
    return whole


def _part(world: World, seed: str, count: int) -> Tally:
    fuzzer = Fuzzer(world, seed)
    try:
        for number in range(1, count + 1):
            fuzzer.step()
            if number % 1000 == 0:
                said = f"  {seed}: {number} bodies, {len(fuzzer.tally.findings)} findings"
                print(said, file=sys.stderr, flush=True)
    finally:
        fuzzer.close()
    return fuzzer.tally
