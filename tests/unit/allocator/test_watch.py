"""Looking: shared, bounded in time, and never relied on for longer than it may be."""

from __future__ import annotations

import asyncio

import pytest
import structlog

from allocator.finishing import Finishing
from allocator.model import DeviceState, InventoryUnavailable, Moment, Problem, Snapshot
from allocator.readings import Measures
from allocator.watch import Watch
from tests.fakes.fake_nvml import gpu, snapshot


class Clock:
    """A moment that moves when told."""

    def __init__(self) -> None:
        self.ms = 0

    def __call__(self) -> Moment:
        return Moment(utc="", boottime_ms=self.ms, boot_id="b")


class Devices:
    """Counts its readings; answers when `go` is set."""

    def __init__(self) -> None:
        self.readings = 0
        self.problem: str | None = None
        self.kind = Problem.FAILED
        self.snapshot = Snapshot()
        self.go = asyncio.Event()
        self.go.set()

    async def read(self) -> Snapshot:
        self.readings += 1
        await self.go.wait()
        if self.problem is not None:
            raise InventoryUnavailable(self.problem, self.kind)
        return self.snapshot


async def _as_it_is(snapshot: Snapshot) -> Snapshot:
    return snapshot


def _watch(devices: Devices, clock: Clock, patience_seconds: float = 1.0) -> Watch:
    return Watch(
        inventory=devices,
        take_in=_as_it_is,
        finishing=Finishing(),
        now=clock,
        patience_seconds=patience_seconds,
        fresh_seconds=8,
    )


async def test_nothing_is_known_before_the_first_look() -> None:
    """And unknown is not empty."""
    watch = _watch(Devices(), Clock())
    assert not watch.is_fresh()
    assert watch.age_seconds() is None
    with pytest.raises(InventoryUnavailable, match="not read yet"):
        watch.current()


async def test_a_look_ages() -> None:
    """After the time for which it may be relied on it is not fresh."""
    clock = Clock()
    watch = _watch(Devices(), clock)
    assert await watch.look() is watch.current()
    clock.ms = 7_900
    assert watch.is_fresh()
    clock.ms = 8_000
    assert not watch.is_fresh()
    assert watch.age_seconds() == 8


async def test_who_waits_together_shares_looks() -> None:
    """Ten that ask during a look are served by the next one."""
    devices = Devices()
    watch = _watch(devices, Clock())
    devices.go.clear()
    first = asyncio.get_running_loop().create_task(watch.look())
    await asyncio.sleep(0)
    rest = [asyncio.get_running_loop().create_task(watch.look()) for _ in range(10)]
    await asyncio.sleep(0.01)
    devices.go.set()
    await asyncio.gather(first, *rest)
    assert devices.readings == 2


async def test_a_failed_look_is_told_until_one_succeeds() -> None:
    """The old snapshot stays to be seen, and is not relied on."""
    devices = Devices()
    watch = _watch(devices, Clock())
    await watch.look()
    devices.problem = "no driver"
    with pytest.raises(InventoryUnavailable, match="no driver"):
        await watch.look()
    assert watch.snapshot is not None
    assert not watch.is_fresh()
    with pytest.raises(InventoryUnavailable, match="no driver"):
        watch.current()
    devices.problem = None
    await watch.look()
    assert watch.problem is None


async def test_a_hung_driver_costs_a_caller_its_patience_only() -> None:
    """The look goes on, and its result is taken in when it comes."""
    devices = Devices()
    watch = _watch(devices, Clock(), patience_seconds=0.05)
    devices.go.clear()
    with pytest.raises(InventoryUnavailable, match="not answered yet"):
        await watch.look()
    devices.go.set()
    await asyncio.sleep(0.02)
    assert watch.is_fresh()
    assert devices.readings == 1


