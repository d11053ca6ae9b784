"""A stamp signs all that dockerd will act on, for one engine and a short while."""

from __future__ import annotations

import hashlib
from dataclasses import replace

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boottime_ms
from policy import stamp
from policy.dockerapi.model import Outgoing
from policy.model import LeaseId, Uid
from socket_proxy.keys import Keys
from socket_proxy.stamp import LIFETIME_MS, Stamper

PRIVATE = Ed25519PrivateKey.generate()
STAMPER = Stamper(Keys(private=PRIVATE, public=PRIVATE.public_key(), engine_id="e" * 32))
OUTGOING = Outgoing(
    method="POST",
    target="/v1.41/containers/create",
    headers=(("content-type", "application/json"),),
    body=b'{"Image":"busybox"}',
)


def stamped(
    outgoing: Outgoing = OUTGOING, *, upgrade: str | None = None, streams: bool = False
) -> stamp.Stamp:
    name, text = STAMPER.header(
        outgoing, uid=Uid(1001), leases=(LeaseId("l1"),), upgrade=upgrade, streams=streams
    )
    assert name == stamp.HEADER
    return stamp.parse_stamp(text)


def claims(made: stamp.Stamp) -> stamp.Claims:
    """What the plugin would put together from what it sees."""
    return stamp.Claims(
        uid=made.uid,
        engine_id="e" * 32,
        method="POST",
        target="/v1.41/containers/create",
        content_type="application/json",
        body=made.body,
        leases=made.leases,
        nonce=made.nonce,
        expires_ms=made.expires_ms,
    )


def test_the_signature_holds_for_what_was_sent() -> None:
    """Body by its digest, the lease and the uid are in it."""
    made = stamped()
    PRIVATE.public_key().verify(made.signature, stamp.message(claims(made)))
    assert made.body == "sha256:" + hashlib.sha256(OUTGOING.body or b"").hexdigest()
    assert (made.uid, made.leases) == (1001, ("l1",))


@pytest.mark.parametrize(
    "change",
    [
        {"uid": Uid(0)},
        {"engine_id": "f" * 32},
        {"method": "GET"},
        {"target": "/v1.41/containers/create?name=x"},
        {"content_type": "text/plain"},
        {"upgrade": "tcp"},
        {"body": "none"},
        {"leases": ()},
        {"expires_ms": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_nothing_that_is_signed_can_change(change: dict[str, object]) -> None:
    """Each claim is covered."""
    made = stamped()
    with pytest.raises(InvalidSignature):
        PRIVATE.public_key().verify(made.signature, stamp.message(replace(claims(made), **change)))  # type: ignore[arg-type]  # a table of fields of several types


@pytest.mark.parametrize(
    ("body", "streams", "claim"),
    [(None, False, "none"), (b"", False, "none"), (None, True, "stream"), (b"x", True, "stream")],
)
def test_what_is_said_of_the_body(body: bytes | None, claim: str, *, streams: bool) -> None:
    """No body, and a body that dockerd shows to no plugin, are said to be so."""
    assert stamped(replace(OUTGOING, body=body), streams=streams).body == claim


def test_a_stamp_is_new_and_short_lived() -> None:
    """Every nonce once, and never more than LIFETIME_MS from now."""
    before = boottime_ms()
    first, second = stamped(), stamped()
    assert first.nonce != second.nonce
    assert before + LIFETIME_MS <= first.expires_ms <= boottime_ms() + LIFETIME_MS
