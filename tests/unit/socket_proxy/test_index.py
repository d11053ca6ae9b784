"""What a reference means to one user, and who an object's owner is."""

from __future__ import annotations

import pytest

from policy.model import Kind, LeaseId, Uid
from socket_proxy.index import Entry, Index

ALICE, BOB = Uid(1001), Uid(1002)
A, A2, B = "a" * 64, "a" * 63 + "b", "b" * 64


def container(object_id: str, name: str, owner: Uid | None, created_by: str = "") -> Entry:
    return Entry(kind=Kind.CONTAINER, id=object_id, name=name, owner=owner, created_by=created_by)


def index(*entries: Entry) -> Index:
    made = Index()
    for entry in entries:
        made.put(entry)
    return made


@pytest.mark.parametrize(
    ("text", "found"),
    [(B, None), ("his", None), ("b", None), ("mine", A), ("/mine", A), ("aaaa", A), (A[:12], A), ("", None)],
)
def test_only_own_containers_are_found(text: str, found: str | None) -> None:
    """Another's id, name and prefix mean nothing; one's own mean what they say."""
    entry = index(container(A, "mine", ALICE), container(B, "his", BOB)).find(
        Kind.CONTAINER, text, ALICE, everything=False
    )
    assert (entry.id if entry else None) == found


@pytest.mark.parametrize(
    ("text", "everything", "found"),
    [
        ("web", False, A),
        ("u1001.web", False, None),
        ("old", False, A2),
        ("u1002.web", False, None),
        ("web", True, A),
        ("u1001.web", True, A),
        ("u1002.web", True, B),
        ("old", True, A2),
    ],
)
def test_own_objects_go_by_their_plain_names(text: str, found: str | None, *, everything: bool) -> None:
    """An admin may also use any name as it is inside dockerd; what is from before has one name."""
    made = index(
        container(A, "u1001.web", ALICE), container(A2, "old", ALICE), container(B, "u1002.web", BOB)
    )
    entry = made.find(Kind.CONTAINER, text, ALICE, everything=everything)
    assert (entry.id if entry else None) == found


@pytest.mark.parametrize("text", ["u1001.data", "u1002.data"])
def test_a_volume_is_not_found_by_its_name_inside_dockerd(text: str) -> None:
    """Though that name is its id."""
    made = index(
        *(Entry(kind=Kind.VOLUME, id=f"u{uid}.data", name=f"u{uid}.data", owner=uid) for uid in (ALICE, BOB))
    )
    assert made.find(Kind.VOLUME, text, ALICE, everything=False) is None
    found = made.find(Kind.VOLUME, "data", ALICE, everything=False)
    assert found is not None
    assert found.owner == ALICE


@pytest.mark.parametrize(
    ("text", "found"), [("web", A), ("old", A2), (A[:12], None), (A, None), ("his", None)]
)
def test_a_new_name_is_compared_with_own_names_alone(text: str, found: str | None) -> None:
    """Not with ids, nor with what is another's."""
    made = index(container(A, "u1001.web", ALICE), container(A2, "old", ALICE), container(B, "his", BOB))
    entry = made.named(Kind.CONTAINER, text, ALICE)
    assert (entry.id if entry else None) == found


def test_another_cannot_capture_or_blur_a_reference() -> None:
    """A name like an own id, and an id with the same prefix, change nothing when they are another's."""
    made = index(container(A, "mine", ALICE), container(B, A[:12], BOB), container(A2, "x", BOB))
    found = made.find(Kind.CONTAINER, A[:12], ALICE, everything=False)
    assert found is not None
    assert found.id == A


def test_an_ambiguous_prefix_finds_nothing() -> None:
    """Two own ids with one prefix: dockerd refuses to choose, and so does ds01."""
    made = index(container(A, "x", ALICE), container(A2, "y", ALICE))
    assert made.find(Kind.CONTAINER, "aaa", ALICE, everything=False) is None


def test_an_admin_finds_everything_but_own_first() -> None:
    """An admin's own object wins; another's is found; a name two others share is nobody's."""
    made = index(container(A, "x", ALICE), container(B, "x", BOB), container(A2, "y", BOB))
    found = made.find(Kind.CONTAINER, "x", ALICE, everything=True)
    assert found is not None
    assert found.id == A
    assert made.find(Kind.CONTAINER, "y", ALICE, everything=True) is not None
    assert made.find(Kind.CONTAINER, "x", Uid(7), everything=True) is None


def test_a_second_object_of_one_request_is_nobodys() -> None:
    """A seal that came with an image does not make an owner, and the first keeps what it has."""
    made = index(container(A, "x", ALICE, "r1"))
    made.put(Entry(kind=Kind.CONTAINER, id=B, name="y", owner=ALICE, lease=LeaseId("L"), created_by="r1"))
    copy, first = made.get(Kind.CONTAINER, B), made.get(Kind.CONTAINER, A)
    assert copy is not None
    assert (copy.owner, copy.lease) == (None, None)
    made.drop(Kind.CONTAINER, B)
    made.rename(Kind.CONTAINER, A, "z")
    first = made.get(Kind.CONTAINER, A)
    assert first is not None
    assert (first.owner, first.name) == (ALICE, "z")


def test_a_list_takes_out_only_what_was_known_when_it_was_asked_for() -> None:
    """What was made while the list was on its way stays."""
    made = index(container(A, "x", ALICE), container(B, "y", BOB))
    known = made.ids(Kind.CONTAINER)
    made.put(container(A2, "new", ALICE))
    made.replace_all(Kind.CONTAINER, [container(A, "x", ALICE)], known=known)
    assert made.ids(Kind.CONTAINER) == {A, A2}
    assert made.seen(Kind.CONTAINER, B) is not None


def test_a_shared_network_is_roots_and_named_by_policy() -> None:
    """A user's own network of that name passes for none; root's is found by name and id, and by nobody without the name."""
    index = Index()
    index.put(Entry(kind=Kind.NETWORK, id="1" * 64, name="lan", owner=Uid(1001)))
    assert index.find_shared("lan", frozenset({"lan"})) is None
    index.put(Entry(kind=Kind.NETWORK, id="2" * 64, name="lan", owner=None))
    index.put(Entry(kind=Kind.NETWORK, id="3" * 64, name="u0.wan", owner=Uid(0)))
    for text, found in (("lan", "2" * 64), ("2" * 64, "2" * 64), ("wan", "3" * 64)):
        entry = index.find_shared(text, frozenset({"lan", "wan"}))
        assert entry is not None
        assert (entry.id, entry.shared) == (found, True)
        assert index.find_shared(text, frozenset({"other"})) is None
