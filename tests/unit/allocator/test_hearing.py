"""Two sources of one error: what counts once, what counts twice, and in whose name."""

from __future__ import annotations

import pytest
import structlog

from allocator.hearing import Hearing
from allocator.kernel_log import LoggedXid, PciAddress
from allocator.readings import XidEvent, XidSource
from tests.fakes.fake_nvml import gpu, mig, snapshot
from tests.fakes.leasing import Clock

WHOLE, SPLIT = gpu(0), gpu(1)
PART = mig(1, 0, pci_bus_id="00000000:0F:00.0")
PLACES = {WHOLE.uuid: 0x07, SPLIT.uuid: 0x0F}
LOG, NVML = XidSource.KERNEL_LOG, XidSource.NVML


class World:
    """A hearing on a machine of two GPUs, and what it let through so far: who told it, code, instance."""

    def __init__(self, *, known: bool = True) -> None:
        self.clock = Clock()
        self.hearing = Hearing(now=self.clock)
        self.counted: list[tuple[XidSource, int, int | None]] = []
        if known:
            self.hearing.know(snapshot(WHOLE, SPLIT, PART))

    def after(self, seconds: float) -> World:
        self.clock.seconds += seconds
        return self

    def logs(self, xid: int, *, instance: int | None = None, bus: int = 0x07) -> World:
        address = PciAddress(domain=0, bus=bus, device=0)
        self.hearing.logged(LoggedXid(address=address, xid=xid, gpu_instance_id=instance))
        return self

    def tells(self, *xids: int, instance: int | None = None, bus: int = 0x07) -> World:
        """A look of NVML that brings these, and is over."""
        began = self.clock()
        uuid = WHOLE.uuid if bus == PLACES[WHOLE.uuid] else SPLIT.uuid
        heard = [XidEvent(gpu=uuid, xid=xid, gpu_instance_id=instance) for xid in xids]
        self._count(self.hearing.told(heard))
        self._count(self.hearing.alone(began))
        return self

    def _count(self, told: tuple[XidEvent, ...]) -> None:
        self.counted += [(one.source, one.xid, one.gpu_instance_id) for one in told]


def test_an_error_that_both_tell_is_nvmls() -> None:
    """Told by the log first, as it is mostly, and by the next look."""
    assert World().logs(79).after(3).tells(79).after(60).tells().counted == [(NVML, 79, None)]


def test_an_error_that_the_log_tells_second_is_the_same() -> None:
    """A look may end between the driver's event and its line."""
    assert World().tells(79).after(0.1).logs(79).after(5).tells().counted == [(NVML, 79, None)]


def test_a_line_that_comes_much_later_is_of_another_error() -> None:
    """Lines are read when they are written: what NVML told ten seconds ago is not what they are about."""
    world = World().tells(79).after(10).logs(79).after(5).tells()
    assert world.counted == [(NVML, 79, None), (LOG, 79, None)]


def test_one_event_explains_one_error_of_the_log() -> None:
    """A second one, soon after it, is one that NVML has not told."""
    world = World().tells(79).after(0.1).logs(79).after(2).logs(79).after(5).tells()
    assert world.counted == [(NVML, 79, None), (LOG, 79, None)]


def test_what_the_log_alone_tells_is_the_logs() -> None:
    """After a look that could have had it, and once."""
    world = World().logs(79).after(0.5).tells()
    assert world.counted == []
    assert world.after(5).tells().after(5).tells().counted == [(LOG, 79, None)]


def test_nvml_that_tells_it_late_counts_nothing_again() -> None:
    """A call into a GSP that hung returns after 45 s."""
    assert World().logs(119).after(5).tells().after(45).tells(119).counted == [(LOG, 119, None)]


def test_nvml_that_tells_it_much_later_tells_of_another() -> None:
    """Nothing is kept for ever."""
    world = World().logs(119).after(5).tells().after(90).tells(119)
    assert world.counted == [(LOG, 119, None), (NVML, 119, None)]


def test_the_lines_of_one_error_count_once() -> None:
    """An XID 13 has three lines and one event, an XID 45 one for each channel."""
    world = World().logs(13).after(0.01).logs(13).after(0.01).logs(13)
    assert world.after(3).tells(13).after(0.1).logs(13).after(9).tells().counted == [
        (NVML, 13, None),
        (LOG, 13, None),
    ]
    assert World().logs(45).logs(45).after(3).tells().counted == [(LOG, 45, None)]


