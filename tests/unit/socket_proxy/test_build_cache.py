"""Whose steps a classic build may take over."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from policy.model import Uid
from socket_proxy import build_cache
from socket_proxy.build_cache import NOTHING, cache_sources
from socket_proxy.image_owners import ImageOwners
from tests.fakes.policy_world import ALICE, BOB
from tests.fakes.proxy_world import proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import Actor
    from socket_proxy.transaction import Transaction

IMAGES = [
    {"Id": "sha256:old", "Created": 1, "RepoTags": ["mine:latest"]},
    {"Id": "sha256:new", "Created": 3, "RepoTags": None},
    {"Id": "sha256:his", "Created": 2, "RepoTags": ["his:latest"]},
    {"Id": "sha256:pulled", "Created": 4, "RepoTags": ["busybox:latest"]},
]


async def sources(path: Path, actor: Actor, *, everything: bool = False) -> tuple[str, ...]:
    async with proxy_world(path) as world:
        world.answers["GET /images/json"] = (200, IMAGES)
        owners = ImageOwners(world.records)
        for image_id, uid in (("sha256:old", ALICE.uid), ("sha256:new", ALICE.uid), ("sha256:his", BOB.uid)):
            owners.claim(image_id, [], uid)
        asked = cast("Transaction", SimpleNamespace(actor=actor, everything=everything))
        return await cache_sources(world.engine, owners, asked)


async def test_it_is_ones_own_images_newest_first(tmp_path: Path) -> None:
    """And neither another's nor what was pulled, whose history its maker has written."""
    assert await sources(tmp_path, ALICE) == ("sha256:new", "sha256:old")


async def test_not_more_than_are_worth_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The newest."""
    monkeypatch.setattr(build_cache, "MOST", 1)
    assert await sources(tmp_path, ALICE) == ("sha256:new",)


@pytest.mark.parametrize("everything", [False, True])
async def test_it_is_never_none(tmp_path: Path, *, everything: bool) -> None:
    """For then dockerd would take everybody's. An admin's images are everybody's already."""
    nobody = SimpleNamespace(uid=Uid(4711))
    actor = ALICE if everything else cast("Actor", nobody)
    assert await sources(tmp_path, actor, everything=everything) == (NOTHING,)
