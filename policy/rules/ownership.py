"""Every object a request names must be the actor's own, or shared and only read (containers: as far as the share goes)."""

from __future__ import annotations

from collections.abc import Iterable

from policy import image_names
from policy.ask import Ask, Finding, Missing
from policy.dockerapi.model import Operation
from policy.facts import needed
from policy.fields import shown
from policy.model import Kind, ObjectFact, Reason, Reference
from policy.sharing import permits

RULE_ID = "ownership"
OPERATIONS = frozenset(Operation) - {
    Operation.SYSTEM_PING,
    Operation.SYSTEM_PING_HEAD,
    Operation.SYSTEM_VERSION,
    Operation.SYSTEM_INFO,
    Operation.SYSTEM_AUTH,
}
NEEDS_FACTS = True

_REMOVING = frozenset({Operation.IMAGE_DELETE, Operation.NETWORK_DELETE, Operation.VOLUME_DELETE})
# A name given to something new, or used as a filter: nothing need be there.
_NAMING = frozenset(
    {
        Operation.VOLUME_CREATE,
        Operation.NETWORK_CREATE,
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
    if reference.kind is Kind.IMAGE and (reference.new or reference.literal):
        yield from _judge_new_tag(ask, reference, fact)
    elif fact is None:
        if not reference.new and operation not in _NAMING and not _may_be_absent(operation, reference):
            yield Missing(reference=reference)
    elif ask.grants.admin or _is_own(ask, fact) or permits(fact.share, operation):
        return
    elif not fact.shared:  # INVARIANT: another's object is answered like none (I4)
        if fact.kind is not Kind.IMAGE or not _may_be_absent(operation, reference):
            yield Missing(reference=reference)
    elif operation in _REMOVING or fact.kind in {Kind.CONTAINER, Kind.EXEC}:
        yield _refused(
            reference, "objects of your own", f"leave it; the {reference.kind} is shared by all users"
        )


def _is_own(ask: Ask, fact: ObjectFact) -> bool:
    """An own tag may be removed; what it names is read by whoever may read the image, which can end."""
    return fact.owner == ask.actor.uid and (
        fact.kind is not Kind.IMAGE or ask.request.operation in _REMOVING or fact.shared
    )


def _may_be_absent(operation: Operation, reference: Reference) -> bool:
    """What a call goes on without, or the proxy looks at more closely than a rule can.

    A create makes the volumes it names, a list has no containers of an image that is not there, and to save or push a name
    without a tag means every tag of it that is there to be seen. An image that is absent else is answered by dockerd's 404.
    """
    match reference.kind, operation:
        case Kind.VOLUME, Operation.CONTAINER_CREATE:
            return True
        case Kind.IMAGE, Operation.CONTAINER_LIST:
            return True
        case Kind.IMAGE, Operation.IMAGE_GET | Operation.IMAGE_GET_ALL | Operation.IMAGE_PUSH:
            return ":" not in reference.text.rpartition("/")[2]
    return False


def _judge_new_tag(ask: Ask, reference: Reference, fact: ObjectFact | None) -> Iterable[Finding]:
    """A tag may be made where none is, or moved by its owner; pulling what is nobody's again moves it for all alike.

    SECURITY: a name in ds01's own space is refused by `names` and `registry` alike whether it is there or not.
    """
    if fact is None or ask.grants.admin or fact.owner == ask.actor.uid:
        return
    if image_names.owner(image_names.familiar(reference.text)) is not None:
        return
    if not (reference.literal and fact.owner is None):
        yield _refused(reference, "free names and tags of your own", "choose another name for the image")


def _refused(reference: Reference, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=reference.kind, asked=shown(reference.text), limit=limit, next_step=next_step
    )
