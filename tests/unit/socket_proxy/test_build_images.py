"""Which images a build must not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from policy.buildkit.model import Images
from policy.model import Uid
from policy.names import ViewerNames
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
    {"Id": "sha256:app", "RepoTags": ["ds01.invalid/u1001/app:1", "ds01.invalid/u1002/app:1", "app:1"]},
    {"Id": "sha256:base", "RepoTags": ["ds01.invalid/u1002/base:1"]},
]


class Sees:
    """Sees three images, and some of their names."""

    def sees_image(self, image_id: str, references: Sequence[str]) -> bool:
        del references
        return image_id in {"sha256:mine", "sha256:app", "sha256:base"}

    def shows_reference(self, reference: str) -> bool:
        return reference not in {"his-name:latest", "ds01.invalid/u1002/app:1"}


async def test_what_is_not_shown_is_not_read(tmp_path: Path) -> None:
    """Names of images that are not seen, and names that are not seen of images that are; own local names apart."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /images/json"] = (200, IMAGES)
        images = BuildImages(
            engine=world.engine,
            sees=lambda: cast("ActorVisibility", Sees()),
            names=lambda: ViewerNames(Uid(1001)),
        )
        assert await images.readable() == Images(
            local={"app:1": "ds01.invalid/u1001/app:1"},
            shared=("ds01.invalid/u1002/base:1",),
            hidden=("his-name:latest", "his:latest", "his@sha256:2", "ds01.invalid/u1002/app:1"),
        )
