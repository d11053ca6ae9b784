"""Volumes are local folders of the engine, or tmpfs with a size: `local` with options is mount(2) as root."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown
from policy.model import Json, Reason

RULE_ID = "volume_options"
OPERATIONS = frozenset({Operation.VOLUME_CREATE})
NEEDS_FACTS = False

_TMPFS = re.compile(
    r"(size=[0-9]{1,12}[kmgKMG]?|mode=[01]?[0-7]{3}|[ug]id=[0-9]{1,10}|nosuid|nodev|noexec)", re.ASCII
)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse other drivers, mounts and swarm volumes."""
    body = ask.body
    if (driver := as_text(body.get("Driver"))) not in {"", "local"}:
        yield _refused(RULE_ID, "Driver", driver, "local", "leave out --driver")
    if as_object(body.get("ClusterVolumeSpec")):
        yield _refused(RULE_ID, "ClusterVolumeSpec", "a swarm volume", "none", "leave it out")
    yield from refused_options(as_object(body.get("DriverOpts")), "DriverOpts", RULE_ID)


def refused_options(options: Mapping[str, Json], field: str, rule: str) -> Iterable[Reason]:
    """What is wrong with options of the `local` driver: anything but none, or a tmpfs of a stated size."""
    if not options:
        return
    mount = [option for option in as_text(options.get("o")).split(",") if option]
    sized = any(option.startswith("size=") for option in mount)
    tmpfs = (as_text(options.get("type")), as_text(options.get("device"))) == ("tmpfs", "tmpfs")
    known = options.keys() <= {"type", "device", "o"}
    if not (known and tmpfs and sized and all(_TMPFS.fullmatch(option) for option in mount)):
        yield _refused(
            rule, field, shown(dict(options)), "none, or type=tmpfs device=tmpfs o=size=...", "leave it out"
        )


def _refused(rule: str, field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=rule, field=field, asked=shown(asked), limit=limit, next_step=next_step)
