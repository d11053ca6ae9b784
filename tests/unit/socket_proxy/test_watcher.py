"""The index follows the engine, and gives up no lease of a container that exists."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from host.clock import boottime_ms
from policy.approval import Approval
from policy.model import Adopted, ContainerId, Kind, LeaseId, Uid
from policy.stand_ins import StandIns
from socket_proxy.adoptions import Adoption
from socket_proxy.approvals import Approvals
from socket_proxy.entries import Entries
from socket_proxy.index import Entry
from socket_proxy.refusals import EngineError
from socket_proxy.seal import SealedContainers
from socket_proxy.watcher import Watcher, _Event
from tests.fakes.proxy_world import ALICE, BOB, ProxyWorld, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = "a" * 64, "b" * 64
STAND_INS = StandIns("/var/lib/ds01/sources")


def watcher(world: ProxyWorld, approvals: Approvals | None = None) -> Watcher:
    world.answers |= {
        "GET /networks": (200, []),
        "GET /volumes": (200, {"Volumes": None}),
        "GET /images/json": (200, [{"RepoTags": ["ds01.invalid/u1001/app:1", "busybox:latest"]}]),
    }
    return Watcher(
        engine=world.engine,
        index=world.index,
        facts=world.facts,
        entries=Entries(
            sealer=world.sealer,
            sealed=SealedContainers(world.sealer, approvals),
            adoptions=world.adoptions,
            records=world.records,
        ),
        records=world.records,
        images=world.owners,
        leaser=world.leaser,
        approvals=approvals,
        adoptions=world.adoptions,
    )


def listed(container: str, labels: dict[str, str], created: int = 1) -> dict[str, Any]:
    return {"Id": container, "Names": [f"/n{created}"], "Labels": labels, "Created": created}


def happened(action: str, container: str, labels: dict[str, str]) -> _Event:
    attributes = {"name": "n", **labels}
    event = {"Type": "container", "Action": action, "Actor": {"ID": container, "Attributes": attributes}}
    return msgspec.convert(event, _Event)


async def test_a_container_made_during_the_list_keeps_its_lease(tmp_path: Path) -> None:
    """A list that was asked for before a create ended does not end the create's container."""
    async with proxy_world(tmp_path) as world:
        follower, gone = watcher(world), []

        def meanwhile() -> tuple[int, Any]:
            world.index.put(Entry(kind=Kind.CONTAINER, id=NEW, name="new", owner=ALICE.uid))
            return 200, []

        async def note(container: str) -> None:
            gone.append(container)

        world.index.put(Entry(kind=Kind.CONTAINER, id=OLD, name="old", owner=ALICE.uid))
        world.answers["GET /containers/json"] = meanwhile
        follower.container_gone = note
        await follower.rebuild()
        assert gone == [OLD]
        assert world.index.ids(Kind.CONTAINER) == {NEW}


@pytest.mark.parametrize("change", [{"ds01.uid": "1002"}, {"ds01.seal": "v1.x"}, {"ds01.lease": "L9"}])
async def test_a_changed_seal_proves_nothing(tmp_path: Path, change: dict[str, str]) -> None:
    """A label set that was not sealed as it stands makes the container unmanaged."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [listed(OLD, {**world.labels(), **change})])
        await watcher(world).rebuild()
        entry = world.index.get(Kind.CONTAINER, OLD)
        assert entry is not None
        assert (entry.owner, entry.lease) == (None, None)


async def test_of_two_containers_with_one_seal_the_older_has_it(tmp_path: Path) -> None:
    """dockerd lists the newest first; a copy made from a committed image is not the owner's, nor in the evidence."""
    async with proxy_world(tmp_path) as world:
        labels = world.labels(BOB, lease="L1")
        world.answers["GET /containers/json"] = (200, [listed(NEW, labels, 2), listed(OLD, labels, 1)])
        follower = watcher(world)
        await follower.rebuild()
        await follower.send_evidence()
        old, new = world.index.get(Kind.CONTAINER, OLD), world.index.get(Kind.CONTAINER, NEW)
        assert old is not None
        assert new is not None
        assert (old.owner, new.owner, new.lease) == (BOB.uid, None, None)
        assert [held.container for held in world.leaser.held] == [OLD]


async def test_evidence_is_as_old_as_the_asking(tmp_path: Path) -> None:
    """Not as its arrival: what is leased while the engine answers is not in the list for certain."""
    async with proxy_world(tmp_path) as world:
        answered: list[int] = []

        def slowly() -> tuple[int, Any]:
            answered.append(boottime_ms())
            time.sleep(0.01)
            return 200, []

        world.answers["GET /containers/json"] = slowly
        await watcher(world).send_evidence()
        assert world.leaser.asked is not None
        assert world.leaser.asked.at_ms <= answered[0]


async def test_each_may_have_moved_while_the_engine_was_not_followed(tmp_path: Path) -> None:
    """After dockerd has started again, a container of before has another process."""
    async with proxy_world(tmp_path) as world:
        world.answers["GET /containers/json"] = (200, [listed(OLD, {}), listed(NEW, world.labels())])
        follower = watcher(world)
        moved: list[str] = []
        follower.container_moved = moved.append
        await follower.rebuild()
        assert moved == [OLD, NEW]


