"""Exec in another's container: never where it would make its user the owner."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from policy.dockerapi.model import Operation
from policy.model import ContainerId, Facts, Kind, ObjectFact, Reference, Share
from policy.names import real
from policy.stand_ins import StandIn, StandIns
from socket_proxy.index import Entry
from socket_proxy.refusals import Refusal
from socket_proxy.shared_execs import SharedExecs
from tests.fakes.proxy_world import ALICE, BOB, ENGINE, ProxyWorld, proxy_world
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.transaction import Transaction

ONE, TWO, THREE = (ContainerId(letter * 64) for letter in "abc")
RUN = "/srv/ds01/run"


class Case:
    def __init__(self, world: ProxyWorld) -> None:
        self.world = world
        self.passed: list[str] = []
        self.execs = SharedExecs(
            engine=world.engine,
            index=world.index,
            answers=cast("Any", self),
            containers=cast("Any", self),
            socket_paths=(RUN, "/run/docker.sock"),
        )
        self.mounts: dict[str, list[dict[str, str]]] = {}
        world.answers["GET /containers/json"] = lambda: (
            200,
            [{"Id": each, "Mounts": self.mounts.get(each, [])} for each in (ONE, TWO, THREE)],
        )
        for container in (ONE, TWO, THREE):
            self.joins(container, "")
            world.index.put(
                Entry(kind=Kind.CONTAINER, id=container, name=real(ALICE.uid, container[0]), owner=ALICE.uid)
            )

    def joins(self, container: str, other: str) -> None:
        mode = f"container:{other}" if other else ""
        self.world.answers[f"GET /containers/{container}/json"] = (200, {"HostConfig": {"PidMode": mode}})

    async def exec_create(self, _: Transaction) -> None:
        self.passed.append("create")

    async def hijack(self, _: Transaction) -> None:
        self.passed.append("start")

    async def asked(self, container: ContainerId = ONE, *, share: Share = Share.USE) -> list[Refusal | None]:
        """Both calls of an exec."""
        answers = []
        for operation, kind in (
            (Operation.CONTAINER_EXEC, Kind.CONTAINER),
            (Operation.EXEC_START, Kind.EXEC),
        ):
            made, _ = transaction(operation, actor=BOB if share is Share.USE else ALICE)
            fact = ObjectFact(kind=kind, id=container, owner=ALICE.uid, share=share, container=container)
            facts = Facts(engine=ENGINE, objects={Reference(kind=kind, text="x"): fact})
            answers.append(await self.execs.by_operation[operation](replace(made, facts=facts)))
        return answers


async def test_where_there_is_no_socket_it_goes_on(tmp_path: Path) -> None:
    """One question to dockerd for each call, whoever shares processes with whom."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        case.mounts[ONE] = [{"Type": "bind", "Source": "/home/alice"}, {"Type": "volume", "Source": RUN}]
        case.joins(TWO, ONE)
        assert await case.asked() == [None, None]
        assert case.passed == ["create", "start"]
        assert len(world.asked) == 2
        assert "ds01.uid%3D1001" in world.asked[0]


@pytest.mark.parametrize(
    "source",
    [
        f"{RUN}/users/alice/docker.sock",
        f"{RUN}/users/alice",
        RUN,
        "/srv",
        "/run/docker.sock",
        "/var/run/docker.sock",
        "/run",
        "/",
    ],
)
async def test_where_the_owners_socket_is_mounted_it_is_refused(tmp_path: Path, source: str) -> None:
    """As a file, or in any directory above; create and start alike, and neither reaches dockerd."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        case.mounts[ONE] = [{"Type": "bind", "Source": source}]
        for refusal in await case.asked():
            assert isinstance(refusal, Refusal)
            assert (refusal.status, refusal.rules) == (403, ("share",))
            assert "Docker socket" in refusal.message
        assert case.passed == []


@pytest.mark.parametrize(
    ("joins", "refused"),
    [
        ([(ONE, TWO)], True),
        ([(TWO, ONE)], True),
        ([(ONE, THREE), (TWO, THREE)], True),
        ([(ONE, THREE)], False),
        ([], False),
    ],
    ids=["joins it", "is joined by it", "both join a third", "joins another", "apart"],
)
async def test_beside_the_processes_of_such_a_container_it_is_refused(
    tmp_path: Path, joins: list[tuple[str, str]], *, refused: bool
) -> None:
    """In a shared PID namespace /proc/PID/root leads to the socket of every container in it."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        case.mounts[TWO] = [{"Type": "bind", "Source": f"{RUN}/users/alice/docker.sock"}]
        for container, other in joins:
            case.joins(container, other)
        assert [isinstance(each, Refusal) for each in await case.asked()] == [refused, refused]


async def test_ones_own_exec_is_not_looked_at(tmp_path: Path) -> None:
    """Its user is the owner already."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        case.mounts[ONE] = [{"Type": "bind", "Source": RUN}]
        assert await case.asked(share=Share.NONE) == [None, None]
        assert world.asked == []


async def test_a_socket_is_known_by_its_stand_in_too(tmp_path: Path) -> None:
    """dockerd names host paths by stand-ins (ADR 0016): one of a directory with the socket is that directory."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        stand_ins = StandIns("/var/lib/ds01/stand-ins")
        case.execs._stand_ins = stand_ins
        source = stand_ins.path(StandIn(source=f"{RUN}/users/alice", uid=ALICE.uid, read_only=False))
        case.mounts[ONE] = [{"Type": "bind", "Source": source}]
        assert [isinstance(each, Refusal) for each in await case.asked()] == [True, True]
        other = stand_ins.path(StandIn(source="/home/alice", uid=ALICE.uid, read_only=False))
        case.mounts[ONE] = [{"Type": "bind", "Source": other}]
        assert await case.asked() == [None, None]
