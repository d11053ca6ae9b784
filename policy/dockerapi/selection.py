"""Which objects a prune selects by the filters `label`, `label!` and `until`, which dockerd's lists do not all know.

Source: Engine API, ContainerPrune, NetworkPrune, VolumePrune, ImagePrune; docker CLI reference, `docker system prune`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from policy.dockerapi.model import MalformedRequest

Filters = Mapping[str, Mapping[str, bool]]

KNOWN = frozenset({"label", "label!", "until"})
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(h|m|s|ms)")
_UNIT_SECONDS = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 0.001}
_FRACTION = re.compile(r"\.\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What the filters look at. `created_seconds` is UTC; None: unknown, and then no age selects it."""

    labels: Mapping[str, str]
    created_seconds: float | None


def select(filters: Filters, candidate: Candidate, *, now_seconds: float) -> bool:
    """Whether a prune with `filters` would take `candidate`. Raises: MalformedRequest: an `until` that is no time."""
    if not all(_has(candidate.labels, text) for text in filters.get("label", {})):
        return False
    if any(_has(candidate.labels, text) for text in filters.get("label!", {})):
        return False
    limits = [_until_seconds(text, now_seconds) for text in filters.get("until", {})]
    created = candidate.created_seconds
    return all(created is not None and created <= limit for limit in limits)


def _has(labels: Mapping[str, str], text: str) -> bool:
    key, equals, value = text.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _until_seconds(text: str, now_seconds: float) -> float:
    """A Go duration before now ("1h30m"), seconds since 1970, or a date and time."""
    parts = _DURATION.findall(text)
    if parts and "".join(number + unit for number, unit in parts) == text:
        return now_seconds - sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)
    if re.fullmatch(r"\d{1,12}(\.\d{1,9})?", text):
        return float(text)
    return moment(text)


def moment(text: str) -> float:
    """Seconds since 1970 of an RFC 3339 time, or of a date in UTC. Raises: MalformedRequest."""
    try:
        found = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    except ValueError as error:
        raise MalformedRequest(
            f"filter until={text[:64]} is no time; write one like 24h or 2026-01-02T15:04:05Z"
        ) from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
