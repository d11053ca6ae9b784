"""Containers that only watch the GPUs, so that they take none: `gpu.monitors` of policy.yaml, and which containers they are.

SECURITY: whoever starts a container past ds01 is root; a name or an image alone is what users choose, too. So it concerns only
containers without an owner (the caller's to know) and without a trace of a tool that makes them for users, under a name that
no user's container has inside dockerd, and from one image by its content: a tag moves, an id does not. Pure.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

import yaml

from policy import names, ownership
from policy.document_values import Wrong, read_fields, read_items, read_name
from policy.fields import as_object, as_text
from policy.foreign import LEGACY_LABELS
from policy.model import Json

# SOURCE: moby, daemon/names/names.go.
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)
_IMAGE = re.compile(r"sha256:[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitor:
    """One container. image: its id, as `docker inspect -f '{{.Image}}' NAME` says it."""

    container: str
    image: str


def read_monitors(node: yaml.Node) -> tuple[Monitor, ...]:
    """Every monitor; of one name there may be several images, as around an update. Raises: Wrong."""
    return tuple(_monitor(item) for item in read_items(node))


def _monitor(node: yaml.Node) -> Monitor:
    found = read_fields(node, {"container": _read_container, "image": _read_image})
    missing = [name for name in ("container", "image") if name not in found]
    if missing:
        raise Wrong(f'{missing[0]} is missing; write {{container: dcgm-exporter, image: "sha256:..."}}')
    return Monitor(container=found["container"], image=found["image"])


def _read_container(node: yaml.Node) -> str:
    name = read_name(node)
    if not _NAME.fullmatch(name):
        raise Wrong("must be the whole name of a container, like dcgm-exporter")
    if names.owner(name) is not None:
        raise Wrong(
            f"{name[:80]} is a container that a user made through ds01, which takes its GPUs by a lease"
        )
    return name


def _read_image(node: yaml.Node) -> str:
    image = read_name(node)
    if not _IMAGE.fullmatch(image):
        raise Wrong(
            "must be an image by its id, sha256: and 64 digits; docker inspect -f '{{.Image}}' CONTAINER shows it"
        )
    return image


def image_of_monitor(inspect: Mapping[str, Json]) -> str | None:
    """The image of a container that may be a monitor; None: it has a label of ds01's, or of an older tool for users.

    A container of ds01's whose seal does not count (its key is lost, or it was copied by a commit) has the labels still.
    SOURCE: Engine API 1.24 to 1.51, ContainerInspect. Raises: TypeError: an answer of another shape.
    """
    labels = as_object(as_object(inspect.get("Config")).get("Labels"))
    for_users = any(ownership.is_reserved_label(label) or label in LEGACY_LABELS for label in labels)
    return None if for_users else as_text(inspect.get("Image"))


def is_monitor(name: str, image: str | None, monitors: Collection[Monitor]) -> bool:
    """Whether policy names the container of this name that was made from this image."""
    return image is not None and Monitor(container=name, image=image) in monitors
