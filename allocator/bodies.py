"""Strict reading of what is sent to the allocator: one JSON object, known fields, bounded values."""

from __future__ import annotations

import json
import re
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from allocator.model import ANY, FULL, GpuRequest, GroupLimit
from allocator.reconcile import Carrier, Evidence
from allocator.reservations import Reservation
from allocator.slices import compute_slices
from policy.model import ContainerId, LeaseId, Uid
from policy.when import parse_when

if TYPE_CHECKING:
    from collections.abc import Mapping

_MOST_DEVICES = 1024
_MOST_GROUPS = 256
_MOST_SECONDS = 10 * 366 * 86400
_MOST_WAIT_SECONDS = 24 * 3600
_MOST_RESERVATIONS = 1000
_TEXT = re.compile(r"[ -~]{1,128}")
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_EQUIVALENTS = re.compile(r"[0-9]{1,4}(/[1-9][0-9]{0,2})?", re.ASCII)
_UID_MAX = 2**32 - 2


class BadInput(Exception):  # noqa: N818  the name says what is wrong
    """The request cannot be read: 400. The text names the field."""


def parse_body(data: bytes) -> Mapping[str, Any]:
    """One JSON object without duplicate keys. Raises: BadInput."""
    try:
        body = json.loads(data, object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise BadInput("the body is not one JSON object") from error
    if not isinstance(body, dict):
        raise BadInput("the body is not one JSON object")
    return body


def parse_want(body: Mapping[str, Any]) -> GpuRequest:
    """What a create asks for. Raises: BadInput."""
    _only(
        body,
        required={"owner_uid", "owner_name", "limit", "wait_seconds", "request_id", "session"},
        optional={"count", "device_ids", "profile", "memory_mib", "classes", "groups", "equivalents"}
        | {"seconds", "hold_seconds", "weight", "priority", "asked_ms"},
    )
    if ("count" in body) == ("device_ids" in body):
        raise BadInput("count, device_ids: exactly one is needed")
    ids = _list(body.get("device_ids", []), "device_ids")
    if "device_ids" in body and not 0 < len(ids) <= _MOST_DEVICES:
        raise BadInput(f"device_ids: 1 to {_MOST_DEVICES} are needed")
    plain = GpuRequest(
        owner_uid=Uid(_number(body["owner_uid"], "owner_uid", most=_UID_MAX)),
        owner_name=text_of(body["owner_name"], "owner_name"),
        limit=_number(body["limit"], "limit", most=_MOST_DEVICES),
        wait_seconds=_number(body["wait_seconds"], "wait_seconds", most=_MOST_WAIT_SECONDS),
        request_id=text_of(body["request_id"], "request_id"),
        session=text_of(body["session"], "session"),
        count=_number(body["count"], "count", least=1, most=_MOST_DEVICES) if "count" in body else None,
        device_ids=tuple(text_of(item, "device_ids") for item in ids),
        groups=tuple(_group(item) for item in _list(body.get("groups", []), "groups", most=_MOST_GROUPS)),
        **_more(body),
    )
    if plain.device_ids and (plain.profile is not None or plain.memory_mib is not None):
        raise BadInput("profile, memory_mib: only with count")
    return plain


def _more(body: Mapping[str, Any]) -> dict[str, Any]:
    """The fields that have a meaning of their own when they are absent."""
    found: dict[str, Any] = {}
    if "profile" in body:
        found["profile"] = _profile(body["profile"], "profile", {ANY, FULL})
    if "classes" in body:
        names = _list(body["classes"], "classes", most=64)
        found["classes"] = tuple(_profile(item, "classes", {"gpu", "mig"}) for item in names)
    if "equivalents" in body:
        found["equivalents"] = _fraction(body["equivalents"], "equivalents")
    for name, least, most in (
        ("memory_mib", 1, 1 << 30),
        ("seconds", 1, _MOST_SECONDS),
        ("hold_seconds", 0, _MOST_SECONDS),
        ("weight", 1, 1000),
        ("priority", -100, 100),
        ("asked_ms", 0, 1 << 53),
    ):
        if name in body:
            found[name] = _number(body[name], name, least=least, most=most)
    return found


def _group(item: Any) -> GroupLimit:
    group = _object(item, "groups")
    _only(group, required={"name"}, optional={"devices", "equivalents"})
    return GroupLimit(
        name=_name(group["name"], "groups.name"),
        devices=_number(group["devices"], "groups.devices", most=_MOST_DEVICES)
        if "devices" in group
        else None,
        equivalents=_fraction(group["equivalents"], "groups.equivalents") if "equivalents" in group else None,
    )


def parse_evidence(body: Mapping[str, Any]) -> Evidence:
    """What a proxy says dockerd holds. Raises: BadInput."""
    _only(body, required={"session", "containers"}, optional={"pending"})
    pending = None
    if "pending" in body:
        pending = frozenset(LeaseId(text_of(item, "pending")) for item in _list(body["pending"], "pending"))
    return Evidence(
        session=text_of(body["session"], "session"),
        carriers=tuple(_carrier(item) for item in _list(body["containers"], "containers")),
        pending=pending,
    )


def _carrier(item: Any) -> Carrier:
    carrier = _object(item, "containers")
    _only(carrier, required={"id", "lease", "owner_uid"}, optional={"state"})
    return Carrier(
        container=_container(carrier["id"], "containers.id"),
        lease=LeaseId(text_of(carrier["lease"], "containers.lease")),
        owner_uid=Uid(_number(carrier["owner_uid"], "containers.owner_uid", most=_UID_MAX)),
        state=text_of(carrier["state"], "containers.state") if "state" in carrier else None,
    )


def parse_container(body: Mapping[str, Any]) -> ContainerId:
    """The container of a confirm or a start. Raises: BadInput."""
    return _container(_only(body, required={"container_id"})["container_id"], "container_id")


def parse_reason(body: Mapping[str, Any]) -> str:
    """The reason of a release. Raises: BadInput."""
    return text_of(_only(body, required={"reason"})["reason"], "reason")


def parse_order(body: Mapping[str, Any]) -> tuple[str, str]:
    """Who has something done to a device, and why. Raises: BadInput."""
    _only(body, required={"who", "reason"})
    return text_of(body["who"], "who"), text_of(body["reason"], "reason")


def parse_reservation(body: Mapping[str, Any], *, number: str, source: str) -> Reservation:
    """A reservation. Raises: BadInput."""
    _only(body, required={"count", "when", "name"}, optional={"group", "uid", "profile", "lead_seconds"})
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
        group=_name(body["group"], "group") if "group" in body else None,
        uid=Uid(_number(body["uid"], "uid", most=_UID_MAX)) if "uid" in body else None,
        name=_name(body["name"], "name"),
        count=_number(body["count"], "count", least=1, most=_MOST_DEVICES),
        profile=_profile(body.get("profile", FULL), "profile", {ANY, FULL, "mig"}),
        when=when,
        when_text=when_text,
        lead_seconds=_number(body.get("lead_seconds", 900), "lead_seconds", most=7 * 86400),
    )


