"""What the Dockerfile frontend may be told: an allow-list, with what ds01 says itself put over it.

SOURCE: moby/buildkit v0.25, frontend/dockerui/config.go and context.go, frontend/dockerfile/builder/build.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

from policy.buildkit import names
from policy.buildkit.model import Builder, Entry, Solve
from policy.dockerapi.strict_json import parse
from policy.fields import shown
from policy.model import Reason
from policy.ownership import OWNER, is_reserved_label
from policy.rules.registry import is_listed, registry_of

RULE_ID = "buildkit"
DOCKERFILE = "dockerfile.v0"

# The frontend reads these; none of them reaches out of the build.
PLAIN = frozenset(
    {
        *("target", "filename", "platform", "multi-platform", "no-cache", "image-resolve-mode", "add-hosts"),
        *("hostname", "contextkey", "contextsubdir", "dockerfilekey", "frontend.caps", "requestid"),
    }
)
PLAIN_PREFIXES = ("build-arg:", "vcs:")
NETWORKS = frozenset({"", "default", "sandbox", "none"})
CONTEXTS = ("docker-image://", "local:", "oci-layout://")
# A tar on standard input: fetched through the session, at an address that no network has.
_UPLOAD = re.compile(r"http://buildkit-session/[A-Za-z0-9]{1,128}", re.ASCII)
DROPPED = frozenset(
    {"ulimit", "cgroup-parent", "cmdline", "build-arg:BUILDKIT_CACHE_MOUNT_NS"}
)  # said by ds01
_SIZE = re.compile(r"[0-9]{1,18}", re.ASCII)
_PASSWORD = re.compile(r"//[^/]*@")  # SECURITY: the refusal goes into the audit
MOST = 1000
MOST_CHARS = 512 * 1024

Found = tuple[str, str] | Reason


def shape(solve: Solve, builder: Builder) -> tuple[dict[str, str], tuple[Reason, ...]]:
    """The attributes as BuildKit gets them, and why not, if so.

    INVARIANT: `cgroup-parent` is the user's, and `cmdline` is there: with it dockerfile.v0 reads the file itself, whatever
    image `# syntax=` names. SECURITY: such an image writes raw LLB, which names any cgroup, network and cache.
    """
    written: dict[str, str] = {}
    reasons: list[Reason] = []
    if len(solve.frontend_attrs) > MOST or sum(map(len, solve.frontend_attrs.values())) > MOST_CHARS:
        reasons.append(refused("FrontendAttrs", "more", f"{MOST} of {MOST_CHARS} characters", "use a file"))
        return written, tuple(reasons)
    for key, value in solve.frontend_attrs.items():
        for found in _one(key, value, builder):
            if isinstance(found, Reason):
                reasons.append(found)
            else:
                written[found[0]] = found[1]
    uid = builder.actor.uid
    written |= {
        "cgroup-parent": builder.cgroup_parent,
        "cmdline": DOCKERFILE,
        "build-arg:BUILDKIT_CACHE_MOUNT_NS": names.cache_namespace(uid),
        f"label:{OWNER}": builder.actor.name,
        "shm-size": written.get("shm-size", str(builder.grants.limits.shm_bytes)),
    }
    return written, tuple(reasons)


def _one(key: str, value: str, builder: Builder) -> Iterator[Found]:
    if key in DROPPED:
        return
    if key == "build-arg:BUILDKIT_SYNTAX":
        yield refused(key, value, "the engine's own Dockerfile frontend", "leave BUILDKIT_SYNTAX out")
    elif key.startswith("label:"):
        if not is_reserved_label(key.removeprefix("label:")):
            yield key, value
    elif key.startswith("local-sessionid:"):
        yield from _session(key, value, builder)
    elif key.startswith("context:") or key == "context":
        yield from _context(key, value)
    elif key.startswith("attest:"):
        yield from _attestation(key, value)
    elif key in {"cache-from", "cache-imports"}:
        yield from _cache(key, value, builder)
    elif key == "force-network-mode":
        if value in NETWORKS:
            yield key, value
        else:
            yield refused(key, value, "default or none", "leave out --network")
    elif key == "shm-size":
        limit = builder.grants.limits.shm_bytes
        asked = int(value) if _SIZE.fullmatch(value) else 0
        yield key, str(asked if 0 < asked <= limit else limit)
    elif key in PLAIN or key.startswith(PLAIN_PREFIXES):
        yield key, value
    else:
        yield refused(key, value, "attributes that ds01 knows", "leave it out")


def _session(key: str, value: str, builder: Builder) -> Iterable[Found]:
    """SECURITY: BuildKit takes what stands behind a colon for the session's name, so a name holds none."""
    if names.is_name(value):
        yield key, names.own(builder.actor.uid, value)
    else:
        yield refused(key, value, "a session of your own", "update docker buildx")


