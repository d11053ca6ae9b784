"""A create's lease is confirmed, given back or handed to the settlements: never forgotten."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING, Any, cast

import pytest

from http1.errors import ClientGone, UpstreamLost
from policy.dockerapi.model import Operation, Request
from policy.model import CheckBind, ContainerId, Facts, Kind, LeaseId, ObjectFact, Reference, RequestId
from policy.stand_ins import StandIns
from socket_proxy.approvals import Approvals
from socket_proxy.binds import Binds
from socket_proxy.containers import Containers
from socket_proxy.fulfil import Fulfilled
from socket_proxy.ports import LeaseRefused
from socket_proxy.refusals import Refusal, Unavailable
from socket_proxy.settle import Settlements
from socket_proxy.stand_ins import StandInStore
from socket_proxy.transaction import Transaction
from tests.fakes.proxy_world import ALICE, BOB, ENGINE, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import Uid

ID = "a" * 64
STAND_INS = StandIns("/var/lib/ds01/sources")
CREATED = (201, {"Id": ID, "Warnings": []})
BUSYBOX = Reference(kind=Kind.IMAGE, text="busybox")
FACT = ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=None, shared=True)
INSPECT = (200, {"Id": ID, "Name": "/happy_name", "Image": "sha256:1"})


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

    def __init__(
        self,
        world: ProxyWorld,
        approvals: Approvals | None = None,
        stand_ins: StandInStore | None = None,
    ) -> None:
        self.world, self.client = world, Client()
        self.looked_at: tuple[CheckBind, ...] = ()
        world.leaser.add("L1")
        self.settlements = Settlements(engine=world.engine, leaser=world.leaser, sealed=world.sealed)
        self.containers = Containers(
            engine=world.engine,
            index=world.index,
            leaser=world.leaser,
            answers=world.answering,
            approvals=approvals,
            stand_ins=stand_ins,
            binds=Binds(engine=world.engine, policy=cast("Any", None)),
            settlements=self.settlements,
            facts=world.facts,
            owners=world.owners,
            adoptions=world.adoptions,
        )

    async def create(self, **host: Any) -> Refusal | None:
        body: dict[str, Any] = {"Image": "busybox", "HostConfig": host}
        request = Request(operation=Operation.CONTAINER_CREATE, version=(1, 41), body=body)
        return await self.containers.create(
            Transaction(
                exchange=cast("Any", self.client),
                actor=ALICE,
                everything=False,
                request_id=RequestId("r1"),
                asked=request,
                request=request,
                facts=Facts(engine=ENGINE, objects={BUSYBOX: FACT}),
                fulfilled=Fulfilled(labels={}, lease=LeaseId("L1"), binds=self.looked_at),
            )
        )

    @property
    def handed_over(self) -> bool:
        return any(due.lease == "L1" for due in self.settlements._due)

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


async def test_an_engine_lost_after_the_create_leaves_the_lease_to_the_container(tmp_path: Path) -> None:
    """What was made could not be looked at, so the create is not answered as done; its lease is the container's."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.answers["POST /containers/create"] = CREATED
        with pytest.raises(UpstreamLost):
            await case.create()
        assert (case.state, case.client.answered) == ("active", [])


@pytest.mark.parametrize(("owner", "status"), [(BOB.uid, 404), (ALICE.uid, 201)])
async def test_a_container_of_an_image_that_moved_is_looked_at(
    tmp_path: Path, owner: Uid, status: int
) -> None:
    """The tag named another image by the time of the create: one that alice may not read is as absent, and goes again."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.owners.claim("sha256:2", [], owner)
        world.answers |= {
            "POST /containers/create": CREATED,
            f"GET /containers/{ID}/json": (200, {"Id": ID, "Name": "/x", "Image": "sha256:2"}),
            "GET /images/sha256:2/json": (200, {"Id": "sha256:2", "RepoTags": []}),
            f"DELETE /containers/{ID}": (200, {}),
        }
        refusal = await case.create()
        gone = f"DELETE /containers/{ID}?v=1&force=1" in world.asked
        assert (status == 404) == gone == (world.index.get(Kind.CONTAINER, ID) is None)
        if refusal is not None:
            assert (refusal.status, refusal.message) == (404, "No such image: busybox:latest")
            assert case.state == "released"
        assert (refusal is not None) == gone


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


async def test_the_approval_is_there_before_the_answer(tmp_path: Path) -> None:
    """A client that starts what it was told of finds it; with the container it goes."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        case = Case(world, approvals)
        case.client.left = True  # the answer fails: what was written by then is what counts
        world.answers |= {"POST /containers/create": CREATED, f"GET /containers/{ID}/json": INSPECT}
        with pytest.raises(ClientGone):
            await case.create()
        found = approvals.find(ContainerId(ID))
        assert found is not None
        assert (found.uid, found.lease) == (ALICE.uid, "L1")
        await case.containers.forget(ID)
        assert approvals.kept() == frozenset()


