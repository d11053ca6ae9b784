"""What of a list is asked of dockerd."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Adopted, Kind, Uid
from socket_proxy.index import Entry
from socket_proxy.questions import Questions, narrowed, uncut
from tests.fakes.proxy_world import ALICE, BOB
from tests.fakes.sharing_world import WEB, SharingWorld
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policy.model import Actor


@pytest.fixture
def world(tmp_path: Path) -> Iterator[SharingWorld]:
    world = SharingWorld(tmp_path)
    yield world
    world.records.close()


def asked(
    world: SharingWorld, operation: Operation, filters: dict[str, list[str]], actor: Actor = BOB, **more: Any
) -> dict[str, tuple[str, ...]]:
    """The query that dockerd gets."""
    written = json.dumps({key: dict.fromkeys(values, True) for key, values in filters.items()})
    query = {**more, **({"filters": (written,)} if filters else {})}
    made, _ = transaction(operation, actor=actor, query=query)
    return dict(Questions(world.index, world.shared).written(made).query)


@pytest.mark.parametrize(
    ("query", "sent"),
    [
        ({}, {}),
        ({"limit": ("3",)}, {"all": ("1",)}),
        ({"limit": ("0",)}, {}),
        ({"size": ("1",)}, {"size": ("1",)}),
    ],
)
def test_a_list_is_one_owners_and_never_cut(
    query: dict[str, tuple[str, ...]], sent: dict[str, tuple[str, ...]]
) -> None:
    """`limit` is kept back, since it counts what is left after filtering, and the client's own filters stay."""
    filters = (json.dumps({"label": {"x": True}, "status": {"exited": True}}),)
    asked = Request(operation=Operation.CONTAINER_LIST, version=(1, 41), query={**query, "filters": filters})
    shaped = dict(narrowed(uncut(asked), Uid(1001)).query)
    assert json.loads(shaped.pop("filters")[0]) == {
        "label": {"x": True, "ds01.uid=1001": True},
        "status": {"exited": True},
    }
    assert shaped == sent


LIST, EVENTS = Operation.CONTAINER_LIST, Operation.SYSTEM_EVENTS


def test_a_list_is_wide_for_whom_something_is_shared_with(world: SharingWorld) -> None:
    """And narrow for everybody else, and again when the share is over."""
    assert "ds01.uid=1002" in asked(world, LIST, {})["filters"][0]
    world.grant()
    assert asked(world, LIST, {}) == {}
    assert asked(world, LIST, {}, limit=("2",)) == {"all": ("1",)}
    assert "ds01.uid=1001" in asked(world, LIST, {}, ALICE)["filters"][0]
    world.now_ms = 60_000
    assert "ds01.uid=1002" in asked(world, LIST, {})["filters"][0]


def test_a_list_is_wide_for_whom_an_older_container_was_given(world: SharingWorld) -> None:
    """It has none of ds01's labels; dockerd is asked for all, and what is shown is judged by the index."""
    old = Entry(kind=Kind.CONTAINER, id="f" * 64, name="old", owner=BOB.uid, adopted=Adopted())
    world.index.put(old)
    assert asked(world, LIST, {}) == {}
    assert asked(world, LIST, {"label": ["x"]}, limit=("1",)) == {
        "all": ("1",),
        "filters": (json.dumps({"label": {"x": True}}),),
    }
    assert "ds01.uid=1001" in asked(world, LIST, {}, ALICE)["filters"][0]
    world.index.put(replace(old, owner=None, adopted=None))
    assert "ds01.uid=1002" in asked(world, LIST, {})["filters"][0]


def test_only_lists_and_events_can_tell_of_shared_containers(world: SharingWorld) -> None:
    """Whatever is shared, the question of every other call depends on its head alone, and nobody is looked through for it."""
    world.grant()
    questions = Questions(world.index, world.shared)
    wide = {
        operation for operation in Operation if questions.holds_shared(transaction(operation, actor=BOB)[0])
    }
    assert wide == {LIST, EVENTS}


@pytest.mark.parametrize(
    ("filters", "wide"),
    [
        ({"status": ["running"]}, True),
        ({"id": ["a"], "health": ["healthy"]}, True),
        ({"label": ["token=4711"]}, False),
        ({"status": ["running"], "volume": ["/home/alice/secret"]}, False),
        ({"network": ["n"]}, False),
        ({"ancestor": ["alices-image"]}, False),
        ({"publish": ["80"]}, False),
    ],
)
def test_a_filter_tells_nothing_of_what_is_masked(
    world: SharingWorld, filters: dict[str, list[str]], *, wide: bool
) -> None:
    """What a shared container's labels, mounts, networks and image are cannot be found out by asking for them."""
    world.grant()
    assert ("ds01.uid=1002" not in asked(world, LIST, filters)["filters"][0]) == wide


def test_an_event_stream_of_a_shared_container_is_asked_for_by_its_id(world: SharingWorld) -> None:
    """dockerd knows it by another name than its viewer does."""
    world.grant()
    wanted = json.loads(asked(world, EVENTS, {"container": ["alice.web", "mine"]})["filters"][0])
    assert set(wanted["container"]) == {"alice.web", "u1002.alice.web", "mine", "u1002.mine", WEB}
    labelled = json.loads(asked(world, EVENTS, {"container": ["alice.web"], "label": ["x"]})["filters"][0])
    assert WEB not in labelled["container"]
