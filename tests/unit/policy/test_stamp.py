"""The stamp's message is unambiguous and its text has one spelling."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest

from policy.model import LeaseId, Uid
from policy.stamp import Claims, StampInvalid, body_claim, format_stamp, message, parse_stamp

SIGNATURE = bytes(range(64))
CLAIMS = Claims(
    uid=Uid(1000),
    engine_id="ABCD:EFGH",
    method="POST",
    target="/v1.41/containers/create?name=x",
    content_type="application/json",
    body=body_claim(b"{}"),
    leases=(LeaseId("l-1"), LeaseId("l-2")),
    nonce="0123456789abcdef" * 2,
    expires_ms=123_456,
)
OTHERS: dict[str, Any] = {
    "uid": 1001,
    "engine_id": "ABCD:EFGI",
    "method": "GET",
    "target": "/v1.41/containers/create?name=y",
    "content_type": "application/x-tar",
    "upgrade": "h2c",
    "body": "none",
    "leases": ("l-1",),
    "nonce": "f" * 32,
    "expires_ms": 123_457,
}


def test_a_stamp_survives_writing_and_reading() -> None:
    """What is read back is what was claimed."""
    stamp = parse_stamp(format_stamp(CLAIMS, SIGNATURE))
    assert (stamp.uid, stamp.expires_ms, stamp.nonce) == (CLAIMS.uid, CLAIMS.expires_ms, CLAIMS.nonce)
    assert (stamp.body, stamp.leases, stamp.signature) == (CLAIMS.body, CLAIMS.leases, SIGNATURE)


def test_no_leases_are_an_empty_tuple() -> None:
    """An empty list is not one lease with an empty name."""
    assert parse_stamp(format_stamp(replace(CLAIMS, leases=()), SIGNATURE)).leases == ()


def test_the_table_of_changes_names_every_field() -> None:
    """A field added to Claims must be covered by the signature, and by this file."""
    assert set(OTHERS) == {field.name for field in fields(Claims)}


@pytest.mark.parametrize("name", OTHERS)
def test_each_field_is_signed(name: str) -> None:
    """Changing any claim changes the signed bytes."""
    assert message(replace(CLAIMS, **{name: OTHERS[name]})) != message(CLAIMS)


def test_text_cannot_move_from_one_field_to_the_next() -> None:
    """The same characters split differently between two fields sign differently."""
    left = replace(CLAIMS, method="GET\n1:/", target="x")
    right = replace(CLAIMS, method="GET", target="/\n1:x")
    assert message(left) != message(right)


def test_leases_are_signed_one_by_one() -> None:
    """One lease with a comma in its name is not two leases."""
    assert message(replace(CLAIMS, leases=(LeaseId("a,b"),))) != message(
        replace(CLAIMS, leases=(LeaseId("a"), LeaseId("b")))
    )


def test_the_message_carries_its_domain() -> None:
    """A signature made for something else can never be a stamp."""
    assert message(CLAIMS).startswith(b"ds01-stamp-v1\n")


def test_a_lone_surrogate_is_refused() -> None:
    """Text without a byte form has no message."""
    with pytest.raises(StampInvalid, match="surrogate"):
        message(replace(CLAIMS, target="/\udc80"))


GOOD = format_stamp(CLAIMS, SIGNATURE)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="empty"),
        pytest.param(" " + GOOD, id="leading space"),
        pytest.param(GOOD + "\n", id="trailing newline"),
        pytest.param(GOOD.replace("v1", "v2"), id="version"),
        pytest.param(GOOD.replace("uid=1000", "uid=01000"), id="leading zero"),
        pytest.param(GOOD.replace("uid=1000", "uid=+1000"), id="sign"),
        pytest.param(GOOD.replace("uid=1000", "uid=١000"), id="arabic digit"),
        pytest.param(GOOD.replace("uid=1000", "uid=1_000"), id="underscore"),
        pytest.param(GOOD.replace("uid=1000;", ""), id="missing field"),
        pytest.param(GOOD.replace("uid=1000;", "uid=1000;uid=0;"), id="double field"),
        pytest.param(GOOD.replace("abcdef", "ABCDEF", 1), id="upper-case nonce"),
        pytest.param(GOOD.replace("l-1,l-2", "l-1,"), id="empty lease"),
        pytest.param(GOOD.replace("l-1,l-2", "l;1"), id="lease with separator"),
        pytest.param(GOOD.replace("sha256:", "sha512:"), id="digest"),
        pytest.param(GOOD[:-1], id="short signature"),
        pytest.param(GOOD[:-1] + chr(ord(GOOD[-1]) + 1), id="spare bits of the signature"),
        pytest.param(GOOD + "=", id="padding"),
    ],
)
def test_there_is_one_spelling(text: str) -> None:
    """Anything but the exact form is no stamp."""
    with pytest.raises(StampInvalid):
        parse_stamp(text)


@pytest.mark.parametrize(
    "change",
    [
        {"nonce": "abc"},
        {"leases": ("a,b",)},
        {"leases": ("",)},
        {"body": "sha256:"},
        {"uid": -1},
        {"expires_ms": -1},
        {"leases": tuple(f"l{number}" for number in range(65))},
    ],
    ids=str,
)
def test_what_cannot_be_read_is_not_written(change: dict[str, Any]) -> None:
    """The writer refuses claims that the reader would."""
    with pytest.raises(StampInvalid):
        format_stamp(replace(CLAIMS, **change), SIGNATURE)


def test_an_empty_body_is_no_body() -> None:
    """Absent and empty look alike to the plugin, so they are claimed alike."""
    assert body_claim(b"") == "none"
