"""Every container and build runs in its owner's cgroup, in a cgroup namespace of its own."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_text
from policy.model import SetField, SetQuery
from policy.ownership import cgroup_parent

RULE_ID = "cgroup"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.IMAGE_BUILD})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Set the parent. Without facts the driver is unknown, and either form of the owner's cgroup stands."""
    if ask.request.operation is Operation.IMAGE_BUILD:
        now = (ask.request.query.get("cgroupparent") or ("",))[0]
        yield SetQuery(key="cgroupparent", values=(_parent(ask, now),))
        return
    parent = _parent(ask, as_text(ask.host_config.get("CgroupParent")))
    yield SetField(path=("HostConfig", "CgroupParent"), value=parent)
    yield SetField(path=("HostConfig", "CgroupnsMode"), value="private")
    yield SetField(path=("HostConfig", "Cgroup"), value=None)


def _parent(ask: Ask, now: str) -> str:
    if ask.facts is not None:
        return cgroup_parent(ask.actor.uid, ask.facts.engine.cgroup_driver)
    forms = [cgroup_parent(ask.actor.uid, driver) for driver in ("cgroupfs", "systemd")]
    return now if now in forms else forms[0]
