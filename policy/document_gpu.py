"""What a policy file says about GPUs for containers: limits, classes, rank in the queue, reservations."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

import yaml

from policy.document_values import (
    Read,
    Wrong,
    read_choice,
    read_fields,
    read_items,
    read_name,
    scalar_of,
    time_up_to,
    whole,
)
from policy.gpu_bounds import (
    LONGEST_TEXT,
    MOST_DEVICES,
    MOST_LEAD_SECONDS,
    MOST_RESERVATIONS,
    MOST_SECONDS,
    MOST_WAIT_SECONDS,
)
from policy.gpus import MIG_PROFILE
from policy.grants import Reservation, TimeOver
from policy.when import parse_when


def _read_some_time(node: yaml.Node) -> int:
    seconds: int = time_up_to(MOST_SECONDS)(node)
    if not seconds:
        raise Wrong("must be more than nothing, like 24h; gpus: 0 gives no GPU")
    return seconds


def _read_equivalents(node: yaml.Node) -> Fraction:
    found = re.fullmatch(r"([0-9]{1,4})(\.[0-9]{1,3}|/[1-9][0-9]?)?", scalar_of(node))
    if not found:
        raise Wrong(
            "must be a number of whole GPUs, like 2, 1.5 or 3/7 (three of a GPU's seven compute slices)"
        )
    return Fraction(found[0])


def _read_classes(node: yaml.Node) -> tuple[str, ...]:
    names = tuple(read_name(item) for item in read_items(node))
    for name in names:
        if name not in {"gpu", "mig"} and not MIG_PROFILE.fullmatch(name):
            raise Wrong(f"{name} is no class; write gpu, mig or MIG profiles like 1g.10gb, best first")
    if len(set(names)) != len(names) or not names:
        raise Wrong("must name each class once, and at least one")
    return names


def _read_time_over(node: yaml.Node) -> TimeOver:
    return read_choice(node, TimeOver)


def _read_profile(node: yaml.Node) -> str:
    name = read_name(node)
    if name not in {"full", "any", "mig"} and not MIG_PROFILE.fullmatch(name):
        raise Wrong("must be full, any, mig or a MIG profile like 1g.10gb")
    return name


def _read_when(node: yaml.Node) -> str:
    text = read_name(node)
    if len(text) > LONGEST_TEXT:
        raise Wrong(f"must be at most {LONGEST_TEXT} characters")
    try:
        parse_when(text)
    except ValueError as error:
        raise Wrong(str(error)) from None
    return text


def read_reservations(node: yaml.Node) -> tuple[Reservation, ...]:
    """Whom GPUs are kept for, how many, and when. Raises: Wrong."""
    items = read_items(node)
    if len(items) > MOST_RESERVATIONS:
        raise Wrong(f"must be at most {MOST_RESERVATIONS}")
    return tuple(_reservation(item) for item in items)


def _reservation(node: yaml.Node) -> Reservation:
    known: dict[str, Read] = {
        "for": read_name,
        "user": read_name,
        "gpus": whole(1, MOST_DEVICES),
        "profile": _read_profile,
        "when": _read_when,
        "lead": time_up_to(MOST_LEAD_SECONDS),
    }
    found = read_fields(node, known)
    if ("for" in found) == ("user" in found):
        raise Wrong("needs either for: a group, or user: a name")
    if "when" not in found:
        raise Wrong('needs when: "Tue 10:00-12:00"')
    return Reservation(
        group=found.get("for", ""),
        user=found.get("user", ""),
        gpus=found.get("gpus", 1),
        profile=found.get("profile", "full"),
        when=found["when"],
        lead_seconds=found.get("lead", 900),
    )


def _or_unlimited(read: Read) -> Read:
    def unlimited_or(node: yaml.Node) -> Any:
        return -1 if isinstance(node, yaml.ScalarNode) and node.value == "unlimited" else read(node)

    return unlimited_or


GPU_LIMITS: Mapping[str, tuple[str, Read]] = {
    "gpus_per_container": ("gpus_per_container", _or_unlimited(whole(0, MOST_DEVICES))),
    "gpu_equivalents": ("gpu_equivalents", _or_unlimited(_read_equivalents)),
    "gpu_time": ("gpu_seconds", _or_unlimited(_read_some_time)),
    "gpu_hold": ("gpu_hold_seconds", _or_unlimited(time_up_to(MOST_SECONDS))),
    "wait_most": ("wait_most_seconds", time_up_to(MOST_WAIT_SECONDS)),
}
GPU: Mapping[str, Read] = {
    "classes": _read_classes,
    "weight": whole(1, 1000),
    "priority": whole(0, 100),
    "time_over": _read_time_over,
}
GPU_OF_GROUP: Mapping[str, Read] = {
    **GPU,
    "group_gpus": whole(0, MOST_DEVICES),
    "group_equivalents": _read_equivalents,
}
