"""Memory without a process."""

from __future__ import annotations

import pytest

from allocator.ghosts import FLOOR_MIB, Ghost, Look, Suspicions, suspect
from allocator.model import Moment
from policy.model import DeviceUuid

GPU = DeviceUuid("GPU-1")


def at(second: int) -> Moment:
    return Moment(utc=f"2026-01-01T00:00:{second:02}Z", boottime_ms=second * 1000, boot_id="boot")


def look(used_mib: int | None = 4000, visible: int | None = 0, device: DeviceUuid = GPU) -> Look:
    return Look(device=device, used_mib=used_mib, visible=visible)


def after(*sweeps: Look) -> Suspicions:
    """What is thought after these sweeps, one each second."""
    thought = Suspicions()
    for second, one in enumerate(sweeps):
        thought = suspect(thought, [one], now=at(second))
    return thought


def test_one_sweep_is_no_ghost_and_two_are() -> None:
    """It is told from the second look on, with when it was first there and how much it is now."""
    assert after(look()).ghosts == ()
    assert after(look(), look(5000)).ghosts == (Ghost(device=GPU, used_mib=5000, since=at(0), sweeps=2),)


@pytest.mark.parametrize(
    "between",
    [look(visible=1), look(used_mib=0), look(used_mib=FLOOR_MIB - 1)],
    ids=["a process", "no memory", "the driver's own"],
)
def test_what_explains_the_memory_ends_the_suspicion(between: Look) -> None:
    """Afterwards it takes two looks again."""
    assert after(look(), between, look()).ghosts == ()
    assert after(look(), look(), between).ghosts == ()


@pytest.mark.parametrize("unknown", [look(used_mib=None), look(visible=None)], ids=["memory", "processes"])
def test_what_is_not_known_neither_makes_nor_ends_a_ghost(unknown: Look) -> None:
    """Unknown is not "no process", and not "no memory" either."""
    assert after(unknown, unknown).ghosts == ()
    assert after(look(), unknown).ghosts == ()
    assert [ghost.sweeps for ghost in after(look(), unknown, look()).ghosts] == [2]


def test_each_device_has_its_own() -> None:
    """They are told by UUID, and a device that is no longer there takes its suspicion with it."""
    second = DeviceUuid("GPU-0")
    thought = suspect(Suspicions(), [look(), look(device=second)], now=at(0))
    both = suspect(thought, [look(), look(device=second)], now=at(1))
    assert [ghost.device for ghost in both.ghosts] == [second, GPU]
    assert [ghost.device for ghost in suspect(both, [look()], now=at(2)).ghosts] == [GPU]
