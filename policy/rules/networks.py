"""How many networks one user may have at once: each takes a range of addresses from a pool that all share."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.model import Reason

RULE_ID = "networks"
OPERATIONS = frozenset({Operation.NETWORK_CREATE})
NEEDS_FACTS = True


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse at the limit; unknown usage is not zero, so it refuses as well."""
    used = ask.facts.usage.networks if ask.facts else None
    limit = ask.grants.limits.networks
    if used is None or used >= limit:
        yield Reason(
            rule=RULE_ID,
            field="networks",
            asked=f"one more than {'an unknown number' if used is None else used}",
            limit=f"{limit} for {ask.grants.label}",
            next_step="remove unused ones with docker network prune"
            if used is not None
            else "try again soon",
        )
