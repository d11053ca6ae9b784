"""Filters by name see the names that users know, and mean what dockerd means by them."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.model import MalformedRequest, Operation, Request
from policy.dockerapi.name_filters import EVERY_NAME, NameFilter, for_engine, name_filter
from policy.dockerapi.query import filters as filters_of
from policy.model import Uid
from policy.stand_ins import StandIns

ALICE = Uid(1001)


def listing(operation: Operation, **filters: list[str]) -> Request:
    text = json.dumps({name: dict.fromkeys(values, True) for name, values in filters.items()})
    return Request(operation=operation, version=(1, 41), query={"filters": (text,), "all": ("1",)})


def asked_of_dockerd(request: Request) -> dict[str, set[str]]:
    query = for_engine(request, ALICE).query
    assert query["all"] == ("1",)
    text = query.get("filters", ("{}",))[0]
    return {name: set(values) for name, values in json.loads(text).items()}


@pytest.mark.parametrize(
    ("values", "matching", "others"),
    [
        (["web"], ["web", "app_web_1"], ["wed"]),
        (["^web$"], ["web"], ["web2", "aweb"]),
        (["^web", "db$"], ["web2", "adb"], ["dbx"]),
        (["(?i)WEB"], ["web"], ["wob"]),
        (["a.b"], ["a.b", "axb"], ["ab"]),
        ([r"^app_[a-z]+_\d$"], ["app_web_1"], ["app_web_x"]),
        (["u1"], ["menu1"], ["web"]),
        (["("], ["("], ["web"]),  # no expression, but the very text
        (["(", "web"], ["web"], ["x"]),
        (["(?=a)"], [], ["a"]),  # not in RE2's language
        (["\\"], ["\\"], ["a"]),
    ],
    ids=str,
)
def test_matches_as_dockerd_does(values: list[str], matching: list[str], others: list[str]) -> None:
    """Anywhere in the name, one of several is enough, and a broken expression is only its own text."""
    wanted = NameFilter(values)
    assert [name for name in [*matching, *others] if wanted.matches(name)] == matching


@pytest.mark.parametrize(
    "values",
    [
        [r"(\pL?){900}"],
        ["a" * 1025],
        [f"name{number}" for number in range(33)],
    ],
    ids=["large", "long", "many"],
)
def test_what_costs_too_much_is_refused(values: list[str]) -> None:
    """In so many words, not as an empty list."""
    with pytest.raises(MalformedRequest, match="filter name"):
        NameFilter(values)


def test_the_work_on_one_list_is_bounded() -> None:
    """A user who has many long names and a slow expression does not hold up the others."""
    wanted = NameFilter(["(a?){500}b"])
    assert not any(wanted.matches("a" * 20) for _ in range(100))
    with pytest.raises(MalformedRequest, match="too costly"):
        any(wanted.matches("a" * 200) for _ in range(10_000))


@pytest.mark.parametrize(
    "operation", [Operation.CONTAINER_LIST, Operation.NETWORK_LIST, Operation.VOLUME_LIST]
)
def test_name_is_kept_back_and_the_rest_goes_on(operation: Operation) -> None:
    """dockerd would match the expression against the names inside dockerd."""
    assert asked_of_dockerd(listing(operation, name=["^web$"], label=["a"])) == {"label": {"a"}}
    assert asked_of_dockerd(listing(operation, name=["^web$"])) == {}


@pytest.mark.parametrize(
    ("operation", "keys"),
    [
        (Operation.CONTAINER_LIST, {"network", "volume"}),
        (Operation.SYSTEM_EVENTS, {"container", "network", "volume"}),
    ],
)
def test_names_compared_as_text_are_asked_for_in_both_forms(operation: Operation, keys: set[str]) -> None:
    """What is from before, an id, or a path has the form that was written."""
    asked = listing(operation, container=["x"], network=["x"], volume=["x", "/y"], label=["x"])
    sent = asked_of_dockerd(asked)
    for key in keys - {"volume"}:
        assert sent[key] == {"x", "u1001.x"}
    assert sent["volume"] == {"x", "/y", "u1001.x", "u1001./y"}
    assert sent["label"] == {"x"}


@pytest.mark.parametrize(
    "request_",
    [
        listing(Operation.CONTAINER_LIST, label=["a"]),
        listing(Operation.IMAGE_LIST, label=["a"]),
        Request(operation=Operation.IMAGE_LIST, version=(1, 41), query={"filter": ("a",)}),
        listing(Operation.SYSTEM_EVENTS, event=["start"]),
        Request(operation=Operation.VOLUME_LIST, version=(1, 41)),
    ],
)
def test_a_request_without_names_stays_the_very_same(request_: Request) -> None:
    """So that what was written for it once can be sent again."""
    assert for_engine(request_, ALICE) is request_
    assert name_filter(request_) is EVERY_NAME


def test_the_filter_of_a_list_is_found() -> None:
    """In the client's own words."""
    assert not name_filter(listing(Operation.VOLUME_LIST, name=["^data$"])).matches("data2")


def test_a_host_path_is_asked_for_by_its_stand_ins() -> None:
    """dockerd compares the sources of a container with what it was told."""
    stand_ins = StandIns("/s")
    asked = for_engine(listing(Operation.CONTAINER_LIST, volume=["/home/a/", "v"]), ALICE, stand_ins)
    assert set(json.loads(asked.query["filters"][0])["volume"]) == {
        "/home/a/", "v", "u1001./home/a/", "u1001.v", "/s/1001/2ro/home/a", "/s/1001/2rw/home/a",
    }  # fmt: skip


def test_images_are_asked_for_by_both_forms() -> None:
    """Patterns of one part may mean own local images; with a slash they never do."""
    both = {"app*", "ds01.invalid/u1001/app*", "alice/app"}
    sent = for_engine(listing(Operation.IMAGE_LIST, reference=["app*", "alice/app"]), ALICE)
    assert set(filters_of(sent)["reference"]) == both
    sent = for_engine(listing(Operation.SYSTEM_EVENTS, image=["app*", "alice/app"]), ALICE)
    assert set(filters_of(sent)["image"]) == both
    old = Request(operation=Operation.IMAGE_LIST, version=(1, 40), query={"filter": ("app",)})
    assert set(filters_of(for_engine(old, ALICE))["reference"]) == {"app", "ds01.invalid/u1001/app"}
    assert "filter" not in for_engine(old, ALICE).query
