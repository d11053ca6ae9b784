"""The approval: what of the host one container was let have, written at its create, read at each of its starts.

Owns the values, the file's text and the signed message. `socket_proxy` signs and keeps it, `runtime` checks it, as the two
servers do with stamps. Why: docs/decisions/0009-guard.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from enum import StrEnum

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest
from policy.fields import as_bool, as_int, as_list, as_object, as_strings, as_text
from policy.model import CheckBind, ContainerId, DeviceUuid, Json, LeaseId, Uid
from policy.paths import clean_path
from policy.rules.mounts import parse_bind
from policy.stand_ins import StandIn, StandIns

_DOMAIN = b"ds01-approval-v1\0"
_SIGNED = re.compile(rb"v1\.([0-9a-f]{128})\n", re.ASCII)
_CONTAINER = re.compile(r"[0-9a-f]{64}")
_JOIN = "container:"


class ApprovalInvalid(Exception):  # noqa: N818  the name says what is wrong
    """The text is no approval that ds01 wrote."""


class Source(StrEnum):
    """What stands behind a mount of the host."""

    PATH = "path"  # a host path of the owner's
    SOCKET = "socket"  # the owner's own ds01 socket
    VOLUME = "volume"  # a volume, by its name inside dockerd
    IMAGE = "image"  # an image's files, by the reference in the create


@dataclass(frozen=True, slots=True, kw_only=True)
class ApprovedMount:
    """One mount. `create`, `setuid_ok` and `read_only` mean what they do in CheckBind.

    subpath: only a part of the volume or image, which dockerd finds and puts where only it knows.
    told: what dockerd has in place of a host path, "" where that is the path itself (ADR 0016).
    asked: the source in the words of the create, "" where that is `source`.
    """

    kind: Source
    source: str  # a real path, a volume's name, an image's reference
    target: str
    read_only: bool = False
    create: bool = False
    setuid_ok: bool = False
    subpath: bool = False
    told: str = ""
    asked: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """All that one container may have of the host.

    nodes: paths inside the container at which device nodes of the policy's list appear.
    joined: containers whose namespaces it shares; dockerd then mounts their hosts, hostname, resolv.conf and shm.
    """

    container: ContainerId
    engine_id: str
    uid: Uid
    mounts: tuple[ApprovedMount, ...] = ()
    nodes: tuple[str, ...] = ()
    joined: tuple[ContainerId, ...] = ()
    lease: LeaseId | None = None
    devices: tuple[DeviceUuid, ...] = ()


def approved_mounts(
    body: Mapping[str, Json], looked_at: Sequence[CheckBind], *, user_socket: str
) -> tuple[ApprovedMount, ...]:
    """The mounts of a rewritten create that come from the host or from volumes with a name.

    Args: looked_at: the host paths of the request, by their real paths, as they were looked at.
    Raises: ValueError: a host path that nobody looked at.
    """
    host = as_object(body.get("HostConfig"))
    found: list[ApprovedMount] = []
    seen = {(bind.source, bind.target): bind for bind in looked_at}
    for text in as_strings(host.get("Binds")):
        bind = parse_bind(text)
        if bind is None:
            raise ValueError("a bind that cannot be read was let through")
        if bind.source:
            found.append(_approved(bind.source, bind.target, "ro" in bind.options, seen, user_socket))
    for mount in map(as_object, as_list(host.get("Mounts"))):
        source, target = as_text(mount.get("Source")), as_text(mount.get("Target"))
        read_only = as_bool(mount.get("ReadOnly"))
        match as_text(mount.get("Type")):
            case "bind":
                found.append(_approved(source, target, read_only, seen, user_socket))
            case "volume" | "image" as kind if source:
                found.append(
                    ApprovedMount(
                        kind=Source(kind),
                        source=source,
                        target=target,
                        read_only=read_only,
                        subpath=_has_subpath(mount),
                    )
                )
            case _:
                pass
    return tuple(found)


def _has_subpath(mount: Mapping[str, Json]) -> bool:
    options = (as_object(mount.get(key)) for key in ("VolumeOptions", "ImageOptions"))
    return any(as_text(each.get("Subpath")) for each in options)


def _approved(
    source: str,
    target: str,
    read_only: bool,  # noqa: FBT001  private
    seen: Mapping[tuple[str, str], CheckBind],
    user_socket: str,
) -> ApprovedMount:
    if not source.startswith("/"):
        return ApprovedMount(kind=Source.VOLUME, source=source, target=target, read_only=read_only)
    if source == user_socket:
        return ApprovedMount(kind=Source.SOCKET, source=source, target=target, read_only=read_only)
    bind = seen.get((source, target))
    if bind is None or bind.read_only > read_only:
        raise ValueError("a host path was let through that nobody looked at")
    return ApprovedMount(
        kind=Source.PATH,
        source=source,
        target=target,
        read_only=read_only,
        create=bind.create,
        setuid_ok=bind.setuid_ok,
    )


def with_stand_ins(
    mounts: Sequence[ApprovedMount], stand_ins: StandIns, *, uid: Uid, asked: Mapping[str, Json]
) -> tuple[ApprovedMount, ...]:
    """The mounts of a create, with what dockerd is told of each, and the words of the body that the client sent."""
    words = _asked_sources(asked)
    found: list[ApprovedMount] = []
    for mount in mounts:
        told = StandIn(source=mount.source, uid=uid, read_only=mount.read_only)
        path = stand_ins.path(told) if mount.kind is Source.PATH else ""
        word = words.get(mount.target, mount.source)
        found.append(replace(mount, told=path, asked="" if word == mount.source else word))
    return tuple(found)


def _asked_sources(body: Mapping[str, Json]) -> dict[str, str]:
    """Host paths as they were written, by the clean path of their targets."""
    host = as_object(body.get("HostConfig"))
    found: dict[str, str] = {}
    for text in as_strings(host.get("Binds")):
        bind = parse_bind(text)
        if bind is not None and bind.source.startswith("/"):
            found[bind.target] = text.partition(":")[0]
    for mount in map(as_object, as_list(host.get("Mounts"))):
        target = clean_path(as_text(mount.get("Target")))
        if as_text(mount.get("Type")) == "bind" and target is not None:
            found[target] = as_text(mount.get("Source"))
    return found


def inherited_mounts(
    body: Mapping[str, Json], approvals: Mapping[ContainerId, Approval]
) -> tuple[ApprovedMount, ...]:
    """What `HostConfig.VolumesFrom` brings: the mounts of each container it names, for as much as those were let have."""
    found: list[ApprovedMount] = []
    for text in as_strings(as_object(body.get("HostConfig")).get("VolumesFrom")):
        name, _, mode = text.partition(":")
        approval = approvals.get(ContainerId(name))
        for mount in approval.mounts if approval else ():
            kept = asdict(mount)
            found.append(ApprovedMount(**kept | {"read_only": mount.read_only or mode == "ro"}))
    return tuple(found)


def volumes_from(body: Mapping[str, Json]) -> tuple[ContainerId, ...]:
    """The containers whose mounts a create takes over."""
    texts = as_strings(as_object(body.get("HostConfig")).get("VolumesFrom"))
    return tuple(ContainerId(text.partition(":")[0]) for text in texts)


def joined_containers(body: Mapping[str, Json]) -> tuple[ContainerId, ...]:
    """The containers whose namespaces a create shares."""
    host = as_object(body.get("HostConfig"))
    modes = [as_text(host.get(key)) for key in ("NetworkMode", "IpcMode", "PidMode")]
    names = [mode.removeprefix(_JOIN) for mode in modes if mode.startswith(_JOIN)]
    return tuple(ContainerId(name) for name in dict.fromkeys(names))


def device_nodes(body: Mapping[str, Json]) -> tuple[str, ...]:
    """The paths inside the container at which the devices of a create appear."""
    devices = map(as_object, as_list(as_object(body.get("HostConfig")).get("Devices")))
    return tuple(as_text(item.get("PathInContainer")) or as_text(item.get("PathOnHost")) for item in devices)


# --- the file ----------------------------------------------------------------------------------------------


def write(approval: Approval) -> bytes:
    """The text that is signed: the same approval is always the same bytes."""
    return json.dumps(asdict(approval), separators=(",", ":"), sort_keys=True).encode()


def message(text: bytes) -> bytes:
    """The bytes that a signature covers."""
    return _DOMAIN + text


def seal(text: bytes, signature: bytes) -> bytes:
    """The file's content: the signature's line, then the text. `signature` is 64 bytes (Ed25519)."""
    return b"v1." + signature.hex().encode() + b"\n" + text


def unseal(content: bytes) -> tuple[bytes, bytes]:
    """Signature and text of a file. Raises: ApprovalInvalid."""
    found = _SIGNED.match(content)
    if found is None:
        raise ApprovalInvalid("it has no signature")
    return bytes.fromhex(found[1].decode()), content[found.end() :]


def read(text: bytes) -> Approval:
    """The approval in a text whose signature was checked. Raises: ApprovalInvalid.

    An older ds01 may have left a field out; a field that a newer one added could be a condition, so it is refused.
    """
    try:
        document = as_object(strict_json.parse(text.decode(), what="approval"))
        lease = as_text(document.get("lease"))
        approval = Approval(
            container=ContainerId(as_text(document["container"])),
            engine_id=as_text(document["engine_id"]),
            uid=Uid(_present(document["uid"])),
            mounts=tuple(_read_mount(as_object(item)) for item in as_list(document.get("mounts"))),
            nodes=tuple(as_strings(document.get("nodes"))),
            joined=tuple(ContainerId(item) for item in as_strings(document.get("joined"))),
            lease=LeaseId(lease) if lease else None,
            devices=tuple(DeviceUuid(item) for item in as_strings(document.get("devices"))),
        )
    except (MalformedRequest, TypeError, KeyError, ValueError) as error:
        raise ApprovalInvalid("it is not in the form that ds01 writes") from error
    if not _CONTAINER.fullmatch(approval.container) or not _knows(document, Approval):
        raise ApprovalInvalid("it is not in the form that ds01 writes")
    return approval


def _present(number: Json) -> int:
    """SECURITY: null counts as 0 elsewhere, and uid 0 is root."""
    if number is None:
        raise ValueError("no owner")
    return as_int(number)


def _knows(document: Mapping[str, Json], kind: type[Approval | ApprovedMount]) -> bool:
    return document.keys() <= {each.name for each in fields(kind)}


def _read_mount(item: Mapping[str, Json]) -> ApprovedMount:
    if not _knows(item, ApprovedMount):
        raise ValueError("unknown field")
    return ApprovedMount(
        kind=Source(as_text(item["kind"])),
        source=as_text(item["source"]),
        target=as_text(item["target"]),
        read_only=as_bool(item["read_only"]),
        create=as_bool(item.get("create")),
        setuid_ok=as_bool(item.get("setuid_ok")),
        subpath=as_bool(item.get("subpath")),
        told=as_text(item.get("told")),
        asked=as_text(item.get("asked")),
    )
