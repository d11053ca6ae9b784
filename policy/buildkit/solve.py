"""Whether a build may run, and how it is written for BuildKit.

One build is asked for in two messages by buildx (`Control/Solve`, then `LLBBridge/Solve` with the Dockerfile frontend) and in
one by others; both are decided here, and each is written afresh from what is returned.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace

from policy import image_names
from policy.buildkit import attrs, names
from policy.buildkit.attrs import DOCKERFILE, refused
from policy.buildkit.model import Builder, Entry, Solve
from policy.dockerapi.model import MalformedRequest
from policy.model import Reason, Uid

EXPORTERS = frozenset({"moby", "image", "docker", "oci", "tar", "local", "cacheonly"})
STORING = frozenset({"moby", "image"})
# Nothing here makes the engine talk to a registry or take a name that was not looked at.
EXPORTER_ATTRS = frozenset(
    {
        *(
            "name",
            "compression",
            "compression-level",
            "force-compression",
            "oci-mediatypes",
            "unpack",
            "store",
        ),
        *("dest", "tar", "platform-split", "mode", "rewrite-timestamp", "source-date-epoch", "buildinfo"),
        *(
            "buildinfo-attrs",
            "attestation-prefix",
            "attestation-inline",
            "prefer-image-digest",
            "context",
            "load",
        ),
    }
)
EXPORTER_PREFIXES = ("annotation.", "annotation-")
_GRAPH = "a Dockerfile, read by dockerfile.v0"

Shaped = Solve | tuple[Reason, ...]


def shape(solve: Solve, builder: Builder) -> Shaped:
    """A `Control/Solve` as BuildKit may see it, or why not."""
    reasons = [*_refusals(solve, builder)]
    written = solve
    if solve.frontend or solve.frontend_attrs:  # without a frontend the attributes are for the history alone
        attributed = _with_attrs(solve, builder, frontends=("", DOCKERFILE))
        if isinstance(attributed, Solve):
            written = attributed
        else:
            reasons += attributed
    if not names.is_name(solve.ref):
        reasons.append(refused("Ref", solve.ref, "letters and digits", "update docker buildx"))
    if solve.session and not names.is_name(solve.session):
        reasons.append(refused("Session", solve.session, "letters and digits", "update docker buildx"))
    if reasons:
        return tuple(reasons)
    uid = builder.actor.uid
    session = names.own(uid, solve.session) if solve.session else ""
    exporters = (
        solve.exporters if builder.grants.admin else tuple(_named(one, uid) for one in solve.exporters)
    )
    return replace(
        written,
        ref=names.own(uid, solve.ref),
        session=session,
        exporters=exporters,
        fetch_hosts=builder.grants.fetch_hosts,
    )


def _named(entry: Entry, uid: Uid) -> Entry:
    """What writes into the engine's store, with local names as they are inside dockerd."""
    if entry.type not in STORING or "name" not in entry.attrs:
        return entry
    listed = ",".join(image_names.real(uid, name) for name in entry.attrs["name"].split(","))
    return replace(entry, attrs={**entry.attrs, "name": listed})


def shape_bridge(solve: Solve, builder: Builder) -> Shaped:
    """A `LLBBridge/Solve` as BuildKit may see it, or why not: the Dockerfile frontend, and no graph of the client's."""
    reasons = [*_refusals(solve, builder)]
    inside = replace(solve, ref="", session="", exporters=())  # those of the build it belongs to
    written = _with_attrs(inside, builder, frontends=(DOCKERFILE,))
    if not isinstance(written, Solve):
        reasons += written
        return tuple(reasons)
    return tuple(reasons) if reasons else replace(written, fetch_hosts=builder.grants.fetch_hosts)


def tags(solve: Solve) -> tuple[str, ...]:
    """Every image name that the build would write into the engine's store, as the client wrote it; other exporters write
    to the client.
    """
    writing = (entry for entry in solve.exporters if entry.type in STORING)
    found = (entry.attrs.get("name", "").split(",") for entry in writing)
    return tuple(dict.fromkeys(tag for listed in found for tag in listed if tag))


def _with_attrs(solve: Solve, builder: Builder, *, frontends: tuple[str, ...]) -> Shaped:
    if solve.frontend not in frontends:
        asked = solve.frontend or "raw LLB"
        # SECURITY: LLB and foreign frontends name any cgroup, network, cache and session.
        return (refused("Frontend", asked, _GRAPH, "build from a Dockerfile, and leave out BUILDKIT_SYNTAX"),)
    try:
        written, reasons = attrs.shape(solve, builder)
    except (MalformedRequest, TypeError) as error:
        return (refused("FrontendAttrs", str(error), "what docker buildx writes", "update docker buildx"),)
    return reasons or replace(solve, frontend_attrs=written)


def _refusals(solve: Solve, builder: Builder) -> Iterator[Reason]:
    for field in solve.beyond:
        yield refused(field, "something", _GRAPH, "build from a Dockerfile with docker buildx build")
    for entitlement in solve.entitlements:
        yield refused("Entitlements", entitlement, "none", "leave out --allow")
    yield from attrs.cache_reasons("Cache.Imports", solve.cache_imports, builder)
    yield from attrs.cache_reasons("Cache.Exports", solve.cache_exports, builder)
    for entry in solve.exporters:
        yield from _exporter(entry)


def _exporter(entry: Entry) -> Iterator[Reason]:
    if entry.type not in EXPORTERS:
        yield refused(
            "Exporters", entry.type, ", ".join(sorted(EXPORTERS)), "use --load or --output type=local"
        )
    for key, value in entry.attrs.items():
        if key in {"push", "push-by-digest", "registry.insecure"} and value.lower() in {"", "false", "0"}:
            continue
        if key.startswith("push"):
            yield refused(
                f"Exporters.{key}", value, "images of this server", "build with --load, then docker push"
            )
        elif key not in EXPORTER_ATTRS and not key.startswith(EXPORTER_PREFIXES):
            yield refused(f"Exporters.{key}", value, "attributes that ds01 knows", "leave it out")


def exporter_attrs(entry: Entry) -> Mapping[str, str]:
    """The attributes that are written: without the words that say no."""
    return {
        key: value
        for key, value in entry.attrs.items()
        if key in EXPORTER_ATTRS or key.startswith(EXPORTER_PREFIXES)
    }
