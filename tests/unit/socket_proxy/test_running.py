"""The allocator is told what runs, whose it is, and where: by the engine's own pid."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from policy import names
from policy.model import ContainerId
from policy.monitors import Monitor
from socket_proxy import running as running_module
from socket_proxy.adoptions import Adoption
from socket_proxy.refusals import Unavailable
from socket_proxy.running import RunningContainers
from tests.fakes.proxy_world import ALICE, proxy_world

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from policy.model import Json
    from tests.fakes.proxy_world import ProxyWorld

ONE, OTHER = "1" * 64, "2" * 64
FOREIGN: dict[str, Any] = {
    "Config": {"Env": ["TOKEN=secret", "NVIDIA_VISIBLE_DEVICES=0"], "Labels": {"aime.mlc": "alice"}},
    "HostConfig": {"Runtime": "nvidia", "Privileged": False},
    "Mounts": [],
}


def told(*, runs: bool) -> dict[str, Any]:
    """What is told of `FOREIGN`."""
    return {
        "runs": runs,
        "monitor": False,
        "inspect": {
            "Config": {"Env": ["NVIDIA_VISIBLE_DEVICES=0"], "Labels": {"aime.mlc": "alice"}},
            "HostConfig": {"Runtime": "nvidia"},
            "Mounts": [],
        },
    }


class Heard:
    """What the allocator was told, each time; it may be away."""

    def __init__(self) -> None:
        self.told: list[list[dict[str, Any]]] = []
        self.away = False
        self.heard = asyncio.Event()

    async def tell_running(self, containers: Sequence[Mapping[str, Json]]) -> None:
        if self.away:
            raise Unavailable("away")
        self.told.append([dict(one) for one in containers])
        self.heard.set()


def watching(
    world: ProxyWorld, heard: Heard, monitors: Callable[[], Sequence[Monitor]] = tuple
) -> RunningContainers:
    return RunningContainers(
        engine=world.engine,
        sealed=world.sealed,
        adoptions=world.adoptions,
        allocator=heard,
        monitors=monitors,
    )


async def test_what_was_adopted_is_told_as_both(tmp_path: Path) -> None:
    """Whose it is, and what it has: ds01 did not make it. Stopped too, since the engine may start it again."""
    async with proxy_world(tmp_path) as world:
        world.adoptions.add(Adoption(container=ContainerId(OTHER), owner=ALICE.uid))
        one = {"Id": OTHER, "Names": ["/old"], "Labels": {}, "State": "running"}
        heard = Heard()
        for state, pid in (("running", 22), ("exited", 0)):
            world.answers["GET /containers/json"] = (200, [one | {"State": state}])
            world.answers[f"GET /containers/{OTHER}/json"] = (200, FOREIGN | {"State": {"Pid": pid}})
            await watching(world, heard).tell()
        (running,), (stopped,) = heard.told
        assert (running["owner_uid"], running["pid"], running["name"]) == (ALICE.uid, 22, "old")
        assert running["foreign"] == told(runs=True)
        assert (stopped["owner_uid"], stopped["pid"], stopped["foreign"]) == (
            ALICE.uid,
            None,
            told(runs=False),
        )


@pytest.mark.parametrize("state", ["running", "exited"])
async def test_what_runs_on_a_lease_is_told_with_what_it_has(tmp_path: Path, state: str) -> None:
    """For a ledger that has lost the lease; nothing of its environment but that, and nothing once it has stopped."""
    async with proxy_world(tmp_path) as world:
        one = {
            "Id": ONE,
            "Names": [f"/{names.real(ALICE.uid, 'web')}"],
            "Labels": world.labels(lease="L1"),
            "State": state,
        }
        host = {"Runtime": "ds01", "DeviceRequests": [{"DeviceIDs": ["GPU-1"]}], "Memory": 5}
        config = {"Env": ["TOKEN=secret", "NVIDIA_VISIBLE_DEVICES=GPU-1"], "Labels": {}}
        world.answers["GET /containers/json"] = (200, [one])
        inspect = {"State": {"Pid": 11}, "Config": config, "HostConfig": host, "Mounts": []}
        world.answers[f"GET /containers/{ONE}/json"] = (200, inspect)
        heard = Heard()
        await watching(world, heard).tell()
        has = {
            "Config": {"Env": ["NVIDIA_VISIBLE_DEVICES=GPU-1"]},
            "HostConfig": {"Runtime": "ds01", "DeviceRequests": [{"DeviceIDs": ["GPU-1"]}]},
            "Mounts": [],
        }
        said = {
            "id": ONE,
            "pid": 11,
            "owner_uid": ALICE.uid,
            "name": "web",
            "carries": {"lease": "L1", "inspect": has},
        }
        assert heard.told == [[said] if state == "running" else []]


async def test_what_runs_is_told_with_its_owner_and_its_pid(tmp_path: Path) -> None:
    """The owner by the seal alone; what ds01 did not make is nobody's, under the engine's name for it."""
    async with proxy_world(tmp_path) as world:
        forged = {**world.labels(), "ds01.uid": "0"}
        world.answers["GET /containers/json"] = (
            200,
            [
                {"Id": ONE, "Names": [f"/{names.real(ALICE.uid, 'web')}"], "Labels": world.labels()},
                {"Id": OTHER, "Names": ["/old"], "Labels": forged, "State": "running"},
            ],
        )
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 11}})
        world.answers[f"GET /containers/{OTHER}/json"] = (200, FOREIGN | {"State": {"Pid": 22}})
        heard = Heard()
        await watching(world, heard).tell()
        assert heard.told == [
            [
                {"id": ONE, "pid": 11, "owner_uid": ALICE.uid, "name": "web"},
                {"id": OTHER, "pid": 22, "owner_uid": None, "name": "old", "foreign": told(runs=True)},
            ]
        ]


async def test_a_container_is_looked_at_again_only_when_it_moved(tmp_path: Path) -> None:
    """Its pid is another one after a restart; one that is gone again is not told."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (
            200,
            [{"Id": ONE, "Names": ["/a"], "Labels": world.labels(), "State": "running"}],
        )
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 11}})
        heard = Heard()
        running = watching(world, heard)
        await running.tell()
        world.answers[f"GET /containers/{ONE}/json"] = (200, {"State": {"Pid": 12}})
        await running.tell()
        running.moved(ONE)
        await running.tell()
        world.answers[f"GET /containers/{ONE}/json"] = (404, {"message": "No such container"})
        running.moved(ONE)
        await running.tell()
        assert [[one["pid"] for one in told] for told in heard.told] == [[11], [11], [12], []]


