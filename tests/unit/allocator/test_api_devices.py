"""How devices and the state of NVML are told: nothing secret to those who may not see it, nothing unknown as 0."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from allocator import api_devices
from allocator.adoption import Evidence, Ownership
from allocator.model import Device, Link, Problem, Snapshot
from allocator.readings import EccErrors, GpuProcess, Measures, MigMode, Span, Throttle
from policy.model import DeviceUuid, Uid
from tests.fakes.fake_nvml import gpu, mig
from tests.fakes.leasing import Clock, foreign, lease

NOW = Clock()()
OWNERSHIP = Ownership(owner=Uid(1000), evidence=Evidence.NAME, why="name old")

BUSY = gpu(
    0,
    serial="1234",
    mig_mode=MigMode(current=False, pending=False),
    processes=(GpuProcess(pid=7), GpuProcess(pid=7)),
    measures=Measures(ecc=EccErrors(corrected=0, uncorrected=0), throttles=(Throttle.IDLE,)),
)


class Seen:
    """What of a watch is read here."""

    def __init__(self, snapshot: Snapshot | None, kind: Problem | None = None) -> None:
        self.snapshot = snapshot
        self.kind = kind
        self.problem = None if kind is None else "it is so"

    def age_seconds(self) -> float | None:
        return None if self.snapshot is None else 1.0


@pytest.mark.parametrize("device", [BUSY, mig(0, 1, placement=Span(start=0, size=1), profile_id=19)])
def test_every_device_can_be_sent(device: Device) -> None:
    """All of it is JSON; what is not known is null."""
    told = json.loads(json.dumps(api_devices.shown(device, None, uid=0, sees_all=True, now=NOW)))
    assert told["measures"]["utilisation_percent"] is None
    assert told["in_use"] is (device is BUSY)


def test_processes_and_serial_are_for_the_trusted() -> None:
    """Others see that a device is in use, not by what."""
    everything = api_devices.shown(BUSY, None, uid=0, sees_all=True, now=NOW)
    assert (everything["pids"], everything["serial"]) == ((7,), "1234")
    little = api_devices.shown(BUSY, None, uid=1000, sees_all=False, now=NOW)
    assert not {"pids", "processes", "serial"} & little.keys()
    assert little["in_use"] is True


def test_a_foreign_container_is_told_by_name_to_the_trusted_alone() -> None:
    """To others its device is in use; a stopped one uses none."""
    idle, old = gpu(1), foreign("1")
    for sees_all in (True, False):
        told = api_devices.shown(idle, None, uid=0, sees_all=sees_all, now=NOW, foreign=[(old, None)])
        assert (told["in_use"], told["held"], told.get("foreign")) == (
            True,
            False,
            "old" if sees_all else None,
        )
        assert ("foreign" in told, "foreign_owners" in told) == (sees_all, sees_all)
    stopped = (foreign("1", runs=False), OWNERSHIP)
    told = api_devices.shown(idle, None, uid=0, sees_all=True, now=NOW, foreign=[stopped])
    assert (told["in_use"], told["foreign"]) == (False, None)
    assert told["foreign_owners"] == [
        {
            "container": "old",
            "container_id": stopped[0].id,
            "runs": False,
            "monitor": False,
            "owner_uid": 1000,
            "evidence": "name",
            "why": "name old",
        }
    ]


def test_an_adopted_container_is_told_as_its_lease() -> None:
    """Nobody asks whose it may be; only a device that it has without a lease still shows its name."""
    idle, old = gpu(1), replace(foreign("1"), adopted_by=Uid(1000))
    holds = lease("one", gpu(1).uuid, container=old.id)
    for held, name in ((holds, None), (None, "old")):
        told = api_devices.shown(idle, held, uid=0, sees_all=True, now=NOW, foreign=[(old, OWNERSHIP)])
        assert (told["in_use"], told["foreign"], told["foreign_owners"]) == (True, name, [])


def test_a_monitor_is_told_and_uses_nothing() -> None:
    """To the trusted, as one; what runs on the device makes it busy whoever runs it, and unknown stays unknown."""
    watching = [(foreign("1", monitor=True), None)]
    for pids, in_use in (((), False), ((7,), True), (None, None)):
        told = api_devices.shown(gpu(1, pids=pids), None, uid=0, sees_all=True, now=NOW, foreign=watching)
        assert (told["in_use"], told["foreign"]) == (in_use, None)
        assert [one["monitor"] for one in told["foreign_owners"]] == [True]


@pytest.mark.parametrize(
    ("uid", "sees_all", "holder"), [(1000, False, "user1000"), (1001, False, None), (0, True, "user1000")]
)
def test_a_holder_is_told_to_itself_and_the_trusted(uid: int, sees_all: bool, holder: str | None) -> None:
    """To everybody else the device is merely held."""
    held = lease("a", BUSY.uuid, owner=Uid(1000))
    told = api_devices.shown(BUSY, held, uid=uid, sees_all=sees_all, now=NOW, note="an XID")
    assert (told["held"], told["holder"], told["lease"]) == (True, holder, holder and "a")
    assert told["note"] == (holder and "an XID")
    assert told["holder_uid"] == (1000 if holder else None)


def test_since_when_and_until_when_everybody_may_know() -> None:
    """Whoever waits for it; without a lease there is neither."""
    held = lease("a", BUSY.uuid, seconds=3600)
    told = api_devices.shown(BUSY, held, uid=1, sees_all=False, now=NOW)
    assert told["since"] == NOW.utc
    assert told["ends_at"] is not None
    free = api_devices.shown(BUSY, None, uid=1, sees_all=False, now=NOW)
    assert (free["since"], free["ends_at"]) == (None, None)


@pytest.mark.parametrize(
    ("watch", "state", "inventory"),
    [
        pytest.param(Seen(None, Problem.NOT_READ), "unavailable", "not_read", id="before the first look"),
        pytest.param(Seen(Snapshot()), "ok", "no_gpus", id="no GPUs"),
        pytest.param(
            Seen(Snapshot(unidentified={"0": "no answer"}, complete=False)),
            "ok",
            "ok",
            id="only a silent one",
        ),
        pytest.param(Seen(Snapshot(devices={BUSY.uuid: BUSY})), "ok", "ok", id="one"),
        *(
            pytest.param(Seen(Snapshot(), kind), "unavailable", kind.value, id=kind.value)
            for kind in Problem
            if kind is not Problem.NOT_READ
        ),
    ],
)
def test_health_has_a_name_for_each_state(watch: Seen, state: str, inventory: str) -> None:
    """And a message wherever it is not plainly well."""
    told = api_devices.health(watch, reconciled=True, log_problem=None)  # type: ignore[arg-type]  # what is read of a watch
    assert (told["state"], told["inventory"]) == (state, inventory)
    assert (told["message"] is None) == (inventory == "ok")


@pytest.mark.parametrize("problem", [None, "/dev/kmsg: Operation not permitted"])
def test_health_says_whether_the_kernel_log_is_heard(problem: str | None) -> None:
    """Leasing goes on without it."""
    watch = Seen(Snapshot(devices={BUSY.uuid: BUSY}))
    told = api_devices.health(watch, reconciled=True, log_problem=problem)  # type: ignore[arg-type]  # as above
    assert (told["kernel_log_problem"], told["state"], told["problem"]) == (problem, "ok", None)


def test_links_are_told_once_in_order() -> None:
    """By name; none are told while none are known."""
    one, two, three = (DeviceUuid(f"GPU-{number}") for number in range(3))
    known = Snapshot(links={(two, three): Link.NODE, (one, two): Link.NVLINK})
    assert api_devices.links(Seen(known)) == [  # type: ignore[arg-type]  # what is read of a watch
        {"gpus": [one, two], "link": "nvlink"},
        {"gpus": [two, three], "link": "node"},
    ]
    assert api_devices.links(Seen(Snapshot())) == api_devices.links(Seen(None)) == []  # type: ignore[arg-type]  # as above