async def test_when_the_driver_hangs_every_device_is_unresponsive() -> None:
    """Not only is nothing leased: what is shown says so too. Other outages leave the last look to be seen."""
    devices = Devices()
    watch = _watch(devices, Clock())
    devices.snapshot = snapshot(gpu(0, measures=Measures(utilisation_percent=3.0)))
    await watch.look()
    assert [one.utilisation_percent for one in watch.measures().values()] == [3.0]
    for kind, state in (
        (Problem.NO_DRIVER, DeviceState.OK),
        (Problem.UNRESPONSIVE, DeviceState.UNRESPONSIVE),
    ):
        devices.problem, devices.kind = "it is so", kind
        with pytest.raises(InventoryUnavailable) as caught:
            await watch.look()
        assert caught.value.problem is watch.kind is kind
        assert watch.snapshot is not None
        assert [one.state for one in watch.snapshot.devices.values()] == [state]
        assert watch.measures() == {}
    devices.problem = None
    await watch.look()
    assert watch.kind is None
    assert [one.state for one in watch.current().devices.values()] == [DeviceState.OK]


async def test_the_silence_of_a_driver_is_measured_from_the_first_question() -> None:
    """Through looks that fail for want of an answer, and while one is under way; any answer ends it."""
    clock, devices = Clock(), Devices()
    watch = _watch(devices, clock, patience_seconds=0.05)
    devices.problem, devices.kind = "it hangs", Problem.UNRESPONSIVE
    for _ in range(2):
        with pytest.raises(InventoryUnavailable):
            await watch.look()
        clock.ms += 10_000
    assert watch.silent_seconds() == 20
    devices.go.clear()
    with pytest.raises(InventoryUnavailable, match="not answered yet"):
        await watch.look()
    clock.ms += 10_000
    assert watch.silent_seconds() == 30
    devices.kind = Problem.NO_DRIVER
    devices.go.set()
    await asyncio.sleep(0.02)
    clock.ms += 10_000
    assert watch.silent_seconds() == 0


@pytest.mark.parametrize(("kind", "lines"), [(Problem.UNRESPONSIVE, 1), (Problem.FAILED, 2)])
async def test_one_outage_is_logged_once(kind: Problem, lines: int) -> None:
    """A hang in whatever words it is told; errors of which each says something else are told each."""
    devices = Devices()
    watch = _watch(devices, Clock())
    devices.kind = kind
    with structlog.testing.capture_logs() as logged:
        for problem in ("did not answer within 30 seconds", "does not answer", "does not answer"):
            devices.problem = problem
            with pytest.raises(InventoryUnavailable):
                await watch.look()
    assert [line["event"] for line in logged] == ["nvml.lost"] * lines


async def test_a_look_is_as_old_as_its_question() -> None:
    """What began while the driver took its time may not be in the answer."""
    devices, clock = Devices(), Clock()
    watch = _watch(devices, clock)
    devices.go.clear()
    async with asyncio.TaskGroup() as tasks:
        looking = tasks.create_task(watch.look())
        while not devices.readings:  # noqa: ASYNC110  the fake tells nobody
            await asyncio.sleep(0)
        clock.ms = 7000
        devices.go.set()
        await looking
    assert watch.age_seconds() == 7
    assert watch.is_fresh()
    clock.ms = 8000
    assert not watch.is_fresh()


async def test_nobody_looks_while_it_is_closed() -> None:
    """A look that is under way is waited for, then the session is ended, and the next look comes afterwards."""
    devices = Devices()
    watch = _watch(devices, Clock())
    devices.go.clear()
    ended: list[int] = []

    async def end() -> None:
        ended.append(watch.looks)

    async def change() -> int:
        async with watch.closed(end):
            looking.append(asyncio.get_running_loop().create_task(watch.look()))
            for _ in range(5):
                await asyncio.sleep(0)
            return devices.readings

    looking = [asyncio.get_running_loop().create_task(watch.look())]
    await asyncio.sleep(0.01)
    changing = asyncio.get_running_loop().create_task(change())
    await asyncio.sleep(0.01)
    assert ended == []
    devices.go.set()
    assert (await changing, ended) == (1, [1])
    await asyncio.gather(*looking)
    assert devices.readings == 2
