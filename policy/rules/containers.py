"""How many containers one user may have at once."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.counts import one_more
from policy.dockerapi.model import Operation

RULE_ID = "containers"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = True


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse at the limit."""
    yield from one_more(
        ask,
        rule=RULE_ID,
        used=ask.facts.usage.containers if ask.facts else None,
        limit=ask.grants.limits.containers,
        remedy="remove stopped ones with docker container prune",
    )