def _context(key: str, value: str) -> Iterable[Found]:
    """A context is sent by the client. SECURITY: an address would be fetched by the engine, from inside the host's network."""
    if value.startswith(CONTEXTS) or _UPLOAD.fullmatch(value):
        yield key, value
    else:
        shown = _PASSWORD.sub("//", value)
        yield refused(
            key, shown, "files of your own machine or an image", "send the build context from your machine"
        )


def _attestation(key: str, value: str) -> Iterable[Found]:
    """Provenance is words. SECURITY: an SBOM is made by an image that runs outside of the user's cgroup."""
    if key == "attest:provenance" or "disabled=true" in value.split(","):
        yield key, value
    else:
        yield refused(key, value, "attest:provenance", "leave out --sbom and --attest")


def _cache(key: str, value: str, builder: Builder) -> Iterable[Found]:
    if not value:
        return
    entries = (
        tuple(Entry(type="registry", attrs={"ref": ref}) for ref in value.split(","))
        if key == "cache-from"
        else _entries(value)
    )
    reasons = tuple(cache_reasons(key, entries, builder))
    yield from reasons
    if not reasons and key == "cache-from":
        yield key, value
    elif not reasons:
        yield key, json.dumps([{"Type": one.type, "Attrs": dict(one.attrs)} for one in entries])


def _entries(text: str) -> tuple[Entry, ...]:
    """The JSON that buildx writes into `cache-imports`. Raises: MalformedRequest, TypeError: it is something else."""
    items = parse(text, what="cache-imports")
    if not isinstance(items, list):
        raise TypeError("cache-imports must be a list")
    found: list[Entry] = []
    for item in items:
        if not isinstance(item, dict) or set(item) - {"Type", "Attrs"}:
            raise TypeError("cache-imports must hold types and attributes")
        kind, attrs = item.get("Type"), item.get("Attrs") or {}
        if not isinstance(kind, str) or not isinstance(attrs, dict):
            raise TypeError("cache-imports must hold types and attributes")
        found.append(Entry(type=kind, attrs={str(key): str(value) for key, value in attrs.items()}))
    return tuple(found)


def cache_reasons(field: str, entries: Iterable[Entry], builder: Builder) -> Iterator[Reason]:
    """Why a cache may not be read or written there: kinds that the engine reaches with keys of its own are refused."""
    for entry in entries:
        if entry.type not in {"inline", "local", "registry"}:
            yield refused(field, entry.type, "inline, local or registry", "use type=local or type=registry")
        if entry.type == "registry":
            host = registry_of(entry.attrs.get("ref", ""))
            if not is_listed(host, builder.grants.registries):
                yield refused(
                    field,
                    host,
                    ", ".join(sorted(builder.grants.registries)) or "none",
                    "ask the admin to list the registry",
                )


def refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    """A reason of this rule."""
    return Reason(rule=RULE_ID, field=shown(field), asked=shown(asked), limit=limit, next_step=next_step)
