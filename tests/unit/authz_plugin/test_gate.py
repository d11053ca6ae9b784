"""The gate allows what was stamped and is allowed; every other way ends in a denial with words."""

from __future__ import annotations

import json
import time
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import Any

import pytest
from structlog.testing import capture_logs

from authz_plugin.gate import Denied, Gate
from authz_plugin.trusted import BreakGlass
from authz_plugin.wire import ACTIVATE, ACTIVATED, ALLOWED, REQUEST, RESPONSE
from host.trusted import Untrusted
from policy.dockerapi.model import Incoming, MalformedRequest, Operation, Request
from policy.model import Actor, Gid, LeaseId, Reason, Uid

ALICE = Actor(uid=Uid(1000), gid=Gid(1000), name="alice")
REASON = Reason(
    rule="privileged", field="HostConfig.Privileged", asked="true", limit="false", next_step="drop it"
)
HOUR_MS = 3_600_000


@dataclass
class World:
    """What lies around the gate, to be changed by a test."""

    reasons: tuple[Reason, ...] = ()
    read_error: Exception | None = None
    check_error: Exception | None = None
    in_memory: Actor | None = ALICE
    on_disk: Actor | None = ALICE
    glass: BreakGlass | Untrusted | None = None
    read: list[Incoming] = field(default_factory=list)
    checked: list[tuple[Actor, tuple[LeaseId, ...]]] = field(default_factory=list)

    def known(self, uid: int) -> Actor | None:
        return self.in_memory if uid == 1000 else None

    async def find(self, uid: int) -> Actor | None:
        return self.on_disk if uid == 1000 else None

    def reader(self, incoming: Incoming) -> Request:
        self.read.append(incoming)
        if self.read_error is not None:
            raise self.read_error
        return Request(operation=Operation.CONTAINER_CREATE, version=(1, 41))

    def checker(self, actor: Actor, request: Request, *, leases: tuple[LeaseId, ...]) -> tuple[Reason, ...]:
        self.checked.append((actor, leases))
        if self.check_error is not None:
            raise self.check_error
        return self.reasons

    def break_glass(self) -> BreakGlass | None:
        if isinstance(self.glass, Untrusted):
            raise self.glass
        return self.glass


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def gate(world: World, stamps: Any, clock: Any) -> Gate:
    return Gate(
        stamps=stamps,
        read=world.reader,
        check=world.checker,
        actors=world,
        break_glass=world.break_glass,
        clock_ms=clock,
        new_id=lambda: "0123456789ab",
    )


def now(gate: Gate, body: bytes) -> dict[str, Any]:
    """An answer that needs no waiting."""
    answer = gate.answer(REQUEST, body)
    assert isinstance(answer, bytes)
    read: dict[str, Any] = json.loads(answer)
    return read


def test_activation_names_the_interface(gate: Gate) -> None:
    """dockerd's handshake."""
    assert gate.answer(ACTIVATE, b"") == ACTIVATED


def test_responses_pass_unparsed(gate: Gate) -> None:
    """A response cannot be undone, so nothing is even read."""
    assert gate.answer(RESPONSE, b"garbage") == ALLOWED


def test_other_paths_are_unknown(gate: Gate) -> None:
    """No call but dockerd's three."""
    assert gate.answer("/metrics", b"") is None


def test_a_stamped_request_is_allowed(gate: Gate, world: World, proxy: Any, make_req: Any) -> None:
    """The reader sees the request without its stamp; the rules see actor and leases."""
    assert now(gate, make_req(stamp=proxy.stamp(proxy.claims()))) == {"Allow": True}
    assert world.read[0].target == "/v1.41/containers/create?name=x"
    assert "x-ds01-stamp" not in dict(world.read[0].headers)
    assert world.checked == [(ALICE, ("l1",))]


def test_a_reason_denies_with_rule_and_next_step(gate: Gate, world: World, proxy: Any, make_req: Any) -> None:
    """The second look may refuse what the proxy let through."""
    world.reasons = (REASON, REASON)
    with capture_logs() as lines:
        answer = now(gate, make_req(stamp=proxy.stamp(proxy.claims())))
    assert answer["Allow"] is False
    assert answer["Msg"] == f"ds01: {REASON.text()} (and 1 more)"
    assert [(line["event"], line["rules"]) for line in lines] == [("request.denied", ["privileged"])]


@pytest.mark.parametrize("where", ["read_error", "check_error"])
@pytest.mark.parametrize(
    "error", [ValueError("secret"), KeyError("secret"), RecursionError(), MemoryError("secret")]
)
def test_an_exception_denies_and_gives_a_number(
    gate: Gate, world: World, proxy: Any, make_req: Any, where: str, error: Exception
) -> None:
    """A bug allows nothing, and neither user nor log reads a value out of it."""
    setattr(world, where, error)
    with capture_logs() as lines:
        answer = now(gate, make_req(stamp=proxy.stamp(proxy.claims())))
    assert answer == {
        "Allow": False,
        "Msg": "ds01: internal error, denied; tell the admin: request 0123456789ab",
    }
    assert [line["event"] for line in lines] == ["request.failed"]
    assert "secret" not in str(lines)


@pytest.mark.parametrize("error", [MalformedRequest("duplicate key Image"), Denied("unknown route")])
def test_what_cannot_be_read_is_denied_in_words(
    gate: Gate, world: World, proxy: Any, make_req: Any, error: Exception
) -> None:
    """The client can do something about it, so it is told what."""
    world.read_error = error
    answer = now(gate, make_req(stamp=proxy.stamp(proxy.claims())))
    assert answer["Allow"] is False
    assert str(error) in answer["Msg"]
    assert ("rule canonical_request" in answer["Msg"]) == isinstance(error, MalformedRequest)


