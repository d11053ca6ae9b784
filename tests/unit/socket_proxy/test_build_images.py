"""Which images a build must not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from socket_proxy.build_images import BuildImages
from tests.fakes.proxy_world import proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.visibility import ActorVisibility

IMAGES = [
    {"Id": "sha256:mine", "RepoTags": ["mine:latest", "his-name:latest"], "RepoDigests": ["mine@sha256:1"]},
    {"Id": "sha256:his", "RepoTags": ["his:latest"], "RepoDigests": ["his@sha256:2"]},
    {"Id": "sha256:old", "RepoTags": ["<none>:<none>"], "RepoDigests": ["<none>@<none>"]},
    {"Id": "sha256:none", "RepoTags": None},
]


class Sees:
    """Sees one image, and one of its two names."""

    def sees_image(self, image_id: str, references: Sequence[str]) -> bool:
        del references
        return image_id == "sha256:mine"

    def sees_reference(self, reference: str) -> bool:
        return reference == "mine:latest"


async def test_what_is_not_shown_is_not_read(tmp_path: Path) -> None:
    """Names of images that are not seen, and names that are not seen of images that are."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /images/json"] = (200, IMAGES)
        images = BuildImages(engine=world.engine, sees=lambda: cast("ActorVisibility", Sees()))
        assert await images.hidden() == ("his-name:latest", "his:latest", "his@sha256:2")
