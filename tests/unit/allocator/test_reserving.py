"""Reservations made, declared and given up, each read again before the next decision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator.reservations import Reservation
from allocator.reserving import POLICY
from policy.when import parse_when
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.reserving import Reserving
    from allocator.service import Allocator


def kept(number: str, source: str = "uid 0", when: str = "daily 00:00-24:00") -> Reservation:
    return Reservation(
        id=number,
        source=source,
        group="course",
        uid=None,
        name="course",
        count=1,
        profile="full",
        when=parse_when(when),
        when_text=when,
        lead_seconds=900,
    )


@pytest.fixture
async def allocator(tmp_path: Path) -> AsyncIterator[Allocator]:
    one = service(tmp_path / "ledger", FakeNvml(gpu(0)), Clock())
    await one.sweep()
    yield one
    await one.close()


@pytest.fixture
def reserving(allocator: Allocator) -> Reserving:
    return allocator.reserving


async def test_policy_replaces_its_own_and_no_others(reserving: Reserving) -> None:
    """What an admin made by hand stays until it is removed by its id, once."""
    await reserving.add(kept("r1"))
    await reserving.declare([kept("policy-0", POLICY), kept("policy-1", POLICY)])
    assert [item.id for item in await reserving.all()] == ["policy-0", "policy-1", "r1"]
    await reserving.declare([replace(kept("policy-0", POLICY), count=2)])
    assert [(item.id, item.count) for item in await reserving.all()] == [("policy-0", 2), ("r1", 1)]
    assert [await reserving.remove("r1", by="root") for _ in range(2)] == [True, False]
    assert {one.reservation.id for one in await reserving.windows()} == {"policy-0"}


async def test_what_is_made_and_removed_is_logged_with_who_did_it(reserving: Reserving) -> None:
    """The admin by login name where it is known; the policy only for what it changes."""
    with structlog.testing.capture_logs() as lines:
        await reserving.add(replace(kept("r1"), by="ann", reason="a course"))
        await reserving.remove("r1", by="bob")
        await reserving.remove("r1", by="bob")
        await reserving.add(kept("r2"))
        await reserving.declare([kept("policy-0", POLICY)])
        await reserving.declare([kept("policy-0", POLICY)])
        await reserving.declare([])
    assert [(one["event"], one["reservation"], one["by"]) for one in lines] == [
        ("reservation.made", "r1", "ann"),
        ("reservation.removed", "r1", "bob"),
        ("reservation.made", "r2", "uid 0"),
        ("reservation.made", "policy-0", "policy"),
        ("reservation.removed", "policy-0", "policy"),
    ]
    assert (lines[0]["whom"], lines[0]["count"], lines[0]["reason"]) == ("course", 1, "a course")


async def test_what_is_over_is_put_away_by_a_sweep(allocator: Allocator, reserving: Reserving) -> None:
    """One of a single date, once that is past; what comes again stays."""
    once = kept("once", when="2026-01-01 09:00-10:00")
    for item in (once, kept("always")):
        await reserving.add(item)
    assert not reserving.is_over(once)
    allocator._now.seconds += 86400  # type: ignore[attr-defined]  # the clock of tests
    assert reserving.is_over(once)
    await allocator.sweep()
    assert [item.id for item in await reserving.all()] == ["always"]
