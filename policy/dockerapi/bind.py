"""A decided request made unambiguous: every reference becomes the full id it was decided on.

A rename between check and use then changes nothing, and nobody's name can capture another's object. New names go into
the actor's namespace (`policy.names`, `policy.image_names`).
"""

from __future__ import annotations

from policy import image_names
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.references import NETWORK_WORDS, Place, walk
from policy.model import Facts, Kind, ObjectFact, Reference, Uid
from policy.names import owner, real


class UnboundReference(Exception):  # noqa: N818  reads as what happened, like MalformedRequest
    """A reference has no object behind it: a bug of the caller, who answers 404 before binding."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"no fact about {reference.kind} {reference.text!r}")
        self.reference = reference


def bind(request: Request, facts: Facts, *, uid: Uid, everything: bool = False) -> Request:
    """The request with full ids, and names inside dockerd for images, volumes and for what is made.

    Args:
        uid: the actor, in whose namespace new names are.
        everything: an admin, whose images are for all and go by the names inside dockerd.

    Raises:
        UnboundReference: an object that must exist has no fact.
        MalformedRequest: two endpoints are the same network.
    """

    def name(place: Place) -> str:
        reference = place.reference
        fact = facts.objects.get(reference)
        if reference.kind is Kind.IMAGE:  # by name: clients compare it; the rules decided on the resolved id
            if reference.new and not everything:
                return image_names.real(uid, reference.text)
            return fact.name if fact is not None and fact.name and not reference.literal else reference.text
        if reference.new and (fact is None or reference.kind is not Kind.VOLUME):
            return _new_name(request, facts, reference.text, uid)
        if fact is None:
            raise UnboundReference(reference)
        if place.in_dns and fact.name:
            return fact.name
        if fact.kind is Kind.NETWORK and fact.shared and fact.name in NETWORK_WORDS:
            # SECURITY: as the word that rules know, in the plugin as well: an id would hide that it is the host's.
            return fact.name
        return fact.id

    return walk(request, name)


def _new_name(request: Request, facts: Facts, text: str, uid: Uid) -> str:
    """The name inside dockerd: in the actor's namespace, or that of the container which an admin renames."""
    renamed = _renamed(request, facts)
    if renamed is None or renamed.owner == uid:
        return real(uid, text)
    if renamed.owner is None or owner(text) == renamed.owner:
        return text
    return real(renamed.owner, text)


def _renamed(request: Request, facts: Facts) -> ObjectFact | None:
    if request.operation is not Operation.CONTAINER_RENAME:
        return None
    return facts.objects.get(Reference(kind=Kind.CONTAINER, text=request.params["container"]))


def taken(request: Request, facts: Facts, *, uid: Uid) -> ObjectFact | None:
    """The actor's own container or network that has the new name under another real name, where dockerd sees no conflict.

    Such are those that dockerd named itself, and those from before names were per user.
    """
    renamed = _renamed(request, facts)
    if renamed is not None and renamed.owner != uid:
        return None  # an admin's own names do not matter there
    for reference, fact in facts.objects.items():
        if reference.new and reference.kind in {Kind.CONTAINER, Kind.NETWORK} and fact is not None:
            return None if fact.name == real(uid, reference.text) else fact
    return None
