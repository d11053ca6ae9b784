"""`docker cp` reaches dockerd only while the guard has pinned what its stand-ins stand for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Self, cast

import pytest

from policy.approval import Approval, ApprovedMount, Source
from policy.dockerapi.model import Operation
from policy.model import CheckBind, ContainerId
from policy.stand_ins import StandIn, StandIns
from socket_proxy.approvals import Approvals
from socket_proxy.binds import Binds
from socket_proxy.copies import Copies
from socket_proxy.refusals import Refusal, Unavailable
from tests.fakes.proxy_world import ALICE, ProxyWorld, proxy_world
from tests.fakes.transactions import Client, transaction

if TYPE_CHECKING:
    from pathlib import Path

ID = ContainerId("a" * 64)
STAND_INS = StandIns("/var/lib/ds01/sources")
TOLD = STAND_INS.path(StandIn(source="/home/alice/d", uid=ALICE.uid, read_only=False))
NO = Refusal(status=403, message="ds01: no (rule bind_mounts); put it back", rules=("bind_mounts",))


class FakePins:
    """Pins of one copy."""

    def __init__(self, world: ProxyWorld, *, lost: bool) -> None:
        self._world, self._lost = world, lost

    def check(self) -> None:
        if self._lost:
            raise Unavailable("the guard went away")

    async def __aenter__(self) -> Self:
        self._world.asked.append("pinned")
        return self

    async def __aexit__(self, *_: object) -> None:
        self._world.asked.append("unpinned")


class FakeGuard:
    """Says one thing of every copy."""

    def __init__(self, world: ProxyWorld, said: Refusal | None, *, lost: bool) -> None:
        self._world, self._said, self._lost = world, said, lost

    async def pin(self, container: ContainerId) -> FakePins | Refusal:
        assert container == ID
        return self._said or FakePins(self._world, lost=self._lost)


async def copy(
    world: ProxyWorld,
    room: Path,
    *,
    told: str = TOLD,
    said: Refusal | None = None,
    lost: bool = False,
    operation: Operation = Operation.CONTAINER_ARCHIVE,
) -> tuple[Refusal | None, Client, list[str]]:
    """One copy out of a container that mounts /home/alice/d, which is there."""
    approvals = Approvals(room / "approvals", world.keys, STAND_INS)
    mount = ApprovedMount(kind=Source.PATH, source="/home/alice/d", target="/d", told=told)
    approvals.write(Approval(container=ID, engine_id=world.keys.engine_id, uid=ALICE.uid, mounts=(mount,)))
    binds = Binds(engine=world.engine, policy=cast("Any", None), stand_ins=STAND_INS)
    binds.remember(ID, cast("tuple[CheckBind, ...]", ()))
    world.answers[""] = (200, {"tar": "x"})
    copies = Copies(
        answers=world.answering,
        binds=binds,
        approvals=approvals,
        guard=cast("Any", FakeGuard(world, said, lost=lost)),
    )
    asked, client = transaction(operation, query={"path": ("/d",)}, container=ID)
    refusal = await copies.by_operation[operation](asked)
    return refusal, client, [line.partition("?")[0] for line in world.asked]


COPY = f"GET /containers/{ID}/archive"


async def test_dockerd_is_asked_while_the_sources_are_pinned(tmp_path: Path) -> None:
    """And they are given up when the answer is through."""
    async with proxy_world(tmp_path) as world:
        refusal, client, asked = await copy(world, tmp_path)
        assert (refusal, client.status) == (None, 200)
        assert asked == ["pinned", COPY, "unpinned"]


async def test_uploads_are_held_to_the_same(tmp_path: Path) -> None:
    """Reading and writing as root are the same door."""
    async with proxy_world(tmp_path) as world:
        _, _, asked = await copy(world, tmp_path, operation=Operation.PUT_CONTAINER_ARCHIVE)
        assert asked == ["pinned", COPY.replace("GET", "PUT"), "unpinned"]


async def test_what_the_guard_refuses_is_not_asked(tmp_path: Path) -> None:
    """The user gets its sentence."""
    async with proxy_world(tmp_path) as world:
        refusal, _, asked = await copy(world, tmp_path, said=NO)
        assert (refusal, asked) == (NO, [])


async def test_without_the_pins_the_answer_is_not_passed_on(tmp_path: Path) -> None:
    """dockerd may have copied out of an empty stand-in: that is no answer."""
    async with proxy_world(tmp_path) as world:
        with pytest.raises(Unavailable):
            await copy(world, tmp_path, lost=True)
        assert world.asked[-1] == "unpinned"


async def test_a_container_without_stand_ins_needs_no_guard(tmp_path: Path) -> None:
    """One that mounts nothing of the host, or is from before."""
    async with proxy_world(tmp_path) as world:
        _, client, asked = await copy(world, tmp_path, told="", said=NO)
        assert (client.status, asked) == (200, [COPY])
