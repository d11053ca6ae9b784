"""Rows of the ledger and back."""

from __future__ import annotations

import json
from dataclasses import replace
from fractions import Fraction

from allocator import rows
from allocator.reservations import Reservation
from policy.model import DeviceUuid
from policy.when import parse_when
from tests.fakes.leasing import lease

LEASE = replace(
    lease("a", "GPU-1", "GPU-2"),
    groups=("x", "y"),
    equivalents=Fraction(3, 7),
    seconds=60,
    hold_seconds=5,
    generations=(1, 2),
    gpus=(DeviceUuid("GPU-1"), None),
)


def test_a_lease_survives_its_row_and_its_archive() -> None:
    """Fractions, groups, generations and GPUs included."""
    assert rows.read_lease(rows.lease_row(LEASE), rows.held_rows(LEASE)) == LEASE
    assert rows.read_archived(rows.archived(LEASE)) == LEASE
    assert len(rows.lease_row(LEASE)) == rows.COLUMNS.count(",") + 1 == rows.PLACES.count("?")


def test_what_was_put_away_before_gpus_were_written_down_is_read() -> None:
    """Of which GPU its devices were is not known then."""
    row, held = json.loads(rows.archived(LEASE))
    old = json.dumps([row, [pair[:2] for pair in held]])
    assert rows.read_archived(old) == replace(LEASE, gpus=(None, None))


def test_a_reservation_survives_its_text() -> None:
    """Its times are read again from what was written."""
    when = "Tue 10:00-12:00"
    item = Reservation(id="r", group="g", name="g", count=1, when=parse_when(when), when_text=when)
    assert rows.read_reservation(rows.reservation_text(item)) == item