async def test_what_ds01_did_not_make_is_told_when_it_is_stopped_too(tmp_path: Path) -> None:
    """It may start by its restart policy. A stopped one that ds01 made is not told: its lease says what it has."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (
            200,
            [
                {"Id": ONE, "Names": ["/mine"], "Labels": world.labels(), "State": "exited"},
                {"Id": OTHER, "Names": ["/old"], "State": "exited"},
            ],
        )
        world.answers[f"GET /containers/{OTHER}/json"] = (200, FOREIGN | {"State": {"Pid": 0}})
        heard = Heard()
        running = watching(world, heard)
        await running.tell()
        expected = {"id": OTHER, "pid": None, "owner_uid": None, "name": "old", "foreign": told(runs=False)}
        assert heard.told == [[expected]]
        world.answers[f"GET /containers/{OTHER}/json"] = (500, {"message": "broken"})
        await running.tell()
        assert heard.told[1] == heard.told[0]


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((500, {"message": "broken"}), id="an inspect that fails"),
        pytest.param((200, {"State": {"Pid": 0}, "HostConfig": []}), id="an inspect of another shape"),
        pytest.param(
            (200, {"State": {"Pid": 0}, "Config": {"Env": [f"NVIDIA_VISIBLE_DEVICES={'0,' * 9000}"]}}),
            id="an inspect that is too long",
        ),
    ],
)
async def test_an_inspect_that_cannot_be_told_is_told_as_unknown(
    tmp_path: Path, answer: tuple[int, Any]
) -> None:
    """And a container that is gone again is not told at all."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [{"Id": ONE, "Names": ["/a"], "State": "paused"}])
        world.answers[f"GET /containers/{ONE}/json"] = answer
        heard = Heard()
        running = watching(world, heard)
        await running.tell()
        assert [one["foreign"] for one in heard.told[0]] == [
            {"runs": True, "inspect": None, "monitor": False}
        ]
        running.moved(ONE)
        world.answers[f"GET /containers/{ONE}/json"] = (404, {"message": "No such container"})
        await running.tell()
        assert heard.told[1] == []


