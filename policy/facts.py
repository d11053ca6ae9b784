"""Which facts a request needs before it can be decided."""

from __future__ import annotations

from policy.dockerapi.model import Request
from policy.dockerapi.references import Place, walk
from policy.model import Reference


def needed(request: Request) -> tuple[Reference, ...]:
    """Every object the request names, in path, query and body: each once, in the order they stand.

    Names that the call would make or move (tags of a build, the name of a new volume) are among them, since
    they may be somebody's already. Filters are not references, since their answers are filtered; but for
    `before` and `since`, which dockerd looks up.
    """
    found: dict[Reference, None] = {}

    def note(place: Place) -> str:
        found[place.reference] = None
        return place.reference.text

    walk(request, note)
    return tuple(found)
