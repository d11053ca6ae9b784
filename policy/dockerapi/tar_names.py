"""The members of an image tar that name images: which names they hold, and the same with other names.

SOURCE: Docker image specification 1.2 (manifest.json, repositories), OCI image layout (index.json).
"""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable
from typing import Any

MEMBERS = frozenset({"manifest.json", "repositories", "index.json"})
MAX_BYTES = 16 * 1024 * 1024
_FULL, _SHORT = "io.containerd.image.name", "org.opencontainers.image.ref.name"

Rename = Callable[[str], str]
Pairs = tuple[tuple[str, Any], ...]  # a JSON object with every copy of a key; arrays are lists


def member_of(path: str) -> str:
    """Which naming member this may be. SECURITY: by the last part of its path, since a link can stand for those before."""
    return posixpath.basename(posixpath.normpath(path)).casefold()


def names_in(member: str, content: bytes) -> list[str]:
    """The names one member holds.

    SECURITY: Go matches keys in any case and takes the last of two, so every spelling and every copy counts.
    Raises: ValueError, TypeError, AttributeError, KeyError, RecursionError: not of the form that docker save writes.
    """
    found: list[str] = []

    def note(name: str) -> str:
        found.append(name)
        return name

    renamed(member, content, note)
    return found


def renamed(member: str, content: bytes, rename: Rename) -> bytes:
    """The same member with every name written as `rename` says. Raises: as `names_in`."""
    document = json.loads(content, object_pairs_hook=tuple)
    match member:
        case "manifest.json":
            return _write([_image(image, rename) for image in document])
        case "repositories":
            return _write(tuple(_repository(repo, tags, rename) for repo, tags in document))
        case _:
            return _write(
                _with(document, "manifests", lambda listed: [_described(one, rename) for one in listed])
            )


def _image(image: Pairs, rename: Rename) -> Pairs:
    """One image of manifest.json, without `Parent`.

    SECURITY: dockerd makes a loaded image a child of the one named there, and the classic builder takes a child whose
    configuration fits for the result of its next step: whoever builds on that parent would get what was loaded.
    """
    orphaned = tuple(pair for pair in image if pair[0].casefold() != "parent")
    return _with(orphaned, "repotags", lambda tags: [rename(str(tag)) for tag in tags])


def _repository(repo: str, tags: Pairs, rename: Rename) -> tuple[str, Pairs]:
    """One of the old form: the name without a tag, and ids by tag."""
    named = repo
    for tag, _ in tags:
        named = rename(f"{repo}:{tag}").removesuffix(f":{tag}")
    return named, tags


def _described(manifest: Pairs, rename: Rename) -> Pairs:
    """One image of an index: named by a full name, or, only where that is missing, by what is often a mere tag.

    SOURCE: containerd client/import.go, imageName; docker save of engine 25 and later writes "latest" for the second.
    SECURITY: of two full names Go takes the last, which may be empty, and a second `annotations` may clear the first:
    then the mere tag counts too.
    """
    found = [value for key, value in manifest if key.casefold() == "annotations"]
    full = [value for pairs in found if pairs is not None for key, value in pairs if key == _FULL]
    plain = len(found) == 1 and bool(full) and all(isinstance(value, str) and value for value in full)
    counts = {_FULL} if plain else {_FULL, _SHORT}

    def annotated(pairs: Pairs) -> Pairs:
        return tuple((key, rename(str(value)) if key in counts and value else value) for key, value in pairs)

    return _with(manifest, "annotations", annotated)


def _with(pairs: Pairs, folded: str, change: Callable[[Any], Any]) -> Pairs:
    """An object with each value of a key, however it is spelled, changed; null stays."""
    return tuple(
        (key, change(value) if key.casefold() == folded and value is not None else value)
        for key, value in pairs
    )


def _write(value: object) -> bytes:
    return _json(value).encode()


def _json(value: object) -> str:
    """JSON of what `json.loads` made with `tuple` for objects: all copies of a key, in their order."""
    match value:
        case tuple():
            return "{" + ", ".join(f"{json.dumps(key)}: {_json(item)}" for key, item in value) + "}"
        case list():
            return "[" + ", ".join(map(_json, value)) + "]"
        case _:
            return json.dumps(value)
