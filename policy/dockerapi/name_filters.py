"""Filters by name, which dockerd would match against the names inside dockerd.

`name` is a regular expression, so it is taken out of what dockerd is asked and matched here, on the names the user knows.
The filters that dockerd compares as text are asked for in both forms.
SOURCE: moby api/types/filters Args.Match, daemon/list.go, daemon/events/filter.go (20.10-28): RE2 syntax, matched anywhere;
a value that is the very name matches as well; of several values one is enough; what is no expression matches nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import re2

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest, Operation, Request
from policy.dockerapi.query import filters
from policy.image_names import prefix
from policy.model import Json, Uid
from policy.names import real
from policy.paths import clean_path
from policy.stand_ins import StandIn, StandIns

# SECURITY: RE2 needs time linear in expression times name, never more; both are the user's own, so the product is bounded.
_OPTIONS = re2.Options()
_OPTIONS.max_mem = 256 * 1024
_OPTIONS.log_errors = False
_MOST_VALUES = 32
_MOST_CHARACTERS = 1024
_MOST_STEPS = 10_000_000  # a quarter of a second at worst, and 50,000 names of 20 characters for `^web$`

_BY_EXPRESSION = frozenset({Operation.CONTAINER_LIST, Operation.NETWORK_LIST, Operation.VOLUME_LIST})
_BY_TEXT = {
    Operation.CONTAINER_LIST: frozenset({"network", "volume"}),
    Operation.SYSTEM_EVENTS: frozenset({"container", "network", "volume"}),
}
# Of images; a pattern's `*` does not go beyond a slash. SOURCE: moby reference.FamiliarMatch, path.Match.
_IMAGES = {Operation.IMAGE_LIST: "reference", Operation.SYSTEM_EVENTS: "image"}
_FILTER_UNTIL = (1, 40)  # the query key of its own that was `reference` once


class NameFilter:
    """The `name` filter of one list; without values it lets every name through."""

    __slots__ = ("_expressions", "_size", "_steps", "_texts")

    def __init__(self, values: Iterable[str] = ()) -> None:
        """Raises: MalformedRequest: more than one list may ask for."""
        self._texts = frozenset(values)
        if len(self._texts) > _MOST_VALUES or sum(map(len, self._texts)) > _MOST_CHARACTERS:
            raise MalformedRequest(
                f"filter name has over {_MOST_VALUES} values or {_MOST_CHARACTERS} characters"
            )
        self._expressions = [found for text in self._texts if (found := _compiled(text)) is not None]
        self._size = sum(expression.programsize for expression in self._expressions)
        self._steps = 0

    def matches(self, name: str) -> bool:
        """Whether a name, as the user knows it, is asked for. Raises: MalformedRequest: too much work."""
        if not self._texts or name in self._texts:
            return True
        self._steps += self._size * len(name)
        if self._steps > _MOST_STEPS:
            raise MalformedRequest(
                "filter name is too costly an expression for this list; write a plainer one"
            )
        return any(expression.search(name) for expression in self._expressions)


EVERY_NAME = NameFilter()


def _compiled(text: str) -> re2._Regexp | None:
    """The expression; None for what is none, which dockerd lets match nothing."""
    try:
        return re2.compile(text, options=_OPTIONS)
    except re2.error as error:
        if b"too large" in error.args[0]:
            raise MalformedRequest("filter name is too large an expression") from error
        return None


def name_filter(request: Request) -> NameFilter:
    """What a list is to be filtered by after it came."""
    if request.operation not in _BY_EXPRESSION or not request.query.get("filters"):
        return EVERY_NAME
    values = filters(request).get("name", ())
    return NameFilter(values) if values else EVERY_NAME


def for_engine(request: Request, uid: Uid, stand_ins: StandIns | None = None) -> Request:
    """The list or event stream as dockerd is asked for it: without `name`, other names in all their forms."""
    if not request.query.keys() & {"filters", "filter"}:
        return request
    given = _filters(request)
    both = _BY_TEXT.get(request.operation, frozenset()) & given.keys()
    images = _IMAGES.get(request.operation)
    dropped = {"name"} & given.keys() if request.operation in _BY_EXPRESSION else frozenset()
    if not both and not dropped and images not in given:
        return request
    written: dict[str, Json] = {}
    for key, values in given.items():
        if key in both:
            written[key] = dict.fromkeys(sorted(_forms(values, uid, stand_ins)), True)
        elif key == images:
            written[key] = dict.fromkeys(
                sorted({*values, *(_own_image(uid, value) for value in values)}), True
            )
        elif key not in dropped:
            written[key] = dict.fromkeys(sorted(values), True)
    query = {key: values for key, values in request.query.items() if key not in {"filters", "filter"}}
    return replace(request, query={**query, "filters": (strict_json.write(written),)} if written else query)


def _forms(values: Iterable[str], uid: Uid, stand_ins: StandIns | None) -> set[str]:
    """What the user may mean: the word as it is, in the user's namespace, and, for a host path, its stand-ins."""
    found = {form for value in values for form in (value, real(uid, value))}
    if stand_ins is not None:
        found |= {
            stand_ins.path(StandIn(source=path, uid=uid, read_only=read_only))
            for value in values
            for read_only in (True, False)
            if (path := clean_path(value)) is not None
        }
    return found


def _filters(request: Request) -> dict[str, tuple[str, ...]]:
    """All filters, with the old key for images among them where the engine counts it."""
    given = dict(filters(request))
    old = request.query.get("filter", ()) if request.version <= _FILTER_UNTIL else ()
    if old:
        given["reference"] = tuple({*given.get("reference", ()), *old})
    return given


def _own_image(uid: Uid, pattern: str) -> str:
    """The same name or pattern for own local images."""
    return pattern if "/" in pattern else f"{prefix(uid)}{pattern}"
