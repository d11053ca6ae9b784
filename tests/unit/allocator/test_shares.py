"""Shares of recent GPU time: decay, what is held now, weights are the queue's."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from allocator.shares import HALF_LIFE_SECONDS, Usage, shares, used, with_lease
from policy.model import Uid
from tests.fakes.leasing import Clock, lease


def test_past_usage_halves() -> None:
    """After one half-life half of it counts, in the same boot or, by the time of day, in another."""
    clock = Clock()
    past = Usage(amount=100.0, at=clock())
    clock.seconds += HALF_LIFE_SECONDS
    assert used(past, clock()) == pytest.approx(50)
    clock.boot = "boot-2"
    assert used(past, clock()) == pytest.approx(50)
    assert used(None, clock()) == 0


def test_a_lease_counts_by_its_slices_and_time() -> None:
    """An hour of 3/7 of a GPU is about 1543 equivalent-seconds, a little less for the decay."""
    clock = Clock()
    held = replace(lease("a", "MIG-1"), equivalents=Fraction(3, 7))
    clock.seconds += 3600
    amount = with_lease(None, held, clock()).amount
    assert 1538 < amount < 1543


def test_what_is_held_now_counts_at_once() -> None:
    """Who has just been given a device has more than who waits for the first."""
    owners = {Uid(1), Uid(2), Uid(3)}
    found = shares(
        owners,
        {Uid(3): Usage(amount=5.0, at=Clock()())},
        [lease("a", "GPU-1", owner=2), lease("b", "GPU-2", owner=4)],
        Clock()(),
    )
    assert found == {Uid(1): 0.0, Uid(3): 5.0, Uid(2): 3600.0}