@pytest.mark.parametrize(
    "uri", ["/_ping", "/v1.41/info", "/debug/pprof/", "http://x/_ping", "/v1.41/containers/json"]
)
def test_without_a_stamp_everything_is_denied(gate: Gate, make_req: Any, uri: str) -> None:
    """Even a ping: docker itself needs none, and the canary rests on it."""
    answer = now(gate, make_req(body=None, RequestMethod="GET", RequestUri=uri))
    assert answer["Allow"] is False
    assert "rule stamp" in answer["Msg"]


@pytest.mark.parametrize("body", [b"", b"{}", b"\x00" * 100])
def test_garbage_is_denied(gate: Gate, body: bytes) -> None:
    """What is no question gets no."""
    assert now(gate, body)["Allow"] is False


def test_a_bad_stamp_is_logged_without_itself(gate: Gate, proxy: Any, make_req: Any) -> None:
    """The log names method and path: no query, no stamp, no body."""
    stamp = proxy.stamp(proxy.claims(engine_id="OTHER"))
    with capture_logs() as lines:
        answer = now(gate, make_req(stamp=stamp))
    assert answer["Allow"] is False
    assert "0123456789ab" in answer["Msg"]
    assert [(line["event"], line["path"]) for line in lines] == [
        ("stamp.refused", "/v1.41/containers/create")
    ]
    assert stamp not in str(lines)


def glass(minutes: float, clock: Any) -> BreakGlass:
    return BreakGlass(until_boottime_ms=clock.now_ms + int(minutes * 60_000), reason="upgrade", by="root")


def test_break_glass_allows_and_tells(gate: Gate, world: World, clock: Any, make_req: Any) -> None:
    """Root may open the door for a while; each step through it is on record."""
    world.glass = glass(10, clock)
    with capture_logs() as lines:
        assert now(gate, make_req(RequestUri="/v1.41/info?x=secret")) == {"Allow": True}
    assert [(line["event"], line["path"], line["by"]) for line in lines] == [
        ("break_glass.used", "/v1.41/info", "root")
    ]


def test_the_canary_is_denied_while_the_glass_is_broken(
    gate: Gate, world: World, clock: Any, make_req: Any
) -> None:
    """The proxy's own probe always finds the plugin at work, or users would be shut out by the maintenance."""
    world.glass = glass(10, clock)
    assert now(gate, make_req(RequestHeaders={"X-Ds01-Canary": "1"}))["Allow"] is False


@pytest.mark.parametrize("minutes", [0, -1, 60.001, 24 * 60])
def test_break_glass_has_limits(gate: Gate, world: World, clock: Any, make_req: Any, minutes: float) -> None:
    """Expired, or reaching more than an hour ahead: closed."""
    world.glass = glass(minutes, clock)
    assert now(gate, make_req())["Allow"] is False


def test_a_break_glass_file_of_a_user_is_an_alarm(gate: Gate, world: World, make_req: Any) -> None:
    """Somebody put a file there: nothing opens, a person is called."""
    world.glass = Untrusted("belongs to uid 1000")
    with capture_logs() as lines:
        assert now(gate, make_req())["Allow"] is False
    assert [line["event"] for line in lines] == ["break_glass.refused"]


def test_break_glass_does_not_excuse_a_bad_stamp(
    gate: Gate, world: World, proxy: Any, clock: Any, make_req: Any
) -> None:
    """It is for requests without a stamp; a wrong one stays wrong."""
    world.glass = glass(10, clock)
    assert now(gate, make_req(stamp=proxy.stamp(proxy.claims(engine_id="OTHER"))))["Allow"] is False


async def test_an_account_not_in_memory_is_looked_up(
    gate: Gate, world: World, proxy: Any, make_req: Any
) -> None:
    """The answer waits for NSS; the loop does not."""
    world.in_memory = None
    answer = gate.answer(REQUEST, make_req(stamp=proxy.stamp(proxy.claims())))
    assert isinstance(answer, Awaitable)
    assert await answer == ALLOWED


@pytest.mark.parametrize("fails", ["no account", "slow", "raises"])
async def test_an_account_that_cannot_be_had_denies(
    gate: Gate, world: World, proxy: Any, make_req: Any, monkeypatch: pytest.MonkeyPatch, fails: str
) -> None:
    """Unknown is never somebody; and no answer takes longer than the deadline."""
    world.in_memory = world.on_disk = None
    error = {"slow": TimeoutError(), "raises": OSError("ldap")}.get(fails)

    async def find(uid: int) -> Actor | None:
        if error is not None:
            raise error
        return None

    monkeypatch.setattr(world, "find", find)
    answer = gate.answer(REQUEST, make_req(stamp=proxy.stamp(proxy.claims())))
    assert isinstance(answer, Awaitable)
    assert json.loads(await answer)["Allow"] is False


def test_work_beyond_the_deadline_denies(
    gate: Gate, proxy: Any, make_req: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that took too long is not trusted to have been asked for still."""
    ticks = iter([0.0, 2.0])
    monkeypatch.setattr(time, "monotonic", lambda: next(ticks))
    answer = now(gate, make_req(stamp=proxy.stamp(proxy.claims())))
    assert answer["Allow"] is False
    assert "1 s" in answer["Msg"]
