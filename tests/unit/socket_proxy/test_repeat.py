"""What is kept of a repeated request: never more than the same question's answer, and one unused stamp."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boottime_ms
from policy import stamp
from policy.build import build_policy
from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Actor, Effect, EngineFacts, Facts, Gid, Kind, Reference, Uid, Usage
from socket_proxy import repeat
from socket_proxy.keys import Keys
from socket_proxy.repeat import Reading, Written
from socket_proxy.stamp import LIFETIME_MS, Stamper

if TYPE_CHECKING:
    from http1.client import Call

LIST = Request(operation=Operation.CONTAINER_LIST, version=(1, 41), query={"all": ("1",)})
ALICE = Actor(uid=Uid(1001), gid=Gid(1001), name="alice")
ENGINE = EngineFacts(
    engine_id="e" * 32,
    version="20.10.24",
    api_version=(1, 41),
    min_api_version=(1, 12),
    cgroup_driver="cgroupfs",
    cgroup_version=2,
    gpu_path="hook",
)
FACTS = Facts(engine=ENGINE, usage=Usage(containers=1))


@pytest.fixture
def key() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@pytest.fixture
def written(key: Ed25519PrivateKey) -> Written:
    stamper = Stamper(Keys(private=key, public=key.public_key(), engine_id=ENGINE.engine_id))
    return Written(LIST, uid=ALICE.uid, stamper=stamper)


def _stamp(call: Call) -> stamp.Stamp:
    line = next(line for line in call.first_bytes.decode().split("\r\n") if line.startswith("X-Ds01-Stamp: "))
    return stamp.parse_stamp(line.partition(": ")[2])


async def test_every_sending_has_a_stamp_of_its_own(written: Written, key: Ed25519PrivateKey) -> None:
    """Signed ahead or not: each nonce is used once, and each signature holds for what is sent."""
    nonces = set()
    for _ in range(5):
        call = written.next()
        await asyncio.sleep(0)  # the next one is signed here
        found = _stamp(call)
        nonces.add(found.nonce)
        claims = stamp.Claims(
            uid=ALICE.uid,
            engine_id=ENGINE.engine_id,
            method="GET",
            target="/v1.41/containers/json?all=1",
            nonce=found.nonce,
            expires_ms=found.expires_ms,
        )
        key.public_key().verify(found.signature, stamp.message(claims))  # raises if it does not hold
        assert call.first_bytes.startswith(b"GET /v1.41/containers/json?all=1 HTTP/1.1\r\n")
    assert len(nonces) == 5


async def test_an_old_spare_is_thrown_away(written: Written, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stamp that could expire while dockerd asks is not sent."""
    written.next()
    await asyncio.sleep(0)
    later = boottime_ms() + LIFETIME_MS // 2 + 1
    monkeypatch.setattr(repeat, "boottime_ms", lambda: later)
    monkeypatch.setattr("socket_proxy.stamp.boottime_ms", lambda: later)
    assert _stamp(written.next()).expires_ms >= later + LIFETIME_MS


def test_a_decision_is_kept_for_the_same_question_only() -> None:
    """Another policy, actor or fact is another question, and so is any that names an object."""
    policy = build_policy({"policy.yaml": "version: 1\ndefaults: {role: user}\n"})
    reading = Reading(LIST, ())
    first = reading.decide(policy, ALICE, FACTS)
    assert first == evaluate(policy, ALICE, LIST, FACTS)
    assert reading.decide(policy, ALICE, Facts(engine=ENGINE, usage=Usage(containers=1))) is first
    busier = reading.decide(policy, ALICE, replace(FACTS, usage=Usage(containers=2)))
    assert busier is not first
    namesake = reading.decide(policy, replace(ALICE), FACTS)
    assert namesake is not busier
    reloaded = build_policy({"policy.yaml": "version: 1\ndefaults: {role: none}\n"})
    assert reading.decide(reloaded, ALICE, FACTS).effect is Effect.DENY
    naming = Reading(LIST, (Reference(kind=Kind.CONTAINER, text="box"),))
    assert naming.decide(policy, ALICE, FACTS) is not naming.decide(policy, ALICE, FACTS)


def test_another_decision_has_the_request_written_anew(written: Written) -> None:
    """How a list is narrowed follows from the policy too."""
    policy = build_policy({"policy.yaml": "version: 1\ndefaults: {role: user}\n"})
    reading = Reading(LIST, ())
    reading.decide(policy, ALICE, FACTS)
    reading.written = written
    reading.decide(policy, ALICE, FACTS)
    assert reading.written is written
    reading.decide(policy, replace(ALICE), FACTS)
    assert reading.written is None
