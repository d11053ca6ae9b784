"""Answers that ds01 builds itself: what was removed, after it removed the user's objects one by one.

Source: Engine API 1.25-1.51, ContainerPrune, ImagePrune, NetworkPrune, VolumePrune, BuildPrune, ImageDelete.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.dockerapi.answers.pieces import write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policy.dockerapi.answers.visibility import Names


def error_line(message: str) -> bytes:
    """What dockerd says in a stream of JSON messages that it has begun: of a pull, a push or a build."""
    return write({"errorDetail": {"message": message}, "error": message}) + b"\r\n"


def container_prune(container_ids: Sequence[str], *, reclaimed_bytes: int = 0) -> bytes:
    """Full ids of the containers removed."""
    return write({"ContainersDeleted": list(container_ids) or None, "SpaceReclaimed": reclaimed_bytes})


def image_delete(report: Sequence[Mapping[str, str]], names: Names) -> bytes:
    """Dockerd's own report, `Untagged` and `Deleted` items in the order it happened."""
    return write(_removed(report, names)) + b"\n"


def image_prune(report: Sequence[Mapping[str, str]], names: Names, *, reclaimed_bytes: int = 0) -> bytes:
    """References taken away, and ids (sha256:...) of the images that went with them."""
    items = sorted(_removed(report, names), key=lambda item: "Deleted" in item)
    return write({"ImagesDeleted": items or None, "SpaceReclaimed": reclaimed_bytes})


def _removed(report: Sequence[Mapping[str, str]], names: Names) -> list[dict[str, str]]:
    return [{key: names.image(value) for key, value in item.items()} for item in report]


def network_prune(names: Sequence[str]) -> bytes:
    """Names, as the user knows them, of the networks removed."""
    return write({"NetworksDeleted": list(names) or None})


def volume_prune(names: Sequence[str], *, reclaimed_bytes: int = 0) -> bytes:
    """Names, as the user knows them, of the volumes removed."""
    return write({"VolumesDeleted": list(names), "SpaceReclaimed": reclaimed_bytes})


def build_prune(record_ids: Sequence[str] = (), *, reclaimed_bytes: int = 0) -> bytes:
    """Ids of the records of the build cache that were removed."""
    return write({"CachesDeleted": list(record_ids) or None, "SpaceReclaimed": reclaimed_bytes})
