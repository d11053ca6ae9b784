"""No privileged container and no privileged exec: both are root on the host."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_bool
from policy.model import Reason

RULE_ID = "privileged"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.CONTAINER_EXEC})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse Privileged, to admins as well."""
    if ask.request.operation is Operation.CONTAINER_CREATE:
        asked, field = ask.host_config.get("Privileged"), "HostConfig.Privileged"
    else:
        asked, field = ask.body.get("Privileged"), "Privileged"
    if as_bool(asked):
        yield Reason(
            rule=RULE_ID,
            field=field,
            asked="true",
            limit="false",
            next_step="leave out --privileged; for GPUs use --gpus, to reach Docker mount /var/run/docker.sock",
        )
