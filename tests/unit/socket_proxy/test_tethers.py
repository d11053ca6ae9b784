"""Answers that hang on a share end with it, within a second of looking; all others are left alone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar, cast

import pytest

from http1.errors import ClientGone
from observability.audit import AuditUnavailable
from policy.dockerapi.model import Operation
from policy.model import Adopted, ContainerId, Facts, Kind, ObjectFact, Reference, Share
from socket_proxy import tethers
from socket_proxy.index import Entry
from socket_proxy.refusals import Refusal
from socket_proxy.tethers import Tethers
from tests.fakes.proxy_world import ALICE, BOB, ENGINE
from tests.fakes.sharing_world import WEB, SharingWorld, by_policy
from tests.fakes.transactions import Client, transaction

if TYPE_CHECKING:
    from collections.abc import Awaitable, Coroutine, Iterator
    from pathlib import Path

    from socket_proxy.transaction import Transaction


T = TypeVar("T")


def _started(call: Awaitable[T]) -> asyncio.Task[T]:
    return asyncio.get_running_loop().create_task(cast("Coroutine[Any, Any, T]", call))


class Case:
    def __init__(self, world: SharingWorld) -> None:
        self.world = world
        self.noted: list[dict[str, Any]] = []
        self.ready = asyncio.Event()
        self.ready.set()
        self.full = False
        self.tethers = Tethers(
            shared=world.shared,
            granted=world.granted,
            index=world.index,
            facts=cast("Any", self),
            policy=lambda: world.policy,
            trail=cast("Any", self),
        )
        self.begun = asyncio.Event()

    def note(self, record: dict[str, Any]) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.noted.append(record)

    async def waits(self, _: Transaction) -> Refusal | None:
        """A handler like that of `logs -f`."""
        self.begun.set()
        await asyncio.Event().wait()
        return None

    async def over(self, made: Transaction) -> Refusal | None:
        """How it ends when the share is gone."""
        task = _started(self.tethers.holding(self.waits)(made))
        await self.begun.wait()
        self.tethers.look()
        await asyncio.sleep(0.01)
        assert not task.done(), "it goes on as long as the share"
        self.world.granted.end(WEB, "user:1002")
        self.tethers.look()
        return await asyncio.wait_for(task, 2)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SharingWorld]:
    world = SharingWorld(tmp_path)
    yield world
    world.records.close()


def about(
    operation: Operation = Operation.CONTAINER_LOGS, *, share: Share = Share.USE, exec_in: bool = False
) -> tuple[Transaction, Client]:
    made, client = transaction(operation, actor=BOB, container=WEB)
    kind = Kind.EXEC if exec_in else Kind.CONTAINER
    fact = ObjectFact(
        kind=kind,
        id="e" * 64 if exec_in else WEB,
        owner=ALICE.uid,
        share=share,
        container=ContainerId(WEB) if exec_in else None,
    )
    facts = Facts(engine=ENGINE, objects={Reference(kind=kind, text="x"): fact})
    return replace(made, facts=facts), client


@pytest.mark.parametrize("exec_in", [False, True], ids=["container", "exec"])
async def test_a_stream_ends_with_its_share(world: SharingWorld, *, exec_in: bool) -> None:
    """Its connection is closed: half an answer must not look like a whole one."""
    world.grant(share=Share.USE)
    made, client = about(Operation.EXEC_START if exec_in else Operation.CONTAINER_LOGS, exec_in=exec_in)
    client.status = 200
    with pytest.raises(ClientGone):
        await Case(world).over(made)


async def test_before_the_answer_began_it_says_why(world: SharingWorld) -> None:
    """A wait for dockerd's first byte becomes a refusal of the rule."""
    world.grant(share=Share.USE)
    refusal = await Case(world).over(about()[0])
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rules) == (403, ("share",))


async def test_less_of_a_share_ends_what_needs_more(world: SharingWorld) -> None:
    """From use to view: logs end, numbers go on."""
    world.grant(share=Share.USE)
    case = Case(world)
    logs, stats = (
        _started(case.tethers.holding(case.waits)(about(each)[0]))
        for each in (Operation.CONTAINER_LOGS, Operation.CONTAINER_STATS)
    )
    await asyncio.sleep(0.01)
    world.grant(share=Share.VIEW)
    case.tethers.look()
    assert isinstance(await asyncio.wait_for(logs, 2), Refusal)
    assert not stats.done()
    stats.cancel()
    await asyncio.gather(stats, return_exceptions=True)
    assert case.tethers._held == {}


async def test_what_is_no_share_is_not_held(world: SharingWorld) -> None:
    """One's own logs are nobody's to end, and a handler's own timeout stays its own."""
    case = Case(world)

    async def fails(_: Transaction) -> None:
        raise TimeoutError("its own")

    own, _ = transaction(Operation.CONTAINER_LOGS, actor=ALICE, container=WEB)
    with pytest.raises(TimeoutError, match="its own"):
        await case.tethers.holding(fails)(own)
    with pytest.raises(TimeoutError, match="its own"):
        await case.tethers.holding(fails)(about()[0])