def parse_declared(body: Mapping[str, Any], *, source: str) -> tuple[Reservation, ...]:
    """What policy reserves, in its order. Raises: BadInput."""
    listed = _list(
        _only(body, required={"reservations"})["reservations"], "reservations", most=_MOST_RESERVATIONS
    )
    return tuple(
        parse_reservation(_object(item, "reservations"), number=f"{source}-{index}", source=source)
        for index, item in enumerate(listed)
    )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _only(
    body: Mapping[str, Any], *, required: set[str], optional: set[str] | None = None
) -> Mapping[str, Any]:
    missing, unknown = required - body.keys(), body.keys() - required - (optional or set())
    if missing or unknown:
        raise BadInput(f"{min(missing or unknown)[:80]}: {'missing' if missing else 'unknown field'}")
    return body


def _number(value: Any, name: str, *, least: int = 0, most: int) -> int:
    # A bool is an int in Python, and no number here.
    if type(value) is not int or not least <= value <= most:
        raise BadInput(f"{name}: a whole number from {least} to {most} is needed")
    return value


def _fraction(value: Any, name: str) -> Fraction:
    if not isinstance(value, str) or not _EQUIVALENTS.fullmatch(value):
        raise BadInput(f"{name}: whole GPUs as text are needed, like 2 or 10/7")
    return Fraction(value)


def text_of(value: Any, name: str) -> str:
    """Raises: BadInput."""
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BadInput(f"{name}: 1 to 128 printable ASCII characters are needed")
    return value


def _name(value: Any, name: str) -> str:
    """A name from the policy, in any script."""
    if not isinstance(value, str) or not 0 < len(value) <= 128 or not value.isprintable():
        raise BadInput(f"{name}: 1 to 128 printable characters are needed")
    return value


def _profile(value: Any, name: str, words: set[str]) -> str:
    if not isinstance(value, str) or (value not in words and compute_slices(value) is None):
        raise BadInput(f"{name}: a MIG profile or one of {', '.join(sorted(words))} is needed")
    return value


def _container(value: Any, name: str) -> ContainerId:
    if not isinstance(value, str) or not _CONTAINER.fullmatch(value):
        raise BadInput(f"{name}: a full container id is needed")
    return ContainerId(value)


def _list(value: Any, name: str, *, most: int | None = None) -> list[Any]:
    if not isinstance(value, list):
        raise BadInput(f"{name}: a list is needed")
    if most is not None and len(value) > most:
        raise BadInput(f"{name}: at most {most} are needed")
    return value


def _object(value: Any, name: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise BadInput(f"{name}: objects are needed")
    return value
