"""What the allocator is told, read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.adoption import Inspected
from allocator.attributor import Running
from allocator.foreign import Foreign
from allocator.held_devices import EVERYTHING, Held
from allocator.json_values import BadInput
from allocator.tellings import parse_containers, parse_host_rules, parse_layouts
from allocator.tracking import Named
from policy.host_processes import Exemption, HostProcesses, HostRule
from policy.model import ContainerId, Uid

ONE = {"id": "a" * 64, "pid": 5, "owner_uid": 1000, "name": "web"}
INSPECT = {"Config": {}, "HostConfig": {"DeviceRequests": [{"DeviceIDs": ["0"]}]}, "Mounts": []}
OLD = {
    "id": "b" * 64,
    "pid": 6,
    "owner_uid": None,
    "name": "old",
    "foreign": {"runs": True, "inspect": INSPECT, "monitor": False},
}
RULES = {
    "host_processes": "warn",
    "unleased": "stop",
    "grace_seconds": 60,
    "exempt": [{"user": "a", "until": 9, "reason": "r"}],
}


def test_what_runs_is_read() -> None:
    """With an owner or without one; one that ds01 did not make may be stopped."""
    told = parse_containers({"containers": [ONE, OLD, {**OLD, "pid": None}]})
    run = Running(id=ContainerId("a" * 64), pid=5, owner=Uid(1000))
    assert told.running[0] == Named(running=run, name="web")
    assert [one.running.owner for one in told.running] == [1000, None]
    has = Held(names=frozenset({"0"}))
    inspected = Inspected(id=ContainerId("b" * 64), name="old", labels={})
    old = Foreign(id=inspected.id, name="old", runs=True, held=has, inspected=inspected)
    assert told.foreign == (old, old)


@pytest.mark.parametrize(
    "inspect",
    [
        pytest.param(None, id="not known"),
        pytest.param({**INSPECT, "HostConfig": {"Devices": "no"}}, id="another shape"),
        pytest.param({**INSPECT, "Mounts": {}}, id="another shape of mounts"),
    ],
)
def test_what_cannot_be_read_of_an_inspect_is_everything(inspect: Any) -> None:
    """It is no reason to refuse the rest, and no monitor, whatever it is said to be."""
    foreign = {"runs": True, "inspect": inspect, "monitor": True}
    (told,) = parse_containers({"containers": [{**OLD, "foreign": foreign}]}).foreign
    assert (told.held, told.monitor) == (EVERYTHING, False)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"foreign": None}, id="unknown whether it runs"),
        pytest.param({"foreign": {"runs": 1, "inspect": INSPECT, "monitor": False}}, id="runs is a number"),
        pytest.param({"foreign": {"runs": True, "monitor": False}}, id="no inspect"),
        pytest.param({"foreign": {"runs": True, "inspect": INSPECT}}, id="unknown whether it only watches"),
        pytest.param(
            {"foreign": {"runs": True, "inspect": INSPECT, "monitor": None}},
            id="whether it only watches is null",
        ),
        pytest.param({"foreign": {"runs": True, "inspect": [], "monitor": False}}, id="inspect is a list"),
        pytest.param(
            {"foreign": {"runs": True, "inspect": {**INSPECT, "Id": "x"}, "monitor": False}},
            id="more of an inspect",
        ),
        pytest.param({"owner_uid": -1}, id="of nobody that there can be"),
        pytest.param({"pid": 0}, id="no process"),
        pytest.param({"id": "b"}, id="no id"),
    ],
)
def test_what_ds01_did_not_make_is_read_strictly(changes: dict[str, Any]) -> None:
    """All of it: half a list would be read as all there is."""
    with pytest.raises(BadInput):
        parse_containers({"containers": [{**OLD, **changes}]})


def test_what_was_adopted_is_told_with_its_owner() -> None:
    """It is that user's, and still one that ds01 did not make."""
    told = parse_containers({"containers": [{**OLD, "owner_uid": 1000}]})
    assert told.running[0].running.owner == 1000
    assert [(one.name, one.adopted_by) for one in told.foreign] == [("old", 1000)]
    assert parse_containers({"containers": [OLD]}).foreign[0].adopted_by is None


def test_without_an_inspect_nobodys_container_is_not_taken() -> None:
    """It would count as one without GPUs; and one of somebody without a pid does not run."""
    bare = {key: value for key, value in OLD.items() if key != "foreign"}
    for wrong in (bare, {**ONE, "pid": None}):
        with pytest.raises(BadInput):
            parse_containers({"containers": [wrong]})


@pytest.mark.parametrize(
    "changes",
    [{"id": "a"}, {"pid": 0}, {"pid": 2**23}, {"pid": True}, {"owner_uid": -1}, {"name": 1}, {"more": 1}],
)
def test_what_cannot_run_is_refused(changes: dict[str, Any]) -> None:
    """All of it: half a list would be read as all that runs."""
    with pytest.raises(BadInput):
        parse_containers({"containers": [ONE, {**ONE, **changes}]})


def test_what_runs_on_a_lease_is_read() -> None:
    """With what it has; where that cannot be told it is everything."""
    for inspect, has in ((INSPECT, Held(names=frozenset({"0"}))), (None, EVERYTHING)):
        told = parse_containers({"containers": [{**ONE, "carries": {"lease": "L1", "inspect": inspect}}]})
        (one,) = told.carrying
        assert (one.lease, one.has.held, one.has.takes, one.has.adopted_by) == ("L1", has, True, 1000)
        assert (told.foreign, len(told.running)) == ((), 1)


@pytest.mark.parametrize(
    "changes",
    [
        {"carries": {"lease": "L1"}},
        {"carries": {"lease": 1, "inspect": None}},
        {"carries": {"lease": "L1", "inspect": {}}},
        {"carries": {"lease": "L1", "inspect": None}, "foreign": OLD["foreign"]},
    ],
)
def test_what_carries_no_lease_is_refused(changes: dict[str, Any]) -> None:
    """A container of ds01's is told in full, and is none that it did not make."""
    with pytest.raises(BadInput):
        parse_containers({"containers": [{**ONE, **changes}]})


def test_rules_are_read() -> None:
    """Each field is needed: a word that is missing is not "report"."""
    assert parse_host_rules(RULES) == HostProcesses(
        host_processes=HostRule.WARN,
        unleased=HostRule.STOP,
        grace_seconds=60,
        exempt=(Exemption(user="a", until=9, reason="r"),),
    )
    for changes in (
        {"host_processes": "kill"},
        {"unleased": ["stop"]},
        {"grace_seconds": -1},
        {"exempt": [{"user": "a"}]},
    ):
        with pytest.raises(BadInput):
            parse_host_rules({**RULES, **changes})
    with pytest.raises(BadInput, match="missing"):
        parse_host_rules({"host_processes": "warn"})


def test_layouts_are_read() -> None:
    """Null is a whole GPU, no profile is MIG mode without instances."""
    assert parse_layouts({"layouts": {"GPU-1": None, "GPU-2": {}, "GPU-3": {"1g.5gb": 7}}}) == {
        "GPU-1": None,
        "GPU-2": {},
        "GPU-3": {"1g.5gb": 7},
    }
    wrongs: list[Any] = [[], {"GPU-1": 1}, {"GPU-1": {"1g.5gb": 8}}, {"GPU-1": {"1g.5gb": "1"}}, {"\n": None}]
    for wrong in wrongs:
        with pytest.raises(BadInput):
            parse_layouts({"layouts": wrong})
