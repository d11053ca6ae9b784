"""What is sent to the allocator is read strictly (more in test_api.py)."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest

from allocator import bodies
from allocator.json_values import BadInput
from allocator.model import GroupLimit

WANT: dict[str, Any] = {
    "owner_uid": 1000,
    "owner_name": "alice",
    "count": 1,
    "limit": 2,
    "wait_seconds": 0,
    "request_id": "r",
    "session": "s",
}
RESERVATION: dict[str, Any] = {"group": "course", "name": "course", "count": 2, "when": "Tue 10:00-12:00"}


def test_a_full_want_is_read() -> None:
    """Every field, amounts of GPUs as text."""
    body = WANT | {
        "profile": "2g.10gb",
        "memory_mib": 9000,
        "classes": ["mig", "gpu"],
        "groups": [{"name": "Prüfung", "devices": 3, "equivalents": "10/7"}, {"name": "all"}],
        "equivalents": "3/7",
        "seconds": 60,
        "hold_seconds": 0,
        "weight": 2,
        "priority": 5,
        "asked_ms": 7,
    }
    want = bodies.parse_want(body)
    assert (want.profile, want.memory_mib, want.classes) == ("2g.10gb", 9000, ("mig", "gpu"))
    assert want.groups == (
        GroupLimit(name="Prüfung", devices=3, equivalents=Fraction(10, 7)),
        GroupLimit(name="all"),
    )
    assert (want.equivalents, want.seconds, want.hold_seconds) == (Fraction(3, 7), 60, 0)
    assert (want.weight, want.priority, want.asked_ms) == (2, 5, 7)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"profile": "2g"}, "profile"),
        ({"profile": None}, "profile"),
        ({"classes": ["tpu"]}, "classes"),
        ({"classes": "gpu"}, "classes"),
        ({"equivalents": 1}, "equivalents"),
        ({"equivalents": "1/0"}, "equivalents"),
        ({"equivalents": "0.5"}, "equivalents"),
        ({"groups": [{"devices": 1}]}, "name"),
        ({"groups": [7]}, "groups"),
        ({"groups": [{"name": "a\nb"}]}, "groups.name"),
        ({"memory_mib": 0}, "memory_mib"),
        ({"weight": True}, "weight"),
        ({"seconds": 0}, "seconds"),
    ],
)
def test_what_cannot_be_read_is_named(change: dict[str, Any], field: str) -> None:
    """The text begins with the field."""
    with pytest.raises(BadInput, match=f"^{field}: "):
        bodies.parse_want(WANT | change)


def test_a_size_is_only_for_a_count() -> None:
    """A named device has the size that it has."""
    body = {key: value for key, value in WANT.items() if key != "count"} | {"device_ids": ["0"]}
    with pytest.raises(BadInput, match="only with count"):
        bodies.parse_want(body | {"profile": "any"})


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"uid": 1}, "group, uid"),
        ({"when": "Tuesdays"}, "when"),
        ({"count": 0}, "count"),
        ({"profile": "half"}, "profile"),
        ({"name": ""}, "name"),
        ({"lead_seconds": -1}, "lead_seconds"),
        ({"id": "x"}, "id"),
    ],
)
def test_a_reservation_is_read_strictly(change: dict[str, Any], field: str) -> None:
    """For exactly one group or user, at times that can be read."""
    assert bodies.parse_reservation(RESERVATION, number="n", source="s").count == 2
    with pytest.raises(BadInput, match=f"^{field}: "):
        bodies.parse_reservation(RESERVATION | change, number="n", source="s")


def test_what_policy_reserves_is_numbered() -> None:
    """So that the same list is the same reservations."""
    found = bodies.parse_declared({"reservations": [RESERVATION, RESERVATION]}, source="policy")
    assert [item.id for item in found] == ["policy-0", "policy-1"]
