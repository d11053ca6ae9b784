"""Host devices come from a literal list; GPUs come with a lease and never by path."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_list, as_object, as_text, shown
from policy.gpus import is_gpu_node
from policy.model import Json, Reason, SetField
from policy.paths import clean_path

RULE_ID = "devices"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Compare PathOnHost with the list, letter by letter: dockerd follows symlinks and expands folders."""
    host = ask.host_config
    asked = as_list(host.get("Devices"))
    kept: list[Json] = []
    for item in asked:
        path = as_text(as_object(item).get("PathOnHost"))
        if is_gpu_node(path) and clean_path(path) == path:
            continue  # the gpu rule reads it as a wish
        kept.append(item)
        if path not in ask.grants.devices:
            listed = ", ".join(sorted(ask.grants.devices)) or "no device"
            yield _refused("Devices", path, listed, "leave out --device, or use --gpus for GPUs")
    if len(kept) < len(asked):
        yield SetField(path=("HostConfig", "Devices"), value=kept)
    if as_list(host.get("DeviceCgroupRules")):
        # SECURITY: with a node made on a bind mount, a rule opens any device.
        yield _refused("DeviceCgroupRules", shown(host["DeviceCgroupRules"]), "none", "leave it out")


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
