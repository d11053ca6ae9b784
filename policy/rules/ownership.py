"""Every object a request names must be the actor's own, or shared and only read."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding, Missing
from policy.dockerapi.model import Operation
from policy.facts import needed
from policy.model import Kind, ObjectFact, Reason, Reference

RULE_ID = "ownership"
OPERATIONS = frozenset(Operation) - {
    Operation.SYSTEM_PING,
    Operation.SYSTEM_PING_HEAD,
    Operation.SYSTEM_VERSION,
    Operation.SYSTEM_INFO,
    Operation.SYSTEM_AUTH,
}
NEEDS_FACTS = True

# Operations that write an image name: it need not exist, and must not be another's.
_TAGGING = frozenset(
    {
        Operation.IMAGE_CREATE,
        Operation.IMAGE_TAG,
        Operation.IMAGE_BUILD,
        Operation.IMAGE_COMMIT,
    }
)
_REMOVING = frozenset({Operation.IMAGE_DELETE, Operation.NETWORK_DELETE, Operation.VOLUME_DELETE})
# A name given to something new, or used as a filter: nothing need be there.
_NAMING = frozenset(
    {
        Operation.VOLUME_CREATE,
        Operation.NETWORK_CREATE,
        Operation.IMAGE_LIST,
        Operation.NETWORK_LIST,
        Operation.VOLUME_LIST,
        Operation.SYSTEM_EVENTS,
        Operation.DISTRIBUTION_INSPECT,
    }
)


def decide(ask: Ask) -> Iterable[Finding]:
    """One finding for each reference that is not the actor's to use so."""
    if ask.facts is None:
        raise ValueError("ownership cannot be judged without facts")
    objects = ask.facts.objects
    if ask.request.operation is Operation.IMAGE_GET_ALL and not ask.request.query.get("names"):
        yield Reason(
            rule=RULE_ID, field="names", asked="all", limit="named images", next_step="name the images"
        )
    for reference in needed(ask.request):
        if reference not in objects:  # SECURITY: a fact nobody fetched counts as absent
            yield from _judge(ask, reference, None)
    for reference, fact in objects.items():
        yield from _judge(ask, reference, fact)


def _judge(ask: Ask, reference: Reference, fact: ObjectFact | None) -> Iterable[Finding]:
    operation = ask.request.operation
    if reference.kind is Kind.IMAGE and operation in _TAGGING and not _is_source(ask, reference):
        yield from _judge_new_tag(ask, reference, fact)
    elif fact is None:
        if not reference.new and operation not in _NAMING and not _may_be_absent(operation, reference):
            yield Missing(reference=reference)
    elif ask.grants.admin or fact.owner == ask.actor.uid:
        return
    elif not _is_readable(fact):  # INVARIANT: another's object is answered like none (I4)
        yield Missing(reference=reference)
    elif operation in _REMOVING or fact.kind in {Kind.CONTAINER, Kind.EXEC}:
        yield _refused(
            reference, "objects of your own", f"leave it; the {reference.kind} is shared by all users"
        )


def _is_source(ask: Ask, reference: Reference) -> bool:
    """Whether the image is read rather than named anew (docker tag SOURCE TARGET)."""
    return ask.request.operation is Operation.IMAGE_TAG and ask.request.params.get("image") == reference.text


def _may_be_absent(operation: Operation, reference: Reference) -> bool:
    """A create makes the volumes it names; an image that is absent is answered like dockerd does, by a 404."""
    return operation is Operation.CONTAINER_CREATE and reference.kind is Kind.VOLUME


def _judge_new_tag(ask: Ask, reference: Reference, fact: ObjectFact | None) -> Iterable[Finding]:
    """A tag may be made where none is, or moved by its owner; pulling what is nobody's again moves it for all alike."""
    if fact is None or ask.grants.admin or fact.owner == ask.actor.uid:
        return
    pulling = ask.request.operation is Operation.IMAGE_CREATE and not ask.request.query.get("fromSrc")
    if not (pulling and fact.owner is None):
        yield _refused(reference, "free names and tags of your own", "choose another name for the image")


def _is_readable(fact: ObjectFact) -> bool:
    return fact.shared or (fact.kind is Kind.IMAGE and fact.owner is None)


def _refused(reference: Reference, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=reference.kind, asked=reference.text, limit=limit, next_step=next_step)
