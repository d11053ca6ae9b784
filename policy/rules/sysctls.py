"""Kernel parameters: those policy lists, and a few that touch nothing but the container."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, shown
from policy.model import Reason

RULE_ID = "sysctls"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

HARMLESS = frozenset(
    {"net.core.somaxconn", "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ping_group_range"}
)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse every other name."""
    for name in as_object(ask.host_config.get("Sysctls")):
        if name not in listed(ask):
            yield Reason(
                rule=RULE_ID,
                field="HostConfig.Sysctls",
                asked=shown(name),
                limit=", ".join(sorted(listed(ask))),
                next_step="leave out --sysctl",
            )


def listed(ask: Ask) -> frozenset[str]:
    """The names this actor may set."""
    return HARMLESS | ask.grants.sysctls
