"""The messages of BuildKit that decide something, as values.

SOURCE: moby/buildkit v0.25, api/services/control/control.proto and frontend/gateway/pb/gateway.proto.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from policy.grants import Grants
from policy.model import Actor


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An exporter, or one place of a cache: a type and what is said of it."""

    type: str
    attrs: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Images:
    """The engine's images as one user's builds may name them; tags and digests as the engine lists them.

    local: the user's own local names inside dockerd, by the names the user knows.
    shared: others' local names that the user may read.
    hidden: what must not be read.
    """

    local: Mapping[str, str] = field(default_factory=dict)
    shared: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()


NO_IMAGES = Images()


@dataclass(frozen=True, slots=True, kw_only=True)
class Solve:
    """A build as it is asked for: `Control/Solve`, and `LLBBridge/Solve` inside of one.

    ref, session: names; empty in a bridge's solve, which belongs to the build its metadata names.
    frontend: empty in a `Control/Solve` whose client asks the bridge for the rest, as buildx does.
    images: what the build may read of the engine's; never read from a client's message.
    fetch_hosts: where the engine may fetch from for it (`policy.fetches`); never read from a client's message either.
    beyond: names of fields that hold a build graph, a source policy or anything ds01 does not write, where they hold something.
    """

    ref: str = ""
    session: str = ""
    frontend: str = ""
    frontend_attrs: Mapping[str, str] = field(default_factory=dict)
    exporters: tuple[Entry, ...] = ()
    cache_imports: tuple[Entry, ...] = ()
    cache_exports: tuple[Entry, ...] = ()
    entitlements: tuple[str, ...] = ()
    internal: bool = False
    images: Images = NO_IMAGES
    fetch_hosts: frozenset[str] = frozenset()
    beyond: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Builder:
    """Who builds, and within what."""

    actor: Actor
    grants: Grants
    cgroup_parent: str
