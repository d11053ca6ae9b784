"""What policy says of GPU processes where they should not be: outside every container, or on a device that their container
does not lease. `gpu:` of policy.yaml.

Owns the values and how they are read; `allocator.host_rules` decides by them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from enum import StrEnum

import yaml

from policy.document_values import Read, Wrong, read_choice, read_duration, read_fields, read_items, read_name


class HostRule(StrEnum):
    """What becomes of a process on a GPU, ordered from less to more; each does what is before it."""

    REPORT = "report"
    WARN = "warn"
    STOP = "stop"  # after a warning and the grace


@dataclass(frozen=True, slots=True, kw_only=True)
class Exemption:
    """A user whose host processes are let be until a time. until: seconds since 1970, UTC; exclusive."""

    user: str
    until: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProcesses:
    """What `gpu:` says, with what holds where it is silent. grace_seconds: from the warning to SIGTERM.

    host_processes: of people, outside containers. unleased: in a container that ds01 made, on a device without a lease of it.
    """

    host_processes: HostRule = HostRule.REPORT
    unleased: HostRule = HostRule.REPORT
    grace_seconds: int = 600
    exempt: tuple[Exemption, ...] = ()

    def exemption(self, user: str, *, now: float) -> Exemption | None:
        """The exemption of a user that holds at `now` (seconds since 1970) and lasts longest."""
        holding = [one for one in self.exempt if one.user == user and now < one.until]
        return max(holding, key=lambda one: one.until, default=None)


def _read_rule(node: yaml.Node) -> HostRule:
    return read_choice(node, HostRule)


def _read_exempt(node: yaml.Node) -> tuple[Exemption, ...]:
    return tuple(_exemption(item) for item in read_items(node))


def _exemption(node: yaml.Node) -> Exemption:
    found = read_fields(node, {"user": read_name, "until": _read_until, "reason": read_name})
    missing = [name for name in ("user", "until", "reason") if name not in found]
    if missing:
        raise Wrong(f"{missing[0]} is missing; write {{user: alice, until: 2027-01-31, reason: why}}")
    return Exemption(user=found["user"], until=found["until"], reason=found["reason"])


def _read_until(node: yaml.Node) -> int:
    """A day, which counts in full, or a time; both in UTC unless the time has an offset."""
    text = str(node.value) if isinstance(node, yaml.ScalarNode) else ""
    try:
        parsed = datetime.fromisoformat(text)
    except ValueError:
        raise Wrong("must be a day or a time in UTC, like 2027-01-31 or 2027-01-31T18:00Z") from None
    if len(text) == len("2027-01-31"):
        parsed = datetime.combine(parsed.date(), time()) + timedelta(days=1)
    moment = parsed if parsed.tzinfo is not None else parsed.replace(tzinfo=UTC)
    return max(0, int(moment.timestamp()))


KEYS: Mapping[str, Read] = {
    "host_processes": _read_rule,
    "unleased": _read_rule,
    "grace": read_duration,
    "exempt": _read_exempt,
}
FIELDS: Mapping[str, str] = {"grace": "grace_seconds"}  # where a field has another name than its key