async def test_what_is_made_and_removed_past_ds01_is_told_at_once(tmp_path: Path) -> None:
    """Whoever keeps track of what containers have; what ds01 made is told by its own leases."""
    async with proxy_world(tmp_path) as world:
        follower = watcher(world)
        moved: list[str] = []
        follower.container_moved = moved.append
        for action in ("create", "destroy"):
            for container, labels in ((OLD, {}), (NEW, world.labels())):
                await follower._apply(happened(action, container, labels))
        assert moved == [OLD, OLD]


async def test_a_build_step_with_the_labels_of_a_removed_container_is_nobodys(tmp_path: Path) -> None:
    """It has no approval: neither the index nor the evidence takes it for what its Dockerfile says, once it was started."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        approvals.write(Approval(container=ContainerId(OLD), engine_id="e" * 32, uid=Uid(1)))
        follower = watcher(world, approvals)
        step = world.labels(lease="L1", request="r1")
        await follower._apply(happened("create", NEW, step))
        assert world.index.get(Kind.CONTAINER, NEW) is not None
        await follower._apply(happened("start", NEW, step))
        found = world.index.get(Kind.CONTAINER, NEW)
        assert found is not None
        assert (found.owner, found.lease) == (None, None)
        world.answers["GET /containers/json"] = (
            200,
            [
                listed(NEW, step) | {"State": "running"},
                listed(OLD, world.labels(lease="L2", request="r2"), 2) | {"State": "running"},
                listed("c" * 64, world.labels(lease="L3", request="r3"), 3) | {"State": "created"},
            ],
        )
        await follower.rebuild()
        owners = [entry.owner for entry in sorted(world.index.all(Kind.CONTAINER), key=lambda each: each.id)]
        assert owners == [ALICE.uid, None, ALICE.uid]
        await follower.send_evidence()
        assert {held.lease for held in world.leaser.held} == {"L2", "L3"}


async def test_what_was_approved_stays_its_owners_when_it_starts(tmp_path: Path) -> None:
    """The approval is written before the client learns the id, so that it is there at every start."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        follower = watcher(world, approvals)
        await follower._apply(happened("create", NEW, world.labels()))
        approvals.write(Approval(container=ContainerId(NEW), engine_id="e" * 32, uid=ALICE.uid))
        await follower._apply(happened("start", NEW, world.labels()))
        found = world.index.get(Kind.CONTAINER, NEW)
        assert found is not None
        assert found.owner == ALICE.uid


async def test_approvals_of_what_is_gone_are_dropped(tmp_path: Path) -> None:
    """Those of containers that were removed while nobody watched, and not one that is written during the list."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        follower = watcher(world, approvals)

        def approve(container: str) -> None:
            approvals.write(Approval(container=ContainerId(container), engine_id="e" * 32, uid=Uid(1)))

        def meanwhile() -> tuple[int, Any]:
            approve("c" * 64)
            return 200, [listed(NEW, {})]

        approve(OLD)
        approve(NEW)
        world.answers["GET /containers/json"] = meanwhile
        await follower.rebuild()
        assert approvals.kept() == {NEW, "c" * 64}


async def test_a_list_that_fails_drops_no_approval(tmp_path: Path) -> None:
    """An engine that says nothing does not say that there is nothing."""
    async with proxy_world(tmp_path) as world:
        approvals = Approvals(tmp_path / "approvals", world.keys, STAND_INS)
        approvals.write(Approval(container=ContainerId(OLD), engine_id="e" * 32, uid=Uid(1)))
        world.answers["GET /containers/json"] = (500, {"message": "broken"})
        with pytest.raises(EngineError):
            await watcher(world, approvals).rebuild()
        assert approvals.kept() == {OLD}


async def test_what_was_adopted_is_its_owners_until_it_is_gone(tmp_path: Path) -> None:
    """Without a seal the record says whose it is; a seal says more than the record. The allocator hears of its lease."""
    async with proxy_world(tmp_path) as world:
        old, sealed, gone = (ContainerId(letter * 64) for letter in "abc")
        for one in (old, sealed, gone):
            world.adoptions.add(Adoption(container=one, owner=Uid(1002), closed="x", lease=LeaseId("L7")))
        world.answers["GET /containers/json"] = (200, [listed(old, {}), listed(sealed, world.labels(), 2)])
        follower = watcher(world)
        await follower.rebuild()
        entry, other = (world.index.get(Kind.CONTAINER, one) for one in (old, sealed))
        assert entry is not None
        assert other is not None
        assert (entry.owner, entry.lease, entry.adopted) == (1002, "L7", Adopted(closed="x"))
        assert (other.owner, other.lease, other.adopted) == (ALICE.uid, None, None)
        assert (world.adoptions.of(gone), world.adoptions.of(old) is None) == (None, False)
        await follower.send_evidence()
        (held,) = world.leaser.held
        assert (held.container, held.lease, held.owner_uid) == (old, "L7", 1002)
