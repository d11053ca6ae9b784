"""One image as a user may see it, or not at all: a tag on it can be another's, and so can the containers and its parents."""

from __future__ import annotations

import msgspec

from policy.dockerapi.answers.pieces import (
    Fields,
    Piece,
    piece,
    read,
    read_array,
    read_fields,
    read_optional_fields,
    read_text,
    read_texts,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

_NOTHING = frozenset({"<none>:<none>", "<none>@<none>"})  # what API < 1.43 says of dangling images
_NUMBER = msgspec.json.Decoder(int)
_PARENTS = ("ParentId", "Parent")  # list, inspect
_CONFIGS = ("Config", "ContainerConfig")  # of a committed image, with the name of its container's
_MISSING = "<missing>"  # what the engine says of a step whose image is not here


def image_inspect(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /images/{name}/json. Raises: UnreadableAnswer: also when it is not one the user sees."""
    shown = shown_image(body, sees, names=names)
    if shown is None:
        raise UnreadableAnswer("the engine answered with another image")
    if not names.may_be_in(shown):
        return bytes(shown)
    fields = read_fields(shown)
    for key in _CONFIGS:
        config = read_optional_fields(fields[key]) if key in fields else None
        if config is not None and "Image" in config:
            config["Image"] = piece(names.image(read_text(config["Image"])))
            fields[key] = piece(config)
    return write(fields)


def image_history(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /images/{name}/history of an image the user may read: its own step first, then those of its parents.

    SECURITY: a parent is named by its id and by all its tags, which can be anybody's. Raises: UnreadableAnswer.
    """
    steps = [read_fields(raw) for raw in read_array(body) or ()]
    for number, step in enumerate(steps):
        tags = _texts(step, "Tags")
        if number and "Id" in step and not sees.sees_image(read_text(step["Id"]), tags):
            step["Id"] = piece(_MISSING)
        shown = [names.image(tag) for tag in tags if sees.sees_reference(tag)]
        if shown != tags:
            step["Tags"] = piece(shown or None)
    return write(steps)


def shown_image(
    raw: Piece,
    sees: Visibility,
    *,
    names: Names = REAL_NAMES,
    containers: int = -1,
    by_name: bool = False,
    marked: bool = False,
) -> Piece | None:
    """One image, or None if the user may not read it; the same bytes if nothing had to go.

    Args:
        containers: how many of the user's containers use it; -1: not counted, as the engine says it in lists.
        by_name: it was selected by a name, so one that is shown under no name was selected by a name of another's.
        marked: an image without tags has the tag `<none>:<none>` (lists before API 1.43).
    """
    fields = read_fields(raw)
    if "Id" not in fields:
        raise UnreadableAnswer("the engine's answer holds an image without Id")
    image_id = read_text(fields["Id"])
    tags = _texts(fields, "RepoTags")
    if not sees.sees_image(image_id, [tag for tag in tags if tag not in _NOTHING]):
        return None
    if by_name and not any(tag not in _NOTHING and sees.sees_reference(tag) for tag in tags):
        return None
    # every one of these must run, so no `or` between them
    changes = (
        _keep_references(fields, tags, sees, names),
        _hide_parents(fields, sees),
        _count(fields, containers),
        _hide_users(fields, sees),
        marked and _mark_nameless(fields),
    )
    return write(fields) if any(changes) else raw


def _texts(fields: Fields, key: str) -> list[str]:
    return (read_texts(fields[key]) or []) if key in fields else []


def _keep_references(fields: Fields, tags: list[str], sees: Visibility, names: Names) -> bool:
    """Drop tags and digests that are another's: private names on shared content. What stays, as the user knows it."""
    shown_tags = [tag for tag in tags if tag in _NOTHING or sees.sees_reference(tag)]
    repositories = frozenset(tag.rpartition(":")[0] for tag in shown_tags)
    digests = _texts(fields, "RepoDigests")
    shown_digests = [
        digest
        for digest in digests
        if digest in _NOTHING or digest.partition("@")[0] in repositories or sees.sees_reference(digest)
    ]
    shown_tags = [names.image(tag) for tag in shown_tags]
    shown_digests = list(dict.fromkeys(map(names.image, shown_digests)))
    for key, before, after in (("RepoTags", tags, shown_tags), ("RepoDigests", digests, shown_digests)):
        if before != after:
            fields[key] = piece(after)
    return (tags, digests) != (shown_tags, shown_digests)


def _mark_nameless(fields: Fields) -> bool:
    if _texts(fields, "RepoTags") or _texts(fields, "RepoDigests"):
        return False
    fields["RepoTags"], fields["RepoDigests"] = piece(["<none>:<none>"]), piece(["<none>@<none>"])
    return True


def _hide_parents(fields: Fields, sees: Visibility) -> bool:
    hidden = [key for key in _PARENTS if key in fields and not _sees_parent(read_text(fields[key]), sees)]
    for key in hidden:
        fields[key] = piece("")
    return bool(hidden)


def _sees_parent(image_id: str, sees: Visibility) -> bool:
    return not image_id or sees.sees_image(image_id, [])


def _count(fields: Fields, containers: int) -> bool:
    """SECURITY: the engine counts everybody's containers."""
    if "Containers" not in fields or read(_NUMBER, fields["Containers"]) == containers:
        return False
    fields["Containers"] = piece(containers)
    return True


def _hide_users(fields: Fields, sees: Visibility) -> bool:
    """SECURITY: `Manifests[].ImageData.Containers` (API 1.47) lists the ids of all containers that use a manifest."""
    manifests = read_array(fields["Manifests"]) if "Manifests" in fields else None
    if not manifests:
        return False
    shown = [_shown_manifest(raw, sees) for raw in manifests]
    fields["Manifests"] = piece(shown)
    return True


def _shown_manifest(raw: msgspec.Raw, sees: Visibility) -> Fields:
    manifest = read_fields(raw)
    data = read_optional_fields(manifest["ImageData"]) if "ImageData" in manifest else None
    if data is not None and "Containers" in data:
        data["Containers"] = piece([user for user in _texts(data, "Containers") if sees.sees_container(user)])
        manifest["ImageData"] = piece(data)
    return manifest
