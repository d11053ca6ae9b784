"""What the allocator is asked about leases and devices, read strictly: creates, evidence, reservations, orders."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allocator.json_values import (
    UID_MAX,
    BadInput,
    container_of,
    fraction_of,
    list_of,
    name_of,
    number_of,
    object_of,
    only,
    profile_of,
    text_of,
)
from allocator.model import ANY, FULL, GpuRequest, GroupLimit
from allocator.reconcile import Carrier, Evidence
from allocator.reservations import Reservation
from allocator.take_over import TakeOver
from policy.gpu_bounds import (
    MOST_DEVICES,
    MOST_LEAD_SECONDS,
    MOST_RESERVATIONS,
    MOST_SECONDS,
    MOST_WAIT_SECONDS,
)
from policy.model import ContainerId, LeaseId, Uid
from policy.when import parse_when

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_GROUPS = 256


def parse_want(body: Mapping[str, Any]) -> GpuRequest:
    """What a create asks for. Raises: BadInput."""
    only(
        body,
        required={"owner_uid", "owner_name", "limit", "wait_seconds", "request_id", "session"},
        optional={"count", "device_ids", "profile", "memory_mib", "classes", "groups", "equivalents"}
        | {"seconds", "hold_seconds", "wait_most_seconds", "weight", "priority", "asked_ms"},
    )
    if ("count" in body) == ("device_ids" in body):
        raise BadInput("count, device_ids: exactly one is needed")
    ids = list_of(body.get("device_ids", []), "device_ids")
    if "device_ids" in body and not 0 < len(ids) <= MOST_DEVICES:
        raise BadInput(f"device_ids: 1 to {MOST_DEVICES} are needed")
    plain = GpuRequest(
        owner_uid=Uid(number_of(body["owner_uid"], "owner_uid", most=UID_MAX)),
        owner_name=text_of(body["owner_name"], "owner_name"),
        limit=number_of(body["limit"], "limit", most=MOST_DEVICES),
        wait_seconds=number_of(body["wait_seconds"], "wait_seconds", most=MOST_WAIT_SECONDS),
        request_id=text_of(body["request_id"], "request_id"),
        session=text_of(body["session"], "session"),
        count=number_of(body["count"], "count", least=1, most=MOST_DEVICES) if "count" in body else None,
        device_ids=tuple(text_of(item, "device_ids") for item in ids),
        groups=tuple(_group(item) for item in list_of(body.get("groups", []), "groups", most=_MOST_GROUPS)),
        **_more(body),
    )
    if plain.device_ids and (plain.profile is not None or plain.memory_mib is not None):
        raise BadInput("profile, memory_mib: only with count")
    return plain


def _more(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a meaning of their own when they are absent."""
    found: dict[str, Any] = {}
    if "profile" in body:
        found["profile"] = profile_of(body["profile"], "profile", {ANY, FULL})
    if "classes" in body:
        names = list_of(body["classes"], "classes", most=64)
        found["classes"] = tuple(profile_of(item, "classes", {"gpu", "mig"}) for item in names)
    if "equivalents" in body:
        found["equivalents"] = fraction_of(body["equivalents"], "equivalents")
    for name, least, most in (
        ("memory_mib", 1, 1 << 30),
        ("seconds", 1, MOST_SECONDS),
        ("hold_seconds", 0, MOST_SECONDS),
        ("wait_most_seconds", 0, MOST_WAIT_SECONDS),
        ("weight", 1, 1000),
        ("priority", -100, 100),
        ("asked_ms", 0, 1 << 53),
    ):
        if name in body:
            found[name] = number_of(body[name], name, least=least, most=most)
    return found


def _group(item: Any) -> GroupLimit:
    group = object_of(item, "groups")
    only(group, required={"name"}, optional={"devices", "equivalents"})
    return GroupLimit(
        name=name_of(group["name"], "groups.name"),
        devices=number_of(group["devices"], "groups.devices", most=MOST_DEVICES)
        if "devices" in group
        else None,
        equivalents=fraction_of(group["equivalents"], "groups.equivalents")
        if "equivalents" in group
        else None,
    )


