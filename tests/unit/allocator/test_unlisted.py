"""Which devices a look could not list, why, and of when what is told of them is."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.model import Snapshot
from allocator.unlisted import Listings, Unlisted
from tests.fakes.fake_nvml import gpu, mig, snapshot
from tests.fakes.leasing import Clock

if TYPE_CHECKING:
    from allocator.model import Device, Moment

THEN = Clock()()
NOW = replace(THEN, boottime_ms=THEN.boottime_ms + 5000)


def _unlisted(device: Device, why: str, listed: Moment | None = None) -> Unlisted:
    return Unlisted(device=device.uuid, index=device.index, why=why, listed=listed)


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (gpu(0, pids=None, silent_seconds=12.4), "it has not answered for 12 s"),
        (gpu(0, pids=None, error=999, remark="NVML error 999 (count)"), "NVML error 999 (count)"),
        (gpu(0, pids=None, error=999), "NVML error 999"),
        (gpu(0, pids=None), "NVML does not list its processes"),
    ],
)
def test_it_is_said_why_processes_are_not_known(device: Device, why: str) -> None:
    """Silence, an error of NVML, or a list that it does not give; a device without processes is known."""
    assert Listings().take_in(snapshot(device, gpu(1)), NOW) == (_unlisted(device, why),)


def test_what_was_listed_earlier_says_when() -> None:
    """Until it is listed again; the devices come as nvidia-smi counts them."""
    silent = tuple(
        replace(one, processes=None, silent_seconds=5.0) for one in (gpu(10), mig(2, 1), mig(2, 0), gpu(2))
    )
    listings = Listings()
    listings.take_in(snapshot(gpu(10), mig(2, 1), mig(2, 0)), THEN)
    found = listings.take_in(snapshot(*silent), NOW)
    assert [(one.index, one.listed) for one in found] == [
        ("2", None),
        ("2:0", THEN),
        ("2:1", THEN),
        ("10", THEN),
    ]
    assert listings.take_in(snapshot(gpu(10), mig(2, 1), mig(2, 0), gpu(2)), NOW) == ()
    assert {one.listed for one in listings.take_in(snapshot(*silent), NOW)} == {NOW}


def test_a_gpu_that_does_not_say_which_it_is_is_the_one_that_was_there() -> None:
    """With its MIG devices: they have not gone, they are not known; where none was known there is the index alone."""
    listings = Listings()
    listings.take_in(snapshot(gpu(0), gpu(1), mig(1, 0)), THEN)
    mute = {"1": "it has never answered", "2": "NVML error 999 (count)"}
    look = replace(snapshot(gpu(0)), unidentified=mute, complete=False)
    assert listings.take_in(look, NOW) == (
        _unlisted(gpu(1), "it has never answered", THEN),
        _unlisted(mig(1, 0), "it has never answered", THEN),
        Unlisted(device=None, index="2", why="NVML error 999 (count)", listed=None),
    )


def test_a_device_that_is_gone_is_no_unknown_one() -> None:
    """A look that is complete says so; one that is not leaves it unknown."""
    listings = Listings()
    listings.take_in(snapshot(gpu(0)), THEN)
    assert listings.take_in(Snapshot(complete=False), NOW) == (_unlisted(gpu(0), "it was not found", THEN),)
    assert listings.take_in(Snapshot(), NOW) == ()
    assert listings.take_in(Snapshot(complete=False), NOW) == ()