@pytest.mark.parametrize("problem", ["a full disk", "a path nobody looked at"])
async def test_a_container_that_cannot_be_recorded_is_taken_away(tmp_path: Path, problem: str) -> None:
    """The client gets no id, the lease is settled later, and dockerd keeps nothing."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        case = Case(world, approvals)
        world.answers |= {"POST /containers/create": CREATED, f"DELETE /containers/{ID}": (204, None)}
        binds = ["/home/alice:/h"] if problem == "a path nobody looked at" else []
        if not binds:
            (tmp_path / "approvals").rmdir()
        with pytest.raises(Unavailable, match="cannot be recorded"):
            await case.create(Binds=binds)
        # The fake engine leaves the create's body in front of the next line.
        assert world.asked[-1].endswith(f"DELETE /containers/{ID}?v=1&force=1")
        assert (case.handed_over, case.client.answered) == (True, [])


async def test_dockerd_is_told_stand_ins_and_the_approval_keeps_the_paths(tmp_path: Path) -> None:
    """dockerd never hears the user's path; the guard reads what is meant by it."""
    stand_ins = StandIns(str(tmp_path / "sources"))
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, stand_ins)
        case = Case(world, approvals, StandInStore(stand_ins))
        world.answers |= {"POST /containers/create": CREATED, f"GET /containers/{ID}/json": INSPECT}
        look = {"read_only": False, "create": True, "setuid_ok": False, "field": "x"}
        case.looked_at = (CheckBind(source="/home/alice/d", target="/d", **look),)  # type: ignore[arg-type]  # as given
        await case.create(Binds=["/home/alice/d:/d"])
        told = f"{stand_ins.root}/{ALICE.uid}/3rw/home/alice/d"
        assert json.loads(world.bodies[0])["HostConfig"]["Binds"] == [f"{told}:/d"]
        approval = approvals.find(ContainerId(ID))
        assert approval is not None
        assert [(mount.source, mount.told) for mount in approval.mounts] == [("/home/alice/d", told)]
        assert (tmp_path / "sources").joinpath(told).is_dir()


async def test_a_create_that_cannot_be_told_gives_its_lease_back(tmp_path: Path) -> None:
    """dockerd was not asked, so no container can carry it."""
    stand_ins = StandIns(str(tmp_path / "sources"))
    async with proxy_world(tmp_path) as world:
        case = Case(world, None, StandInStore(stand_ins))
        refusal = await case.create(Binds=["/home/alice" + "/d" * 2040 + ":/d"])
        assert refusal is not None
        assert (refusal.status, case.state, world.asked) == (403, "released", [])


@pytest.mark.parametrize("status", [409, 503])
async def test_a_start_that_the_allocator_refuses_is_refused_in_its_words(
    tmp_path: Path, status: int
) -> None:
    """They say what has become of the devices, or that nobody can say; one that it allows is not."""
    async with proxy_world(tmp_path) as world:
        case = Case(world)
        world.leaser.add("L1", state="held", container=ID)
        assert await case.containers._lease_refusal(LeaseId("L1"), ContainerId(ID)) is None
        world.leaser.start_refused = LeaseRefused(
            status=status, message="ds01: MIG device 2:0 is another one"
        )
        assert await case.containers._lease_refusal(LeaseId("L1"), ContainerId(ID)) == Refusal(
            status=status, message="ds01: MIG device 2:0 is another one", rules=("gpu_lease",)
        )
        told = await case.containers._lease_refusal(LeaseId("L2"), ContainerId(ID))
        assert told is not None
        assert (told.status, "has ended (rule gpu_lease); create" in told.message) == (409, True)
