"""How many networks one user may have at once: each takes a range of addresses from a pool that all share."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.counts import one_more
from policy.dockerapi.model import Operation

RULE_ID = "networks"
OPERATIONS = frozenset({Operation.NETWORK_CREATE})
NEEDS_FACTS = True


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse at the limit."""
    yield from one_more(
        ask,
        rule=RULE_ID,
        used=ask.facts.usage.networks if ask.facts else None,
        limit=ask.grants.limits.networks,
        remedy="remove unused ones with docker network prune",
    )
