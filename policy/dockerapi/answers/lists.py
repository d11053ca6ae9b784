"""Lists with the entries of others left out: containers, images, networks, volumes.

An entry that is shown unchanged keeps the engine's bytes. Source: Engine API 1.24-1.51.
"""

from __future__ import annotations

import msgspec

from policy.dockerapi.answers import shared
from policy.dockerapi.answers.images import shown_image
from policy.dockerapi.answers.mounts import NO_SOURCES, shown_directory, shown_mounts, shown_networks
from policy.dockerapi.answers.networks import hide_labels, shown_network
from policy.dockerapi.answers.pieces import (
    NULL,
    Piece,
    join,
    piece,
    read,
    read_array,
    read_fields,
    read_text,
    read_texts,
    splice,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility
from policy.dockerapi.name_filters import EVERY_NAME, NameFilter


class _Container(msgspec.Struct, frozen=True, rename="pascal"):
    """The parts that are looked at; left raw, so that they can be found again in the entry's bytes."""

    id: str
    names: msgspec.Raw = NULL
    image: msgspec.Raw = NULL
    mounts: msgspec.Raw = NULL
    network_settings: msgspec.Raw = NULL


class _Named(msgspec.Struct, frozen=True, rename="pascal"):
    name: str


_CONTAINER = msgspec.json.Decoder(_Container)
_NAMED = msgspec.json.Decoder(_Named)


def container_list(
    body: Piece,
    sees: Visibility,
    *,
    limit: int = 0,
    names: Names = REAL_NAMES,
    wanted: NameFilter = EVERY_NAME,
    own_only: bool = False,
) -> bytes:
    """GET /containers/json: the user's containers and those shared with them, the first `limit` (0 or less: all) in order.

    Raises: UnreadableAnswer.
    """
    entries = ((raw, read(_CONTAINER, raw)) for raw in read_array(body) or ())
    seen = [
        (raw, head, listed)
        for raw, head in entries
        if (listed := _names(head, sees, own_only=own_only)) is not None
    ]
    parents = frozenset(name for _, _, listed in seen for name in listed if name.count("/") == 1)
    if wanted is not EVERY_NAME:
        seen = [entry for entry in seen if _is_wanted(entry[2], names, wanted)]
    return join(
        _shown_container(raw, head, listed, parents, names)
        if sees.sees_container(head.id)
        else shared.list_entry(raw, listed[0].removeprefix("/"), sees)
        for raw, head, listed in (seen[:limit] if limit > 0 else seen)
    )


def _names(head: _Container, sees: Visibility, *, own_only: bool) -> list[str] | None:
    """All names of an own container, the one of another's that is shared; None: it is not the user's to see."""
    if sees.sees_container(head.id):
        return read_texts(head.names) or []
    shown = None if own_only else sees.shown_as(head.id)
    return [f"/{shown}"] if shown else None


def _is_wanted(listed: list[str], names: Names, wanted: NameFilter) -> bool:
    """As dockerd matches: the container's own name, with its slash or without."""
    own = [names.plain(name[1:]) for name in listed if name.count("/") == 1]
    return any(wanted.matches(f"/{name}") or wanted.matches(name) for name in own)


def _shown_container(
    raw: msgspec.Raw, head: _Container, listed: list[str], parents: frozenset[str], names: Names
) -> Piece:
    # SECURITY: a link puts "/parent/alias" among the target's names; the parent may be another user's (I4).
    kept = [name for name in listed if name.count("/") == 1 or name.rpartition("/")[0] in parents]
    shown = [_shown_name(name, names) for name in kept]
    entry: Piece = raw
    if shown != listed:
        entry = splice(raw, head.names, write(shown))
    if names.may_be_in(head.image):
        entry = splice(entry, head.image, write(names.image(read_text(head.image))))
    if names.may_be_in(head.mounts):
        entry = splice(entry, head.mounts, shown_mounts(head.mounts, names, NO_SOURCES))
    if names.may_be_in(head.network_settings):
        entry = splice(entry, head.network_settings, shown_networks(head.network_settings, names))
    return entry


def _shown_name(slashed: str, names: Names) -> str:
    """Map "/name" or "/parent/alias"; an alias is the user's own word already."""
    return "/" + names.plain(slashed[1:])


def image_list(
    body: Piece,
    sees: Visibility,
    *,
    names: Names = REAL_NAMES,
    by_name: bool = False,
    marked: bool = False,
) -> bytes:
    """GET /images/json: the images the user may read, each with the tags the user may see.

    Args: by_name, marked: see `shown_image`. Raises: UnreadableAnswer.
    """
    return join(
        shown
        for raw in read_array(body) or ()
        if (shown := shown_image(raw, sees, names=names, by_name=by_name, marked=marked)) is not None
    )


def image_count(body: Piece, sees: Visibility) -> int:
    """How many images of a list the user may read. Raises: UnreadableAnswer."""
    return sum(shown_image(raw, sees) is not None for raw in read_array(body) or ())


def network_list(
    body: Piece, sees: Visibility, *, names: Names = REAL_NAMES, wanted: NameFilter = EVERY_NAME
) -> bytes:
    """GET /networks: own, shared and predefined networks, with own containers only. Raises: UnreadableAnswer."""
    listed = (raw for raw in read_array(body) or () if _has_wanted_name(raw, names, wanted))
    shown = (shown_network(raw, sees, names) for raw in listed)
    return join(raw for raw in shown if raw is not None)


def _has_wanted_name(raw: msgspec.Raw, names: Names, wanted: NameFilter) -> bool:
    return wanted is EVERY_NAME or wanted.matches(names.plain(read(_NAMED, raw).name))


def volume_list(
    body: Piece, sees: Visibility, *, names: Names = REAL_NAMES, wanted: NameFilter = EVERY_NAME
) -> bytes:
    """GET /volumes. Warnings are left out: drivers name volumes in them. Raises: UnreadableAnswer."""
    fields = read_fields(body)
    if "Volumes" not in fields:
        raise UnreadableAnswer("the engine's answer has no Volumes")
    listed = volumes(fields["Volumes"], sees, names=names, wanted=wanted)
    return write({"Volumes": msgspec.Raw(listed), "Warnings": None})


def volumes(
    body: Piece, sees: Visibility, *, names: Names = REAL_NAMES, wanted: NameFilter = EVERY_NAME
) -> bytes:
    """An array of volumes, as /volumes and /system/df hold it. Raises: UnreadableAnswer."""
    listed = (raw for raw in read_array(body) or () if _has_wanted_name(raw, names, wanted))
    shown = (_shown_volume(raw, sees, names) for raw in listed)
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
    plain = names.plain(real_name)
    if not hide_labels(fields, names) and plain == real_name:
        return raw
    fields["Name"] = piece(plain)
    if "Mountpoint" in fields:
        fields["Mountpoint"] = shown_directory(fields["Mountpoint"], real_name, names)
    return write(fields)
