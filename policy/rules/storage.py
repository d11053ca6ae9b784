"""Storage options are the engine's: a size asked for a container's own layer is left out."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, shown
from policy.model import Reason, SetField

RULE_ID = "storage"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """`size` fails on most drivers, so it is dropped and said; other options are refused."""
    asked = as_object(ask.host_config.get("StorageOpt"))
    for key in asked:
        if key != "size":
            yield Reason(
                rule=RULE_ID,
                field="HostConfig.StorageOpt",
                asked=shown(key),
                limit="size",
                next_step="leave out --storage-opt",
            )
    if asked:
        yield SetField(path=("HostConfig", "StorageOpt"), value=None, note="StorageOpt left out")
