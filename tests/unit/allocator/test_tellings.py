"""What the allocator is told, read strictly."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.attributor import Running
from allocator.json_values import BadInput
from allocator.tellings import parse_host_rules, parse_layouts, parse_running
from allocator.tracking import Named
from policy.host_processes import Exemption, HostProcesses, HostRule
from policy.model import ContainerId, Uid

ONE = {"id": "a" * 64, "pid": 5, "owner_uid": 1000, "name": "web"}
RULES = {"host_processes": "warn", "grace_seconds": 60, "exempt": [{"user": "a", "until": 9, "reason": "r"}]}


def test_what_runs_is_read() -> None:
    """With an owner or without one."""
    told = parse_running({"containers": [ONE, {**ONE, "owner_uid": None}]})
    run = Running(id=ContainerId("a" * 64), pid=5, owner=Uid(1000))
    assert told[0] == Named(running=run, name="web")
    assert told[1].running.owner is None


@pytest.mark.parametrize(
    "changes",
    [{"id": "a"}, {"pid": 0}, {"pid": 2**23}, {"pid": True}, {"owner_uid": -1}, {"name": 1}, {"more": 1}],
)
def test_what_cannot_run_is_refused(changes: dict[str, Any]) -> None:
    """All of it: half a list would be read as all that runs."""
    with pytest.raises(BadInput):
        parse_running({"containers": [ONE, {**ONE, **changes}]})


def test_rules_are_read() -> None:
    """Each field is needed: a word that is missing is not "report"."""
    assert parse_host_rules(RULES) == HostProcesses(
        host_processes=HostRule.WARN,
        grace_seconds=60,
        exempt=(Exemption(user="a", until=9, reason="r"),),
    )
    for changes in ({"host_processes": "kill"}, {"grace_seconds": -1}, {"exempt": [{"user": "a"}]}):
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
