"""How many containers one user may have at once."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.model import Reason

RULE_ID = "containers"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = True


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse at the limit; unknown usage is not zero, so it refuses as well."""
    used = ask.facts.usage.containers if ask.facts else None
    limit = ask.grants.limits.containers
    if used is None or used >= limit:
        yield Reason(
            rule=RULE_ID,
            field="containers",
            asked=f"one more than {'an unknown number' if used is None else used}",
            limit=f"{limit} for {ask.grants.label}",
            next_step="remove stopped ones with docker container prune"
            if used is not None
            else "try again soon",
        )