async def test_what_was_given_ends_when_it_is_taken_back(world: SharingWorld) -> None:
    """Streams of whom a container from before ds01 was given; admins need no such leave, and other containers none."""
    case, old = Case(world), "f" * 64
    given = Entry(kind=Kind.CONTAINER, id=old, name="old", owner=BOB.uid, adopted=Adopted())
    world.index.put(given)
    made, client = transaction(Operation.CONTAINER_LOGS, actor=BOB, container=old)
    facts = Facts(engine=ENGINE, objects={Reference(kind=Kind.CONTAINER, text="old"): given.fact()})
    made, client.status = replace(made, facts=facts), 200
    theirs, admins = (
        _started(case.tethers.holding(case.waits)(one)) for one in (made, replace(made, everything=True))
    )
    await asyncio.sleep(0.01)
    case.tethers.look()
    await asyncio.sleep(0.01)
    assert not theirs.done()
    world.index.put(replace(given, owner=None, adopted=None))
    case.tethers.look()
    with pytest.raises(ClientGone):
        await asyncio.wait_for(theirs, 2)
    assert not admins.done()
    admins.cancel()
    await asyncio.gather(admins, return_exceptions=True)


@pytest.mark.parametrize("how", ["time", "policy", "removed"])
async def test_every_end_is_seen_by_the_clock(
    world: SharingWorld, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """By itself: the time is over, the policy was reloaded, the container has gone."""
    monkeypatch.setattr(tethers, "LOOK_SECONDS", 0.01)
    case = Case(world)
    if how == "policy":
        world.reload(by_policy(Share.USE))
        await world.shared.refresh(BOB.uid)
    else:
        world.grant(share=Share.USE)
    clock = _started(case.tethers.run())
    task = _started(case.tethers.holding(case.waits)(about()[0]))
    await asyncio.sleep(0.1)
    assert not task.done()
    match how:
        case "time":
            world.now_ms = 60_000
        case "policy":
            world.reload(by_policy(Share.VIEW))
        case _:
            world.index.drop(Kind.CONTAINER, WEB)
    assert isinstance(await asyncio.wait_for(task, 2), Refusal)
    clock.cancel()
    await asyncio.gather(clock, return_exceptions=True)
    over = [] if how == "policy" else [("container.share_over", WEB, 1001, ["user:1002"])]
    assert [
        (each["event"], each["container"], each["owner_uid"], each["with"]) for each in case.noted
    ] == over
    assert world.granted.containers() == ()


async def test_an_index_that_is_not_ready_says_nothing_of_what_has_gone(
    world: SharingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While dockerd restarts every container is missing, and every share stays."""
    monkeypatch.setattr(tethers, "LOOK_SECONDS", 0.01)
    world.grant()
    case = Case(world)
    case.ready.clear()
    world.index.drop(Kind.CONTAINER, WEB)
    clock = _started(case.tethers.run())
    await asyncio.sleep(0.1)
    assert world.granted.containers() == (WEB,)
    case.full = True
    case.ready.set()
    await asyncio.sleep(0.1)
    assert world.granted.containers() == (), "what cannot be recorded is over all the same"
    assert not clock.done()
    clock.cancel()
    await asyncio.gather(clock, return_exceptions=True)


async def test_what_cannot_be_looked_at_is_ended(
    world: SharingWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever keeps the clock from looking, nobody goes on by it; and it looks again."""
    monkeypatch.setattr(tethers, "LOOK_SECONDS", 0.01)
    world.grant(share=Share.USE)
    case = Case(world)

    def broken(*_: object) -> Share:
        raise RuntimeError("broken")

    clock = _started(case.tethers.run())
    task = _started(case.tethers.holding(case.waits)(about()[0]))
    await asyncio.sleep(0.05)
    assert not task.done()
    monkeypatch.setattr(world.shared, "share", broken)
    assert isinstance(await asyncio.wait_for(task, 2), Refusal)
    assert not clock.done()
    clock.cancel()
    await asyncio.gather(clock, return_exceptions=True)


async def test_a_handler_that_takes_its_time_to_end_is_cut_once(world: SharingWorld) -> None:
    """A second look in between is no error, and others are looked at as well."""
    world.grant(share=Share.USE)
    case = Case(world)
    release = asyncio.Event()

    async def slow(_: Transaction) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await release.wait()

    task = _started(case.tethers.holding(slow)(about()[0]))
    await asyncio.sleep(0.01)
    world.granted.end(WEB, "user:1002")
    for _ in range(3):
        case.tethers.look()
        await asyncio.sleep(0.01)
    release.set()
    assert isinstance(await asyncio.wait_for(task, 2), Refusal)