async def test_what_policy_names_is_told_as_a_monitor(tmp_path: Path) -> None:
    """By name and image, as policy is now; never with a seal, though it was copied, nor with an inspect that cannot be told."""
    image = "sha256:" + "a" * 64
    named = [Monitor(container="dcgm", image=image)]
    inspect = {
        "State": {"Pid": 11},
        "Image": image,
        "Config": {"Labels": {}},
        "HostConfig": {"Runtime": "nvidia"},
    }
    sealed = {**inspect, "Config": {"Labels": {"ds01.seal": "v1"}}}
    long = {**inspect, "Config": {"Env": [f"NVIDIA_VISIBLE_DEVICES={'0,' * 9000}"]}}
    async with proxy_world(tmp_path) as world:
        heard = Heard()
        running = watching(world, heard, lambda: named)

        async def tell(name: str, answer: dict[str, Any]) -> bool:
            listed = {"Id": ONE, "Names": [f"/{name}", f"/{name}/dcgm"], "State": "running"}
            world.answers["GET /containers/json"] = (200, [listed])
            world.answers[f"GET /containers/{ONE}/json"] = (200, answer)
            await running.tell()
            told: bool = heard.told[-1][0]["foreign"]["monitor"]
            return told

        assert await tell("dcgm", inspect)
        assert not await tell("train", inspect)
        assert await tell("dcgm", inspect)
        named.clear()
        assert not await tell("dcgm", inspect)
        named.append(Monitor(container="dcgm", image=image))
        for other in ({**inspect, "Image": image.replace("a", "b")}, sealed, long, {**inspect, "Image": 5}):
            running.moved(ONE)
            assert not await tell("dcgm", other)
        world.adoptions.add(Adoption(container=ContainerId(ONE), owner=ALICE.uid))
        running.moved(ONE)
        assert not await tell("dcgm", inspect), "it is a user's by now"


async def test_what_moves_while_it_is_looked_at_is_looked_at_again(tmp_path: Path) -> None:
    """The answer may be of the run that has just ended; kept, its pid would stand for the whole next one."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (
            200,
            [{"Id": ONE, "Names": ["/a"], "Labels": world.labels(), "State": "running"}],
        )
        heard = Heard()
        running = watching(world, heard)
        pids = iter((111, 222))

        def inspected() -> tuple[int, Any]:
            pid = next(pids)
            if pid == 111:
                running.moved(ONE)
            return 200, {"State": {"Pid": pid}}

        world.answers[f"GET /containers/{ONE}/json"] = inspected
        for _ in range(3):
            await running.tell()
        assert [told[0]["pid"] for told in heard.told] == [111, 222, 222]


async def test_a_copied_seal_makes_no_owner(tmp_path: Path) -> None:
    """An image that was committed from a user's container carries its labels into whatever root makes of it."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels()
        world.answers["GET /containers/json"] = (
            200,
            [
                {"Id": OTHER, "Names": ["/copy"], "Labels": labels, "State": "running", "Created": 2},
                {"Id": ONE, "Names": ["/a"], "Labels": labels, "State": "running", "Created": 1},
            ],
        )
        for container in (ONE, OTHER):
            world.answers[f"GET /containers/{container}/json"] = (200, {"State": {"Pid": 11}})
        heard = Heard()
        await watching(world, heard).tell()
        assert {one["id"]: one["owner_uid"] for one in heard.told[0]} == {ONE: ALICE.uid, OTHER: None}


async def test_a_start_is_told_at_once_and_an_absent_allocator_later(tmp_path: Path) -> None:
    """The task goes on whatever fails."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [])
        heard = Heard()
        heard.away = True
        running = watching(world, heard)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(running.run())
            await asyncio.sleep(0.05)
            assert heard.told == []
            heard.away = False
            running.moved(ONE)
            async with asyncio.timeout(5):
                await heard.heard.wait()
            task.cancel()


async def test_many_who_ask_at_once_are_told_once(tmp_path: Path) -> None:
    """A hundred creates in front of a new allocator are one list of the engine; a later asking is told anew."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [])
        heard = Heard()
        running = watching(world, heard)
        await asyncio.gather(*(running.tell_anew() for _ in range(100)))
        assert len(heard.told) == 1
        await running.tell_anew()
        assert len(heard.told) == 2


async def test_a_telling_that_failed_is_soon_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not at the next round: meanwhile no GPU is leased. Who asked is told that it failed."""
    monkeypatch.setattr(running_module, "_AGAIN_SECONDS", 0.05)
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [])
        heard = Heard()
        heard.away = True
        running = watching(world, heard)
        with pytest.raises(Unavailable):
            await running.tell_anew()
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(running.run())
            await asyncio.sleep(0.05)
            heard.away = False
            await asyncio.wait_for(heard.heard.wait(), 5)
            task.cancel()
