"""Lists with the entries of others left out: containers, images, networks, volumes.

An entry that is shown unchanged keeps the engine's bytes. Source: Engine API 1.24-1.51.
"""

from __future__ import annotations

import msgspec

from policy.dockerapi.answers.images import shown_image
from policy.dockerapi.answers.mounts import shown_mounts, shown_networks
from policy.dockerapi.answers.networks import shown_network
from policy.dockerapi.answers.pieces import (
    Fields,
    Piece,
    join,
    piece,
    read,
    read_array,
    read_fields,
    read_text,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    names: list[str] | None = None


_CONTAINER = msgspec.json.Decoder(_Container)


def container_list(body: Piece, sees: Visibility, *, limit: int = 0, names: Names = REAL_NAMES) -> bytes:
    """GET /containers/json: the user's containers, the first `limit` of them (0 or less: all), in the engine's order.

    Raises: UnreadableAnswer.
    """
    entries = ((raw, read(_CONTAINER, raw)) for raw in read_array(body) or ())
    own = [(raw, head) for raw, head in entries if sees.sees_container(head.id)]
    parents = frozenset(name for _, head in own for name in head.names or () if name.count("/") == 1)
    return join(
        _shown_container(raw, head, parents, names) for raw, head in (own[:limit] if limit > 0 else own)
    )


def _shown_container(raw: msgspec.Raw, head: _Container, parents: frozenset[str], names: Names) -> Piece:
    # SECURITY: a link puts "/parent/alias" among the target's names; the parent may be another user's (I4).
    kept = [name for name in head.names or () if name.count("/") == 1 or name.rpartition("/")[0] in parents]
    if kept == (head.names or []) and names is REAL_NAMES:
        return raw
    fields = read_fields(raw)
    fields["Names"] = piece([_shown_name(name, names) for name in kept])
    return write(_renamed(fields, names))


def _shown_name(slashed: str, names: Names) -> str:
    """Map "/name" or "/parent/alias"; an alias is the user's own word already."""
    name, slash, alias = slashed.removeprefix("/").partition("/")
    return f"/{names.container(name)}{slash}{alias}"


def _renamed(fields: Fields, names: Names) -> Fields:
    if "Mounts" in fields:
        fields["Mounts"] = shown_mounts(fields["Mounts"], names, {})
    if "NetworkSettings" in fields:
        fields["NetworkSettings"] = shown_networks(fields["NetworkSettings"], names)
    return fields


def image_list(body: Piece, sees: Visibility) -> bytes:
    """GET /images/json: the images the user may read, each with the tags the user may see. Raises: UnreadableAnswer."""
    shown = (shown_image(raw, sees) for raw in read_array(body) or ())
    return join(raw for raw in shown if raw is not None)


def network_list(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /networks: own, shared and predefined networks, with own containers only. Raises: UnreadableAnswer."""
    shown = (shown_network(raw, sees, names) for raw in read_array(body) or ())
    return join(raw for raw in shown if raw is not None)


def volume_list(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /volumes. Warnings are left out: drivers name volumes in them. Raises: UnreadableAnswer."""
    fields = read_fields(body)
    if "Volumes" not in fields:
        raise UnreadableAnswer("the engine's answer has no Volumes")
    return write({"Volumes": msgspec.Raw(volumes(fields["Volumes"], sees, names=names)), "Warnings": None})


def volumes(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """An array of volumes, as /volumes and /system/df hold it. Raises: UnreadableAnswer."""
    shown = (_shown_volume(raw, sees, names) for raw in read_array(body) or ())
    return join(raw for raw in shown if raw is not None)


def volume_inspect(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /volumes/{name}, and the answer of POST /volumes/create.

    Raises: UnreadableAnswer: also when it is not one the user sees; the request should not have gone out.
    """
    shown = _shown_volume(body, sees, names)
    if shown is None:
        raise UnreadableAnswer("the engine answered with another volume")
    return bytes(shown)


def _shown_volume(raw: Piece, sees: Visibility, names: Names) -> Piece | None:
    fields = read_fields(raw)
    if "Name" not in fields:
        raise UnreadableAnswer("the engine's answer holds a volume without Name")
    real_name = read_text(fields["Name"])
    if not sees.sees_volume(real_name):
        return None
    if names is REAL_NAMES:
        return raw
    fields["Name"] = piece(names.volume(real_name))
    return write(fields)
