"""What ds01 learns of an engine before it serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from socket_proxy import discovery
from socket_proxy.discovery import discover, shortcomings, wait_for_engine
from socket_proxy.refusals import EngineError
from tests.fakes.proxy_world import ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

VERSION = {"Version": "20.10.24", "ApiVersion": "1.41", "MinAPIVersion": "1.12"}
INFO: dict[str, Any] = {"CgroupDriver": "systemd", "CgroupVersion": "2"}


def answers(world: ProxyWorld, version: dict[str, Any], info: dict[str, Any]) -> None:
    world.answers |= {"GET /version": (200, VERSION | version), "GET /info": (200, INFO | info)}


async def test_the_engine_says_what_it_is(tmp_path: Path) -> None:
    """Versions as numbers, and the cgroup driver as it is."""
    async with proxy_world(tmp_path) as world:
        answers(world, {}, {})
        facts = await discover(world.engine, "e" * 32, "auto")
        assert (facts.api_version, facts.min_api_version) == ((1, 41), (1, 12))
        assert (facts.cgroup_driver, facts.cgroup_version, facts.gpu_path) == ("systemd", 2, "hook")
        assert world.engine.version == (1, 41)


@pytest.mark.parametrize(
    ("asked", "devices", "path"),
    [
        ("auto", ["nvidia.com/gpu=0", "nvidia.com/gpu=GPU-1"], "cdi"),
        ("auto", ["nvidia.com/gpu=MIG-1"], "cdi"),
        ("auto", ["nvidia.com/gpu=0", "nvidia.com/gpu=all"], "hook"),
        ("auto", ["vendor.com/gpu=GPU-1"], "hook"),
        ("auto", None, "hook"),
        ("hook", ["nvidia.com/gpu=GPU-1"], "hook"),
        ("cdi", None, "cdi"),
    ],
)
async def test_how_gpus_are_handed_over(
    tmp_path: Path, asked: str, devices: list[str] | None, path: str
) -> None:
    """By CDI once the engine has read a spec that names GPUs by UUID, unless the settings say otherwise."""
    discovered = None if devices is None else [{"Source": "cdi", "ID": name} for name in devices]
    async with proxy_world(tmp_path) as world:
        answers(world, {}, {"CDISpecDirs": ["/etc/cdi"], "DiscoveredDevices": discovered})
        assert (await discover(world.engine, "e" * 32, asked)).gpu_path == path


async def test_a_newer_engine_is_spoken_to_as_far_as_ds01_knows(tmp_path: Path) -> None:
    """ds01's own calls never use a version beyond its table."""
    async with proxy_world(tmp_path) as world:
        answers(world, {"ApiVersion": "1.99"}, {})
        world.answers["GET /v1.51/info"] = (200, INFO)
        facts = await discover(world.engine, "e" * 32, "auto")
        assert world.engine.version == (1, 51)
        assert facts.api_version == (1, 99)


async def test_an_engine_that_serves_no_old_version_is_asked_in_a_newer(tmp_path: Path) -> None:
    """A 400 to the first try leads to the second; another error does not."""
    async with proxy_world(tmp_path) as world:
        world.answers |= {
            "GET /version": (400, {"message": "client version 1.41 is too old"}),
            "GET /v1.44/version": (200, VERSION | {"ApiVersion": "1.52"}),
            "GET /v1.51/info": (200, INFO),
        }
        assert (await discover(world.engine, "e" * 32, "auto")).api_version == (1, 52)
        world.answers["GET /version"] = (500, {})
        with pytest.raises(EngineError):
            await discover(world.engine, "e" * 32, "auto")


async def test_the_proxy_waits_for_its_engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost connections, errors and unreadable answers are all "not yet"."""
    monkeypatch.setattr(discovery, "_RETRY_SECONDS", 0)
    tries = iter([(500, {}), (200, {"Version": 1}), (200, VERSION)])
    async with proxy_world(tmp_path) as world:
        answers(world, {}, {})
        world.answers["GET /version"] = lambda: next(tries)
        assert (await wait_for_engine(world.engine, "e" * 32, "auto")).version == "20.10.24"


@pytest.mark.parametrize(
    ("version", "words"),
    [
        ("20.10.24+dfsg1", ["docker cp", "1 MiB"]),
        ("25.0.16", ["docker cp"]),
        ("26.1.5+dfsg1", ["docker cp", "1 MiB"]),
        ("28.5.2", ["docker cp", "1 MiB"]),
        ("29.2.0", ["docker cp", "1 MiB", "gRPC"]),
        ("29.3.1", ["docker cp", "gRPC"]),
        ("29.5.1", ["gRPC"]),
    ],
)
async def test_known_flaws_of_an_engine_are_named(tmp_path: Path, version: str, words: list[str]) -> None:
    """By version alone, where the guard is there: what an update mends, and what only the socket's mode keeps shut."""
    async with proxy_world(tmp_path) as world:
        answers(world, {"Version": version}, {"Runtimes": {"runc": {}, "ds01": {}}})
        found = shortcomings(await discover(world.engine, "e" * 32, "auto"))
    assert len(found) == len(words)
    assert all(word in note for word, note in zip(words, found, strict=True))


@pytest.mark.parametrize(
    ("runtimes", "runtime"), [({"ds01": {"path": "x"}}, "ds01"), ({"nvidia": {}}, "runc")]
)
async def test_the_guarded_runtime_is_found(tmp_path: Path, runtimes: dict[str, Any], runtime: str) -> None:
    """Where the engine has it; where it has not, the admin is told what that leaves open."""
    async with proxy_world(tmp_path) as world:
        answers(world, {}, {"Runtimes": {"runc": {}} | runtimes, "DockerRootDir": "/data/docker"})
        facts = await discover(world.engine, "e" * 32, "auto")
    assert (facts.runtime, facts.data_root) == (runtime, "/data/docker")
    assert any("the runtime ds01" in note for note in shortcomings(facts)) == (runtime == "runc")
