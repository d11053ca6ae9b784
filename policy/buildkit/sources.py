"""Which images a build may read: a source policy of ds01's own, which BuildKit holds against every FROM and COPY --from.

A user's own local name is converted to the name inside dockerd; what is hidden is denied, and of the space of local names all
that is not the user's own or shared, whether it is there or not, so that nothing tells.

SOURCE: moby/buildkit v0.25, sourcepolicy/engine.go: sources are named in full, `docker-image://docker.io/library/x:latest`; a
rule that converts ends the walk, which begins anew with the new name; else the last rule that matches counts.
Tried on engine 28.5: `FROM hidden` and `COPY --from=hidden` end in "denied by policy".
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

from policy.buildkit.model import Images
from policy.image_names import HOST
from policy.rules.registry import HUB, registry_of

_SCHEME = "docker-image://"


class Match(IntEnum):
    """How a selector is held against a source."""

    WILDCARD = 0
    EXACT = 1
    REGEX = 2


class Action(IntEnum):
    """What becomes of a source."""

    ALLOW = 0
    DENY = 1
    CONVERT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """Sources, and what becomes of them; `converted` is the name instead."""

    action: Action
    identifier: str
    match: Match
    converted: str = ""


def rules(images: Images, *, fetching: bool = False) -> tuple[Rule, ...]:
    """The policy for one build. `fetching`: names mean what registries have (`--pull`), so own ones are not converted."""
    local = () if fetching else tuple(images.local.items())
    found = [
        # By wildcard, although the name holds none: an exact selector gives no new name (engine.go, Format).
        Rule(action=Action.CONVERT, identifier=_full(name), match=Match.WILDCARD, converted=_full(inside))
        for name, inside in local
    ]
    found.append(Rule(action=Action.DENY, identifier=f"{_SCHEME}{HOST}*", match=Match.WILDCARD))
    for reference in (*images.local.values(), *images.shared):
        found += _each(Action.ALLOW, reference)
    for reference in images.hidden:
        found += _each(Action.DENY, reference)
    return tuple(dict.fromkeys(found))


def _each(action: Action, reference: str) -> Iterator[Rule]:
    """The rules for one tag or digest, as the engine lists it."""
    full = _full(reference)
    name, at, digest = full.partition("@")
    if at:
        # The tag in `name:tag@digest` says nothing: the digest alone is looked up.
        yield Rule(action=action, identifier=f"{name}*@{digest}", match=Match.WILDCARD)
    else:
        yield Rule(action=action, identifier=full, match=Match.EXACT)
        yield Rule(action=action, identifier=f"{full}@*", match=Match.WILDCARD)


def _full(reference: str) -> str:
    """With the registry, and `library/` where Docker Hub's own images are left out of it."""
    if registry_of(reference) != HUB or reference.startswith(f"{HUB}/"):
        return _SCHEME + reference
    return _SCHEME + (f"{HUB}/{reference}" if "/" in reference else f"{HUB}/library/{reference}")
