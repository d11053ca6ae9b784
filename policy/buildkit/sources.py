"""Images that a build must not read: a source policy of ds01's own, which BuildKit holds against every FROM and COPY --from.

SOURCE: moby/buildkit v0.25, sourcepolicy/engine.go: sources are named in full, `docker-image://docker.io/library/x:latest`.
Tried on engine 28.5: `FROM hidden` and `COPY --from=hidden` end in "denied by policy".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import IntEnum

from policy.rules.registry import HUB, registry_of

_SCHEME = "docker-image://"


class Match(IntEnum):
    """How a selector is held against a source."""

    WILDCARD = 0
    EXACT = 1
    REGEX = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Selector:
    """Sources that are denied."""

    identifier: str
    match: Match


def selectors(references: Iterable[str]) -> tuple[Selector, ...]:
    """What to deny, so that none of these tags and digests (as the engine lists them) can be read."""
    return tuple(dict.fromkeys(found for reference in references for found in _selectors(reference)))


def _selectors(reference: str) -> Iterator[Selector]:
    full = _SCHEME + _in_full(reference)
    name, at, digest = full.partition("@")
    if at:
        # The tag in `name:tag@digest` says nothing: the digest alone is looked up.
        yield Selector(identifier=f"{name}*@{digest}", match=Match.WILDCARD)
    else:
        yield Selector(identifier=full, match=Match.EXACT)
        yield Selector(identifier=f"{full}@*", match=Match.WILDCARD)


def _in_full(reference: str) -> str:
    """With the registry, and `library/` where Docker Hub's own images are left out of it."""
    if registry_of(reference) != HUB or reference.startswith(f"{HUB}/"):
        return reference
    return f"{HUB}/{reference}" if "/" in reference else f"{HUB}/library/{reference}"
