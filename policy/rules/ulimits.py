"""Resource limits of processes: known ones, within policy."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_int, as_list, as_object, as_text, shown
from policy.model import Json, Reason, SetField

RULE_ID = "ulimits"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

FREE = frozenset({"core", "stack", "fsize", "data", "as", "cpu", "rss", "locks", "sigpending", "msgqueue"})
PATH = ("HostConfig", "Ulimits")


def decide(ask: Ask) -> Iterable[Finding]:
    """Lower nofile, nproc and memlock to their limits; refuse scheduling priorities and unknown names."""
    asked = [as_object(item) for item in as_list(ask.host_config.get("Ulimits"))]
    most = {
        "nofile": ask.grants.limits.nofile,
        "nproc": ask.grants.limits.pids,
        "memlock": ask.grants.limits.memlock_bytes,
    }
    for item in asked:
        if (name := as_text(item.get("Name"))) not in FREE | most.keys():
            yield Reason(
                rule=RULE_ID,
                field=".".join(PATH),
                asked=shown(name),
                limit="nofile, nproc, memlock, core, stack and other sizes",
                next_step="leave out --ulimit",
            )
    bounded: list[Json] = [_bounded(item, most) for item in asked]
    if bounded != asked:
        yield SetField(path=PATH, value=bounded, note=f"Ulimits lowered to the limits of {ask.grants.label}")


def _bounded(item: Mapping[str, Json], most: Mapping[str, int]) -> dict[str, Json]:
    limit = most.get(as_text(item.get("Name")), -1)
    if limit == -1:
        return dict(item)
    # -1 asks for no limit at all; an absent side is 0, as in the engine.
    asked = {side: as_int(item[side]) for side in ("Soft", "Hard") if side in item}
    return {**item, **{side: min(value, limit) if value >= 0 else limit for side, value in asked.items()}}
