"""Containers run under runc, behind the guard where the engine has it; annotations, which steer runtimes, are refused."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown
from policy.model import GUARDED_RUNTIME, PLAIN_RUNTIME, Reason, SetField

RULE_ID = "runtime"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

GPU_RUNTIME = "nvidia"  # read as a wish by the gpu rule, never passed on


def decide(ask: Ask) -> Iterable[Finding]:
    """Always name the runtime: the engine's default is not ds01's to trust.

    SECURITY: plain runc, and a shim by its name, would start the container without asking the guard; whoever writes
    runc gets the guarded one, which is runc.
    """
    asked = as_text(ask.host_config.get("Runtime"))
    if asked not in {"", PLAIN_RUNTIME, GUARDED_RUNTIME, GPU_RUNTIME}:
        yield _refused("Runtime", asked, PLAIN_RUNTIME, "leave out --runtime")
    else:
        written = PLAIN_RUNTIME if ask.facts is None else ask.facts.engine.runtime
        yield SetField(path=("HostConfig", "Runtime"), value=written)
    if annotations := as_object(ask.host_config.get("Annotations")):
        # SECURITY: cdi.k8s.io/* asks for devices, org.systemd.property.* sets unit properties.
        yield _refused("Annotations", ", ".join(sorted(annotations)), "none", "leave out --annotation")


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
