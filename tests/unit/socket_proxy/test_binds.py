"""Bind sources are looked at again when a container starts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.build import build_policy
from policy.dockerapi.model import Operation
from policy.model import Actor, CheckBind, ContainerId, Gid, Uid
from policy.stand_ins import StandIn, StandIns
from socket_proxy.binds import Binds
from socket_proxy.refusals import EngineError, Refusal
from tests.fakes.proxy_world import ProxyWorld, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

CONTAINER = ContainerId("c" * 64)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory that its user may mount, and one elsewhere."""
    path = tmp_path / "home"
    (path / "data").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    return path


def user(home: Path) -> Actor:
    status = home.stat()
    return Actor(uid=Uid(status.st_uid), gid=Gid(status.st_gid), name="alice", home=str(home))


def binds(world: ProxyWorld, home: Path, stand_ins: StandIns | None = None) -> Binds:
    allow = f"[{{path: {home}, setuid_ok: true}}]"
    text = f"version: 1\ndefaults: {{role: user, allow: {{binds: {allow}}}}}\n"
    policy = build_policy({"policy.yaml": text})
    return Binds(engine=world.engine, policy=lambda: policy, stand_ins=stand_ins)


def bind(source: Path) -> CheckBind:
    return CheckBind(
        source=str(source),
        target="/data",
        read_only=False,
        create=False,
        setuid_ok=True,
        field="HostConfig.Binds",
    )


async def recheck(made: Binds, home: Path) -> Refusal | None:
    asked, _ = transaction(Operation.CONTAINER_START, actor=user(home), container=CONTAINER)
    return await made.recheck(asked, CONTAINER)


async def test_what_is_as_it_was_starts(tmp_path: Path, home: Path) -> None:
    """What the create let through is known: dockerd is not asked."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        made.remember(CONTAINER, (bind(home / "data"),))
        assert await recheck(made, home) is None
        assert world.asked == []


async def test_a_source_that_leads_elsewhere_does_not_start(tmp_path: Path, home: Path) -> None:
    """A directory swapped for a symbolic link since the create is a 403 that says where it leads."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        made.remember(CONTAINER, (bind(home / "data"),))
        (home / "data").rmdir()
        (home / "data").symlink_to(tmp_path / "elsewhere")
        refusal = await recheck(made, home)
        assert refusal is not None
        assert (refusal.status, refusal.rules) == (403, ("bind_mounts",))
        assert "elsewhere" in refusal.message


async def test_a_source_that_is_gone_does_not_start(tmp_path: Path, home: Path) -> None:
    """dockerd would make the directory anew, as root."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        made.remember(CONTAINER, (bind(home / "data"),))
        (home / "data").rmdir()
        refusal = await recheck(made, home)
        assert refusal is not None
        assert refusal.status == 403


@pytest.mark.parametrize(("source", "starts"), [("home/data", True), ("elsewhere", False)])
async def test_a_container_from_before_is_judged_by_todays_rules(
    tmp_path: Path, home: Path, source: str, *, starts: bool
) -> None:
    """After a restart of the proxy the mounts come from dockerd, and go through the policy once."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        host = {"Binds": [f"{tmp_path / source}:/data"], "Mounts": None}
        world.answers[f"GET /containers/{CONTAINER}/json"] = (200, {"HostConfig": host})
        answers = [await recheck(made, home) for _ in range(2)]
        assert [answer is None for answer in answers] == [starts, starts]
        assert len(world.asked) == (1 if starts else 2)


async def test_what_is_forgotten_is_asked_for(tmp_path: Path, home: Path) -> None:
    """A container of the same id is not believed, and without an answer nothing starts."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        made.remember(CONTAINER, ())
        made.forget(CONTAINER)
        world.answers["GET /containers/"] = (500, {"message": "broken"})
        with pytest.raises(EngineError):
            await recheck(made, home)


@pytest.mark.parametrize(("source", "starts"), [("home/data", True), ("elsewhere", False)])
async def test_mounts_of_another_container_are_judged_too(
    tmp_path: Path, home: Path, source: str, *, starts: bool
) -> None:
    """What VolumesFrom brought stands in no field of the container's own: dockerd says what it will mount."""
    async with proxy_world(tmp_path) as world:
        made = binds(world, home)
        mounts = [
            {"Type": "bind", "Source": str(tmp_path / source), "Destination": "/data", "RW": True},
            {"Type": "volume", "Name": "v", "Source": "/var/lib/docker/volumes/v/_data", "Destination": "/v"},
        ]
        inspected = {"HostConfig": {"Binds": None, "VolumesFrom": ["a" * 64]}, "Mounts": mounts}
        world.answers[f"GET /containers/{CONTAINER}/json"] = (200, inspected)
        assert (await recheck(made, home) is None) is starts


@pytest.mark.parametrize(("source", "starts"), [("home/data", True), ("elsewhere", False)])
@pytest.mark.parametrize("form", ["Binds", "VolumesFrom"])
async def test_a_stand_in_is_judged_as_what_it_stands_for(
    tmp_path: Path, home: Path, form: str, source: str, *, starts: bool
) -> None:
    """dockerd knows no other name of it; whoever's it is, the path counts."""
    stand_ins = StandIns("/var/lib/ds01/sources")
    told = stand_ins.path(StandIn(source=str(tmp_path / source), uid=Uid(7), read_only=False))
    point = {"Type": "bind", "Source": told, "Destination": "/data", "RW": True}
    inspected = {
        "Binds": {"HostConfig": {"Binds": [f"{told}:/data"]}, "Mounts": [point]},
        "VolumesFrom": {"HostConfig": {"VolumesFrom": ["a" * 64]}, "Mounts": [point]},
    }[form]
    async with proxy_world(tmp_path) as world:
        made = binds(world, home, stand_ins)
        world.answers[f"GET /containers/{CONTAINER}/json"] = (200, inspected)
        assert (await recheck(made, home) is None) is starts
