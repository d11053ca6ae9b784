"""A create's lease is confirmed, given back or handed to the settlements: never forgotten."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

from http1.errors import ClientGone, UpstreamLost
from policy.dockerapi.model import Operation, Request
from policy.model import Facts, Kind, LeaseId, RequestId
from socket_proxy.answers import Answers
from socket_proxy.binds import Binds
from socket_proxy.containers import Containers
from socket_proxy.fulfil import Fulfilled
from socket_proxy.refusals import Unavailable
from socket_proxy.settle import Settlements
from socket_proxy.transaction import Transaction
from tests.fakes.proxy_world import ALICE, ENGINE, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

ID = "a" * 64
CREATED = (201, {"Id": ID, "Warnings": []})
INSPECT = (200, {"Id": ID, "Name": "/happy_name"})


class Client:
    """The exchange of a create; `left` makes the answer fail, as when the client is gone."""

    def __init__(self) -> None:
        self.head = type("Head", (), {"method": "POST", "chunked": False, "content_length": 2})()
        self.may_hijack = False
        self.left = False
        self.answered: list[tuple[int, bytes]] = []

    def on_gone(self, callback: object) -> None:
        """Nobody leaves by himself here."""

    async def respond(self, status: int, _headers: object, body: bytes) -> None:
        if self.left:
            raise ClientGone("left")
        self.answered.append((status, body))


class Case:
    """One create with lease L1."""

    def __init__(self, world: ProxyWorld) -> None:
        self.world, self.client = world, Client()
        world.leaser.add("L1")
        self.settlements = Settlements(engine=world.engine, leaser=world.leaser, sealer=world.sealer)
        self.containers = Containers(
            engine=world.engine,
            index=world.index,
            leaser=world.leaser,
            answers=Answers(engine=world.engine, index=world.index, learn=cast("Any", None)),
            binds=Binds(engine=world.engine, policy=cast("Any", None)),
            settlements=self.settlements,
        )

    async def create(self) -> None:
        request = Request(operation=Operation.CONTAINER_CREATE, version=(1, 41), body={"Image": "busybox"})
        await self.containers.create(
            Transaction(
                exchange=cast("Any", self.client),
                actor=ALICE,
                everything=False,
                request_id=RequestId("r1"),
                asked=request,
                request=request,
                facts=Facts(engine=ENGINE),
                fulfilled=Fulfilled(labels={}, lease=LeaseId("L1")),
            )
        )

    @property
    def handed_over(self) -> bool:
        return any(lease == "L1" for _, lease in self.settlements._due)

    @property
    def state(self) -> str:
        return self.world.leaser.state("L1")


async def test_a_created_container_has_its_lease_and_its_name(tmp_path: Path) -> None:
    """After the answer the lease is active, and the index knows owner, lease and dockerd's name."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.answers |= {"POST /containers/create": CREATED, f"GET /containers/{ID}/json": INSPECT}
        await case.create()
        entry = world.index.get(Kind.CONTAINER, ID)
        assert entry is not None
        assert (entry.owner, entry.lease, entry.name) == (ALICE.uid, "L1", "happy_name")
        assert (case.state, case.handed_over, case.client.answered[0][0]) == ("active", False, 201)


async def test_a_refused_create_gives_its_lease_back(tmp_path: Path) -> None:
    """dockerd's own no means that no container carries the lease."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.answers["POST /containers/create"] = (409, {"message": "in use"})
        await case.create()
        assert (case.state, case.client.answered[0][0]) == ("released", 409)


async def test_a_lost_engine_leaves_the_lease_pending(tmp_path: Path) -> None:
    """The create may have happened: the devices stay, and the settlements find out."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        with pytest.raises(UpstreamLost):
            await case.create()
        assert (case.state, case.handed_over) == ("pending", True)


async def test_an_unreadable_answer_leaves_the_lease_pending(tmp_path: Path) -> None:
    """A 201 without an id is a container that somebody must look for."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.answers["POST /containers/create"] = (201, {"Nothing": 1})
        with pytest.raises(Exception, match="Id"):
            await case.create()
        assert (case.state, case.handed_over) == ("pending", True)


async def test_an_engine_lost_after_the_create_changes_nothing(tmp_path: Path) -> None:
    """The name could not be asked for; the create is answered and its lease confirmed all the same."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.answers["POST /containers/create"] = CREATED
        await case.create()
        assert (case.state, case.client.answered[0][0]) == ("active", 201)


async def test_a_client_that_left_changes_nothing(tmp_path: Path) -> None:
    """The lease is the container's, whether or not anybody reads the answer."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        case.client.left = True
        world.answers |= {"POST /containers/create": CREATED, f"GET /containers/{ID}/json": INSPECT}
        with pytest.raises(ClientGone):
            await case.create()
        assert case.state == "active"


@pytest.mark.parametrize("failure", [Unavailable("down"), asyncio.CancelledError(), RuntimeError("bug")])
@pytest.mark.parametrize(("verb", "answer"), [("confirm", CREATED), ("release", (400, {"message": "no"}))])
async def test_a_failing_allocator_hands_the_lease_over(
    tmp_path: Path, verb: str, answer: tuple[int, Any], failure: BaseException
) -> None:
    """Whatever keeps the allocator from being told, the settlements tell it later."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.leaser.fails[verb] = failure
        world.answers |= {"POST /containers/create": answer, f"GET /containers/{ID}/json": INSPECT}
        with suppress(asyncio.CancelledError, RuntimeError):
            await case.create()
        assert case.handed_over


async def test_a_create_cancelled_anywhere_forgets_no_lease(tmp_path: Path) -> None:
    """Cut at each turn of the loop, the lease ends active, released or handed over."""
    for turns in range(12):
        path = tmp_path / str(turns)
        path.mkdir()
        async with proxy_world(path) as world:
            case = Case(world)
            world.answers |= {"POST /containers/create": CREATED, f"GET /containers/{ID}/json": INSPECT}
            async with asyncio.TaskGroup() as group:
                task = group.create_task(case.create())
                for _ in range(turns):
                    await asyncio.sleep(0)
                begun = turns > 0
                task.cancel()
            assert not begun or case.handed_over or case.state == "active"
