"""Which calls a role may make at all. The only rule that permits; without it there is silence, and silence denies."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding, Permit
from policy.dockerapi.model import Operation
from policy.grants import Role
from policy.model import Reason

RULE_ID = "operation"
OPERATIONS = frozenset(Operation)
NEEDS_FACTS = False

ADMIN_ONLY = frozenset(
    {
        Operation.DEBUG,
        Operation.GET_PLUGIN_PRIVILEGES,
        Operation.PLUGIN_PULL,
        Operation.PLUGIN_CREATE,
        Operation.PLUGIN_INSPECT,
        Operation.PLUGIN_ENABLE,
        Operation.PLUGIN_DISABLE,
        Operation.PLUGIN_SET,
        Operation.PLUGIN_UPGRADE,
        Operation.PLUGIN_PUSH,
        Operation.PLUGIN_DELETE,
    }
)
NOBODY = frozenset({Operation.SWARM_READ, Operation.SWARM_WRITE, Operation.CHECKPOINT})
EVERY_USER = frozenset(Operation) - ADMIN_ONLY - NOBODY


def decide(ask: Ask) -> Iterable[Finding]:
    """Permit, or say why not."""
    operation, role = ask.request.operation, ask.grants.role
    if role is Role.NONE:
        yield _refused(
            operation, "calls of users in the policy", "ask the admin to add your account to a group"
        )
    elif operation in NOBODY:
        yield _refused(
            operation, "a single node without swarm", "use docker compose, which works without swarm"
        )
    elif operation in EVERY_USER or role is Role.ADMIN:
        yield Permit()
    else:
        yield _refused(operation, "admins", "ask the admin to do it")


def _refused(operation: Operation, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=operation, asked="this call", limit=limit, next_step=next_step)
