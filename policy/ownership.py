"""Label names, what is sealed, and the cgroup parent of a uid. Signing lives in the proxy."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from policy.model import Actor, LeaseId, RequestId, Uid
from policy.names import owner, real

OWNER = "ds01.owner"
UID = "ds01.uid"
GROUP = "ds01.group"
LEASE = "ds01.lease"
CREATED_BY = "ds01.created-by"
SEAL = "ds01.seal"
CHANGED = "ds01.changed"  # on a container: what ds01 made of the create, for people
USER = "ds01.user"  # the last three: written and read for tools that predate ds01
MANAGED = "ds01.managed"
INTERFACE = "ds01.interface"

SEALED: tuple[str, ...] = (OWNER, UID, GROUP, LEASE, CREATED_BY)
LABELS: tuple[str, ...] = (*SEALED, SEAL, CHANGED, USER, MANAGED, INTERFACE)
DOMAIN = b"ds01-seal-v1"

_CHANGED_CHARACTERS = 2000
_RESERVED = "ds01."
_SEAL = re.compile(r"v1\.([0-9a-f]{32})\.([0-9a-f]{128})", re.ASCII)


def is_reserved_label(key: str) -> bool:
    """Whether a label key is, or could be taken for, one of ds01's.

    SECURITY: folded, since readers downstream may ignore case; dockerd's folding knows U+017F for s.
    """
    return key.strip().casefold().startswith(_RESERVED)


def labels(actor: Actor, lease: LeaseId | None, request_id: RequestId, *, group: str = "") -> dict[str, str]:
    """Every ds01 label but the seal.

    All of them are always set, empty ones too: what a request leaves out, dockerd takes from the image.
    """
    return {
        OWNER: actor.name,
        UID: str(actor.uid),
        GROUP: group,
        LEASE: lease or "",
        CREATED_BY: request_id,
        CHANGED: "",
        USER: actor.name,
        MANAGED: "true",
        INTERFACE: "docker",
    }


def changed_label(notes: Sequence[str]) -> dict[str, str]:
    """The label that says what was changed; empty without notes, so that no image can put words there."""
    return {CHANGED: "; ".join(notes)[:_CHANGED_CHARACTERS]}


def seal_message(labels: Mapping[str, str], nonce: str) -> bytes:
    """The bytes that a seal signs: the domain, then every part with its length before it.

    INVARIANT: two different (labels, nonce) never give the same bytes.
    Raises: KeyError: one of SEALED is missing.
    """
    parts = [nonce, *(labels[name] for name in SEALED)]
    encoded = [part.encode("utf-8", "surrogatepass") for part in parts]
    return DOMAIN + b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def format_seal(nonce: str, signature: bytes) -> str:
    """The seal label's text. `nonce` is 32 lower-case hex digits, `signature` 64 bytes (Ed25519)."""
    text = f"v1.{nonce}.{signature.hex()}"
    if not _SEAL.fullmatch(text):
        raise ValueError("nonce or signature of the wrong form")
    return text


def parse_seal(text: str) -> tuple[str, bytes] | None:
    """Nonce and signature, or None if the text is no seal."""
    found = _SEAL.fullmatch(text)
    return (found[1], bytes.fromhex(found[2])) if found else None


def default_network(uid: Uid) -> str:
    """The name inside dockerd of the bridge that a user's containers are on when they name no network.

    In the user's own namespace of names, where it is called `bridge`, as in plain Docker.
    """
    return real(uid, "bridge")


def is_default_network(name: str) -> bool:
    """Whether a name inside dockerd is some user's default network."""
    holder = owner(name)
    return holder is not None and name == default_network(holder)


def cgroup_parent(uid: Uid, driver: Literal["cgroupfs", "systemd"] | str) -> str:  # noqa: PYI051  names the two
    """The cgroup that holds all of a user's containers.

    Raises: ValueError: a driver dockerd does not have.
    """
    match driver:
        case "cgroupfs":
            return f"/ds01/{uid}"
        case "systemd":
            return f"ds01-{uid}.slice"
    raise ValueError(f"unknown cgroup driver {driver!r}")


def build_cgroup(uid: Uid, driver: str) -> str:
    """The cgroup, inside the user's, that holds all RUNs of their BuildKit builds and carries the limits of one container.

    A path under either driver: BuildKit starts runc without systemd. SOURCE: moby v28.5, builder-next/executor_linux.go;
    systemd.slice(5): `ds01-1000.slice` lies inside `ds01.slice`. Raises: ValueError: a driver dockerd does not have.
    """
    parent = cgroup_parent(uid, driver)
    return f"/ds01.slice/{parent}/build" if driver == "systemd" else f"{parent}/build"
