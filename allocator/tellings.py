"""What the allocator is told by the proxy and by root, beside leases: containers that run, rules, MIG layouts. Strictly read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from allocator.attributor import Running
from allocator.foreign import Foreign, read_foreign
from allocator.json_values import (
    UID_MAX,
    BadInput,
    container_of,
    list_of,
    number_of,
    object_of,
    only,
    text_of,
)
from allocator.tracking import Named
from policy.host_processes import Exemption, HostProcesses, HostRule
from policy.model import DeviceUuid, LeaseId, Uid

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_PID_MAX = 2**22
_SECONDS_MAX = 2**40
_NAME_LONGEST = 256
_MOST_INSTANCES = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Carrying:
    """A container of ds01's that runs on a lease. `has`: what it has, as of one that ds01 did not make."""

    lease: LeaseId
    has: Foreign


@dataclass(frozen=True, slots=True, kw_only=True)
class Containers:
    """All containers that run, those of them with a lease, and all that ds01 did not make, running or stopped."""

    running: tuple[Named, ...]
    foreign: tuple[Foreign, ...]
    carrying: tuple[Carrying, ...] = ()


def parse_containers(body: Mapping[str, Any]) -> Containers:
    """As the proxy tells them. Raises: BadInput."""
    listed = list_of(only(body, required={"containers"})["containers"], "containers")
    items = [object_of(item, "containers") for item in listed]
    foreign = tuple(_foreign(items))  # first: it looks which fields there are
    return Containers(running=tuple(_running(items)), foreign=foreign, carrying=tuple(_carrying(items)))


def _running(items: Iterable[Mapping[str, Any]]) -> Iterator[Named]:
    for item in items:
        if item["pid"] is None:
            continue
        yield Named(
            running=Running(
                id=container_of(item["id"], "containers.id"),
                pid=number_of(item["pid"], "containers.pid", least=1, most=_PID_MAX),
                owner=_owner(item),
            ),
            name=_name(item),
        )


def _foreign(items: Iterable[Mapping[str, Any]]) -> Iterator[Foreign]:
    """Those that ds01 did not make: without an owner, or adopted. Each of them has a pid or none."""
    for item in items:
        only(item, required={"id", "pid", "owner_uid", "name"}, optional={"foreign", "carries"})
        if "foreign" not in item:
            if item["owner_uid"] is None or item["pid"] is None:
                raise BadInput("containers: only a foreign one may be without an owner or a pid")
            continue
        told = only(
            object_of(item.get("foreign"), "containers.foreign"), required={"runs", "inspect", "monitor"}
        )
        for name in ("runs", "monitor"):
            if not isinstance(told[name], bool):
                raise BadInput(f"containers.foreign.{name}: true or false is needed")
        yield read_foreign(
            container_of(item["id"], "containers.id"),
            _name(item),
            _inspect(told["inspect"], "containers.foreign.inspect"),
            runs=told["runs"],
            monitor=told["monitor"],
            adopted_by=_owner(item),
        )


def _carrying(items: Iterable[Mapping[str, Any]]) -> Iterator[Carrying]:
    for item in items:
        if "carries" not in item:
            continue
        if "foreign" in item:
            raise BadInput("containers: one that ds01 did not make carries no lease of its own")
        told = only(object_of(item["carries"], "containers.carries"), required={"lease", "inspect"})
        has = read_foreign(
            container_of(item["id"], "containers.id"),
            _name(item),
            _inspect(told["inspect"], "containers.carries.inspect"),
            runs=True,
            adopted_by=_owner(item),
        )
        yield Carrying(lease=LeaseId(text_of(told["lease"], "containers.carries.lease")), has=has)


def _inspect(told: Any, field: str) -> Mapping[str, Any] | None:
    """None: it could not be read."""
    if told is None:
        return None
    return only(object_of(told, field), required={"Config", "HostConfig", "Mounts"})


def _owner(item: Mapping[str, Any]) -> Uid | None:
    owner = item["owner_uid"]
    return None if owner is None else Uid(number_of(owner, "containers.owner_uid", most=UID_MAX))


def _name(item: Mapping[str, Any]) -> str:
    name = item["name"]
    if not isinstance(name, str):
        raise BadInput("containers.name: text is needed")
    return name[:_NAME_LONGEST]


def parse_host_rules(body: Mapping[str, Any]) -> HostProcesses:
    """What policy says of GPU processes outside containers and leases. Raises: BadInput."""
    only(body, required={"host_processes", "unleased", "grace_seconds", "exempt"})
    return HostProcesses(
        host_processes=_rule(body["host_processes"], "host_processes"),
        unleased=_rule(body["unleased"], "unleased"),
        grace_seconds=number_of(body["grace_seconds"], "grace_seconds", most=_SECONDS_MAX),
        exempt=tuple(_exemption(object_of(item, "exempt")) for item in list_of(body["exempt"], "exempt")),
    )


def _rule(value: object, name: str) -> HostRule:
    rules = [rule.value for rule in HostRule]
    if value not in rules:
        raise BadInput(f"{name}: one of {', '.join(rules)} is needed")
    return HostRule(str(value))


def _exemption(item: Mapping[str, Any]) -> Exemption:
    only(item, required={"user", "until", "reason"})
    user, reason = item["user"], item["reason"]
    if not isinstance(user, str) or not isinstance(reason, str):
        raise BadInput("exempt: a user and a reason are needed")
    return Exemption(
        user=user, until=number_of(item["until"], "exempt.until", most=_SECONDS_MAX), reason=reason
    )


def parse_layouts(body: Mapping[str, Any]) -> dict[DeviceUuid, Mapping[str, int] | None]:
    """How GPUs are to be split, by UUID; None: not at all. Raises: BadInput."""
    layouts = object_of(only(body, required={"layouts"})["layouts"], "layouts")
    found: dict[DeviceUuid, Mapping[str, int] | None] = {}
    for gpu, profiles in layouts.items():
        counts = None if profiles is None else object_of(profiles, "layouts")
        found[DeviceUuid(text_of(gpu, "layouts"))] = (
            None
            if counts is None
            else {
                text_of(name, "layouts"): number_of(count, f"layouts.{name[:40]}", most=_MOST_INSTANCES)
                for name, count in counts.items()
            }
        )
    return found
