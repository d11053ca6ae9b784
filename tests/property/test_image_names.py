"""A model of users, a registry and one engine: nobody's names reach another's, and a name means what its user did with it last."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from policy import image_names
from policy.dockerapi.bind import bind
from policy.dockerapi.model import Operation, Request
from policy.facts import needed
from policy.model import Facts, Kind, ObjectFact, Reference, Uid
from policy.names import ViewerNames
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners, Reader, normal_tag
from socket_proxy.index import Index
from socket_proxy.records import Records
from tests.fakes.policy_world import ENGINE

ALICE, BOB = Uid(1), Uid(11)  # one number begins like the other
NAMES = st.sampled_from(
    ["app", "app:1", "docker.io/library/app", "library/app:1", "index.docker.io/app", "busybox", "u1.app"]
)
ANY = st.one_of(
    NAMES, st.from_regex(r"[a-z0-9]{1,3}([._-][a-z0-9]{1,2})?(:[A-Za-z0-9_.-]{1,3})?", fullmatch=True)
)
USERS = st.sampled_from([ALICE, BOB])
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "pull", "remove", "tag"]), USERS, NAMES, NAMES), max_size=12
)


@dataclass
class World:
    """The engine's tags as they are inside dockerd, and what each user should mean by a name."""

    tags: dict[str, int] = field(default_factory=dict)
    meant: dict[tuple[Uid, str], int] = field(default_factory=dict)  # own names
    everybodys: dict[str, int] = field(default_factory=dict)
    made: int = 0

    def __post_init__(self) -> None:
        self.owners = ImageOwners(Records(Path(":memory:")))
        self.facts = FactSource(
            engine=cast("Any", None), engine_facts=ENGINE, index=Index(), images=self.owners
        )

    def read(self, uid: Uid, text: str) -> int | None:
        """As ds01 does."""
        names = self.facts.image_names(Reference(kind=Kind.IMAGE, text=text), Reader(uid=uid))
        return next((self.tags[tag] for name in names if (tag := normal_tag(name)) in self.tags), None)

    def expected(self, uid: Uid, text: str) -> int | None:
        tag = normal_tag(text)
        return self.meant.get((uid, tag), self.everybodys.get(tag))

    def bound(self, uid: Uid, operation: Operation, **query: str) -> Request:
        """The request as dockerd gets it."""
        asked = Request(
            operation=operation,
            version=(1, 41),
            params={"image": "x"} if operation is Operation.IMAGE_TAG else {},
            query={key: (value,) for key, value in query.items()},
        )
        facts: dict[Reference, ObjectFact | None] = dict.fromkeys(needed(asked))
        return bind(asked, Facts(engine=ENGINE, objects=facts), uid=uid)

    def do(self, what: str, uid: Uid, text: str, source: str) -> None:
        tag = normal_tag(text)
        match what:
            case "write":
                self._write(uid, text, self._new())
            case "tag":
                found = self.read(uid, source)
                if found is not None:
                    self._write(uid, text, found)
            case "pull":
                image = self._new()
                self.tags[
                    normal_tag(self.bound(uid, Operation.IMAGE_CREATE, fromImage=text).query["fromImage"][0])
                ] = image
                self.everybodys[tag] = image
                self._remove(uid, tag)
            case _:
                self._remove(uid, tag)

    def _remove(self, uid: Uid, tag: str) -> None:
        self.tags.pop(image_names.real(uid, tag), None)
        self.owners.set_tag(image_names.real(uid, tag), None)
        self.meant.pop((uid, tag), None)

    def _write(self, uid: Uid, text: str, image: int) -> None:
        written = self.bound(uid, Operation.IMAGE_TAG, repo=text).query["repo"][0]
        self.owners.set_tag(normal_tag(written), uid)
        self.tags[normal_tag(written)] = image
        self.meant[uid, normal_tag(text)] = image

    def _new(self) -> int:
        self.made += 1
        return self.made


@given(STEPS)
def test_a_name_means_what_its_user_did_with_it_last(steps: list[tuple[str, Uid, str, str]]) -> None:
    """Whatever the others do; and what nobody's own is, is everybody's."""
    world = World()
    for step in steps:
        world.do(*step)
        for uid in (ALICE, BOB):
            for text in ("app", "app:1", "docker.io/library/app", "library/app:1", "busybox", "u1.app"):
                assert world.read(uid, text) == world.expected(uid, text), (uid, text)


@given(ANY, USERS)
def test_names_go_in_and_come_back(text: str, uid: Uid) -> None:
    """A local name is one to one, is its user's, and shows nobody else anything plain."""
    inside = image_names.real(uid, text)
    if not image_names.is_local(text):
        assert inside == text
        return
    other = BOB if uid == ALICE else ALICE
    assert image_names.owner(inside) == uid
    assert normal_tag(ViewerNames(uid).image(inside)) == normal_tag(text)
    assert ViewerNames(other).image(inside) == inside
    assert ViewerNames(uid).plain_text(f'"{inside}" x') == f'"{image_names.short(text)}" x'
    assert image_names.real(other, text) != inside
    assert image_names.is_reserved(inside)


@given(st.text(alphabet="ds01.invalid/u:@-_DOCKERio 2", max_size=40), USERS)
def test_no_text_is_written_into_anothers_space(text: str, uid: Uid) -> None:
    """What ds01 would write is the own name, or a name that the rule refuses, or none of ours."""
    inside = image_names.real(uid, text)
    found = image_names.owner(image_names.familiar(inside))
    assert found in (None, uid) or image_names.is_reserved(text)
