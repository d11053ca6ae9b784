"""A decided request made unambiguous: every reference becomes the full id it was decided on.

A rename between check and use then changes nothing, and nobody's name can capture another's object.
"""

from __future__ import annotations

from policy.dockerapi.model import Request
from policy.dockerapi.references import NETWORK_WORDS, Place, walk
from policy.model import Facts, Kind, Reference


class UnboundReference(Exception):  # noqa: N818  reads as what happened, like MalformedRequest
    """A reference has no object behind it: a bug of the caller, who answers 404 before binding."""

    def __init__(self, reference: Reference) -> None:
        super().__init__(f"no fact about {reference.kind} {reference.text!r}")
        self.reference = reference


def bind(request: Request, facts: Facts) -> Request:
    """The request with full ids, and real names for volumes; images keep the client's text.

    Raises:
        UnboundReference: an object that must exist has no fact.
        MalformedRequest: two endpoints are the same network.
    """

    def name(place: Place) -> str:
        reference = place.reference
        if reference.kind is Kind.IMAGE:
            return reference.text  # clients compare it; the rules decided on the resolved id
        fact = facts.objects.get(reference)
        if fact is not None and fact.kind is Kind.NETWORK and fact.shared and fact.name in NETWORK_WORDS:
            # SECURITY: as the word that rules know, in the plugin as well: an id would hide that it is the host's.
            return fact.name
        if fact is not None:
            return fact.id
        if place.target:
            return reference.text  # a name that this call makes
        raise UnboundReference(reference)

    return walk(request, name)
