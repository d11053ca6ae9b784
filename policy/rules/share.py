"""A shared container is its owner's: others may do with it what the share is good for, and nothing else.

Whom nothing is shared with is answered as for what is absent; that is the rule `ownership`.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.dockerapi.references import NAMING_CONTAINERS
from policy.fields import shown
from policy.model import Kind, ObjectFact, Reason, Reference, Share
from policy.sharing import NEEDS, permits

RULE_ID = "share"
OPERATIONS = NAMING_CONTAINERS
NEEDS_FACTS = True

_LIMITS = {
    Share.VIEW: "to view it: ps, inspect, stats, wait and events",
    Share.USE: "to use it: ps, inspect, stats, wait, events, logs, top, exec and stop",
}


def decide(ask: Ask) -> Iterable[Finding]:
    """One reason for each shared container that the request would do more with."""
    for reference, fact in ask.facts.objects.items() if ask.facts else ():
        if fact is None or fact.share is Share.NONE or ask.grants.admin or fact.owner == ask.actor.uid:
            continue
        if not permits(fact.share, ask.request.operation):
            yield _refused(reference, fact, ask.request.operation)


def _refused(reference: Reference, fact: ObjectFact, operation: Operation) -> Reason:
    by_more = operation in NEEDS
    return Reason(
        rule=RULE_ID,
        field=Kind.CONTAINER,
        asked=shown(reference.text),
        limit=_LIMITS[fact.share],
        next_step="ask its owner for ds01 share --use" if by_more else "ask its owner to do it",
    )