def test_a_second_error_counts() -> None:
    """Whether both sources tell it, NVML alone or the log alone."""
    both = World().logs(31).after(3).tells(31).logs(31).after(3).tells(31)
    assert both.counted == [(NVML, 31, None)] * 2
    at_once = World().logs(31).after(2).logs(31).after(2).tells(31, 31)
    assert at_once.counted == [(NVML, 31, None)] * 2
    nvml = World().logs(31).after(3).tells(31).after(3).tells(31)
    assert nvml.counted == [(NVML, 31, None)] * 2
    log = World().logs(31).after(3).tells(31).logs(31).after(3).tells()
    assert log.counted == [(NVML, 31, None), (LOG, 31, None)]


def test_events_of_nvml_are_counted_as_told() -> None:
    """One line and three events in a second are three errors, as they are without a log."""
    assert World().logs(45).after(0.5).tells(45, 45, 45).counted == [(NVML, 45, None)] * 3


def test_errors_without_a_pause_are_not_one_for_ever() -> None:
    """At most one is counted for each second."""
    world = World()
    for _ in range(40):
        world.logs(31).after(0.1)
    assert len(world.after(5).tells().counted) == 4


@pytest.mark.parametrize(
    ("logged", "told"),
    [
        pytest.param({"xid": 48}, {"xid": 94}, id="another code"),
        pytest.param({"xid": 48}, {"xid": 48, "bus": 0x0F}, id="another GPU"),
        pytest.param(
            {"xid": 48, "bus": 0x0F, "instance": 7},
            {"xid": 48, "bus": 0x0F, "instance": 8},
            id="another instance",
        ),
    ],
)
def test_another_error_is_another(logged: dict[str, int], told: dict[str, int]) -> None:
    """Both count, each in the name of who told it."""
    xid = told.pop("xid")
    world = World().logs(**logged).after(3).tells(xid, **told)
    assert sorted(source for source, *_ in world.counted) == [LOG, NVML]


@pytest.mark.parametrize(("logged", "told"), [(None, 7), (7, None)])
def test_an_instance_that_one_does_not_name_is_no_difference(logged: int | None, told: int | None) -> None:
    """A driver whose GSP finds the instance writes none to the log; and it is told as NVML has it."""
    world = World().logs(94, bus=0x0F, instance=logged).after(3).tells(94, bus=0x0F, instance=told)
    assert world.counted == [(NVML, 94, told)]


def test_the_instance_that_is_named_by_both_goes_first() -> None:
    """Of two lines that could be the error, that of the same instance is."""
    world = World().logs(94, bus=0x0F).after(0.1).logs(94, bus=0x0F, instance=7).after(3)
    assert world.tells(94, bus=0x0F, instance=7).counted == [(NVML, 94, 7), (LOG, 94, None)]


def test_a_gpu_that_is_gone_keeps_its_place() -> None:
    """Errors of it are its own, until another GPU is in its place."""
    world = World()
    world.hearing.know(snapshot(SPLIT))
    assert world.logs(79).after(3).tells().counted == [(LOG, 79, None)]
    world.hearing.know(snapshot(gpu(2, pci_bus_id="00000000:07:00.0")))
    world.logs(79).after(3)
    (told,) = world.hearing.alone(world.clock())
    assert told.gpu == gpu(2).uuid


def test_a_gpu_that_moved_has_left_its_old_place() -> None:
    """It is not blamed for what happens there."""
    world = World()
    world.hearing.know(snapshot(gpu(0, pci_bus_id="00000000:3B:00.0")))
    with structlog.testing.capture_logs() as lines:
        assert world.logs(79).after(3).tells().counted == []
    assert [line["event"] for line in lines] == ["xid.unplaced"]
    assert world.logs(79, bus=0x3B).after(3).hearing.alone(world.clock())[0].gpu == WHOLE.uuid


def test_before_the_first_look_errors_wait() -> None:
    """An allocator that starts while NVML hangs has no names for GPUs; with the first look it has."""
    world = World(known=False)
    assert world.logs(79).after(100).tells().counted == []
    world.hearing.know(snapshot(WHOLE))
    assert world.tells().counted == [(LOG, 79, None)]


def test_a_gpu_that_no_look_found_is_said_by_its_address() -> None:
    """Once, and nothing is done to any other."""
    world = World()
    with structlog.testing.capture_logs() as lines:
        assert world.logs(79, bus=0x99).after(3).tells().after(5).tells().counted == []
    assert [(line["event"], line["address"], line["xid"]) for line in lines] == [
        ("xid.unplaced", "0000:99:00", 79)
    ]


def test_a_flood_is_remembered_in_part() -> None:
    """However many codes are told, memory is bounded."""
    world = World(known=False)
    for xid in range(1, 3000):
        world.logs(xid)
    world.hearing.know(snapshot(WHOLE))
    assert len(world.after(3).tells().counted) == 1000