def parse_evidence(body: Mapping[str, Any]) -> Evidence:
    """What a proxy says dockerd holds. Raises: BadInput."""
    only(body, required={"session", "boot_id", "asked_ms", "containers"}, optional={"pending"})
    pending = None
    if "pending" in body:
        pending = frozenset(LeaseId(text_of(item, "pending")) for item in list_of(body["pending"], "pending"))
    return Evidence(
        session=text_of(body["session"], "session"),
        boot_id=text_of(body["boot_id"], "boot_id"),
        asked_ms=number_of(body["asked_ms"], "asked_ms", most=1 << 53),
        carriers=tuple(_carrier(item) for item in list_of(body["containers"], "containers")),
        pending=pending,
    )


def _carrier(item: Any) -> Carrier:
    carrier = object_of(item, "containers")
    only(carrier, required={"id", "lease", "owner_uid"}, optional={"state"})
    return Carrier(
        container=container_of(carrier["id"], "containers.id"),
        lease=LeaseId(text_of(carrier["lease"], "containers.lease")),
        owner_uid=Uid(number_of(carrier["owner_uid"], "containers.owner_uid", most=UID_MAX)),
        state=text_of(carrier["state"], "containers.state") if "state" in carrier else None,
    )


def parse_container(body: Mapping[str, Any]) -> ContainerId:
    """The container of a confirm or a start. Raises: BadInput."""
    return container_of(only(body, required={"container_id"})["container_id"], "container_id")


def parse_take_over(body: Mapping[str, Any], *, container: ContainerId) -> TakeOver:
    """Whose a container is from now on that ds01 did not make. Raises: BadInput."""
    only(body, required={"owner_uid", "owner_name", "groups", "restarts", "session", "request_id"})
    if not isinstance(body["restarts"], bool):
        raise BadInput("restarts: true or false is needed")
    groups = list_of(body["groups"], "groups", most=_MOST_GROUPS)
    return TakeOver(
        container=container,
        owner_uid=Uid(number_of(body["owner_uid"], "owner_uid", most=UID_MAX)),
        owner_name=text_of(body["owner_name"], "owner_name"),
        groups=tuple(name_of(item, "groups") for item in groups),
        restarts=body["restarts"],
        session=text_of(body["session"], "session"),
        request_id=text_of(body["request_id"], "request_id"),
    )


def parse_reason(body: Mapping[str, Any]) -> str:
    """The reason of a release. Raises: BadInput."""
    return text_of(only(body, required={"reason"})["reason"], "reason")


def parse_order(body: Mapping[str, Any]) -> tuple[str, str]:
    """Who has something done to a device, and why. Raises: BadInput."""
    only(body, required={"who", "reason"})
    return text_of(body["who"], "who"), name_of(body["reason"], "reason")


def parse_reservation(body: Mapping[str, Any], *, number: str, source: str) -> Reservation:
    """A reservation. Raises: BadInput."""
    more = {"group", "uid", "profile", "lead_seconds", "by", "reason"}
    only(body, required={"count", "when", "name"}, optional=more)
    if ("group" in body) == ("uid" in body):
        raise BadInput("group, uid: exactly one is needed")
    when_text = text_of(body["when"], "when")
    try:
        when = parse_when(when_text)
    except ValueError as error:
        raise BadInput(f"when: {error}") from error
    return Reservation(
        id=number,
        source=source,
        group=name_of(body["group"], "group") if "group" in body else None,
        uid=Uid(number_of(body["uid"], "uid", most=UID_MAX)) if "uid" in body else None,
        name=name_of(body["name"], "name"),
        count=number_of(body["count"], "count", least=1, most=MOST_DEVICES),
        profile=profile_of(body.get("profile", FULL), "profile", {ANY, FULL, "mig"}),
        when=when,
        when_text=when_text,
        lead_seconds=number_of(body.get("lead_seconds", 900), "lead_seconds", most=MOST_LEAD_SECONDS),
        by=text_of(body["by"], "by") if "by" in body else None,
        reason=name_of(body["reason"], "reason") if "reason" in body else None,
    )


def parse_declared(body: Mapping[str, Any], *, source: str) -> tuple[Reservation, ...]:
    """What policy reserves, in its order. Raises: BadInput."""
    listed = list_of(
        only(body, required={"reservations"})["reservations"], "reservations", most=MOST_RESERVATIONS
    )
    return tuple(
        parse_reservation(object_of(item, "reservations"), number=f"{source}-{index}", source=source)
        for index, item in enumerate(listed)
    )
