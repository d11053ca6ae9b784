"""Answers that ds01 builds itself: prune reports, after it removed the user's objects one by one.

Source: Engine API 1.25-1.51, ContainerPrune, ImagePrune, NetworkPrune, VolumePrune, BuildPrune.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.dockerapi.answers.pieces import write

if TYPE_CHECKING:
    from collections.abc import Sequence


def container_prune(container_ids: Sequence[str], *, reclaimed_bytes: int = 0) -> bytes:
    """Full ids of the containers removed."""
    return write({"ContainersDeleted": list(container_ids) or None, "SpaceReclaimed": reclaimed_bytes})


def image_prune(untagged: Sequence[str], deleted: Sequence[str], *, reclaimed_bytes: int = 0) -> bytes:
    """References taken away, and ids (sha256:...) of the images that went with them."""
    items = [{"Untagged": reference} for reference in untagged] + [
        {"Deleted": image_id} for image_id in deleted
    ]
    return write({"ImagesDeleted": items or None, "SpaceReclaimed": reclaimed_bytes})


def network_prune(names: Sequence[str]) -> bytes:
    """Names, as the user knows them, of the networks removed."""
    return write({"NetworksDeleted": list(names) or None})


def volume_prune(names: Sequence[str], *, reclaimed_bytes: int = 0) -> bytes:
    """Names, as the user knows them, of the volumes removed."""
    return write({"VolumesDeleted": list(names), "SpaceReclaimed": reclaimed_bytes})


def build_prune(record_ids: Sequence[str] = (), *, reclaimed_bytes: int = 0) -> bytes:
    """Ids of the records of the build cache that were removed."""
    return write({"CachesDeleted": list(record_ids) or None, "SpaceReclaimed": reclaimed_bytes})
