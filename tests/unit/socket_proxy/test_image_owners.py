"""Who may read an image, who sees a tag, and what survives a restart."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Uid
from socket_proxy.image_owners import ALL, ImageOwners, Reader, user_grantee
from socket_proxy.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALICE, BOB = Uid(1001), Uid(1002)
A, B = Reader(uid=ALICE, groups=frozenset({"lab"})), Reader(uid=BOB, groups=frozenset({"lab"}))
CAROL = Reader(uid=Uid(1003))
ROOT = Reader(uid=Uid(0), everything=True)


@pytest.fixture
def records(tmp_path: Path) -> Iterator[Records]:
    opened = Records(tmp_path / "records.sqlite")
    yield opened
    opened.close()


@pytest.fixture
def owners(records: Records) -> ImageOwners:
    return ImageOwners(records)


def made(owners: ImageOwners, tag: str = "a:1", image: str = "sha256:1", maker: Uid = ALICE) -> None:
    owners.set_tag(tag, maker)
    owners.claim(image, [tag], maker)


def test_what_was_here_under_nobodys_name_is_everybodys(owners: ImageOwners) -> None:
    """Pulled images, and those older than ds01; so it stays when the name is moved."""
    assert owners.may_read(B, "sha256:1", ["busybox:latest"])
    assert owners.may_read(B, "sha256:1", [])


def test_what_nobody_can_be_shown_to_own_is_nobodys(owners: ImageOwners) -> None:
    """The steps of a build have no name and no maker on record."""
    assert not owners.may_read(B, "sha256:1", [])
    assert owners.may_read(ROOT, "sha256:1", [])


def test_a_fresh_image_is_its_names_owners(owners: ImageOwners) -> None:
    """Between dockerd's write and the record there is no moment in which others read it."""
    owners.set_tag("a:1", ALICE)
    assert owners.may_read(A, "sha256:1", ["a:1"])
    assert not owners.may_read(B, "sha256:1", ["a:1"])


def test_an_image_is_its_makers_alone(owners: ImageOwners) -> None:
    """Also by a name that is nobody's: that it is there does not publish it."""
    made(owners)
    assert owners.may_read(A, "sha256:1", [])
    for tags in ([], ["a:1"], ["a:1", "nobodys:1"]):
        assert not owners.may_read(B, "sha256:1", tags)


def test_a_public_image_stays_public_when_somebody_makes_it_too(owners: ImageOwners) -> None:
    """Nobody takes an image from all by loading it again."""
    owners.claim("sha256:1", ["busybox:latest", "a:1"], ALICE)
    assert owners.may_read(B, "sha256:1", [])


def test_two_makers_both_have_it(owners: ImageOwners) -> None:
    """Neither sees the other's tag; one who leaves takes nothing from the other."""
    made(owners)
    made(owners, "b:1", maker=BOB)
    tags = ["a:1", "b:1"]
    assert owners.may_read(A, "sha256:1", tags)
    assert owners.may_read(B, "sha256:1", tags)
    assert [owners.shows_tag(A, tag) for tag in tags] == [True, False]
    owners.disclaim("sha256:1", ALICE)
    assert owners.makers("sha256:1") == {BOB}


@pytest.mark.parametrize(
    ("grantee", "reads"),
    [
        (ALL, (True, True)),
        (user_grantee(BOB), (True, False)),
        ("group:lab", (True, False)),
        ("group:x", (False, False)),
    ],
)
def test_a_share_is_for_whom_it_names(owners: ImageOwners, grantee: str, reads: tuple[bool, bool]) -> None:
    """A user, a policy group, or everybody."""
    made(owners)
    owners.share("a:1", grantee)
    assert tuple(owners.may_read(each, "sha256:1", ["a:1"]) for each in (B, CAROL)) == reads
    assert tuple(owners.shows_tag(each, "a:1") for each in (B, CAROL)) == reads
    owners.unshare("a:1", grantee)
    assert not owners.may_read(B, "sha256:1", ["a:1"])


def test_a_reader_passes_nothing_on(owners: ImageOwners) -> None:
    """Bob's own tag on alice's image, shared by him, is shared with nobody; and his own reading ends with her share."""
    made(owners)
    owners.share("a:1", user_grantee(BOB))
    owners.set_tag("b:1", BOB)
    owners.share("b:1", ALL)
    tags = ["a:1", "b:1"]
    assert owners.may_read(B, "sha256:1", tags)
    assert not owners.may_read(CAROL, "sha256:1", tags)
    owners.unshare("a:1", user_grantee(BOB))
    assert not owners.may_read(B, "sha256:1", tags)


def test_a_share_ends_with_its_name(owners: ImageOwners, records: Records) -> None:
    """Removed and made again, by the same user or another, it is private again."""
    made(owners)
    owners.share("a:1", ALL)
    owners.forget([{"Untagged": "a:1"}])
    made(owners)
    assert (owners.grantees("a:1"), records.shares()) == ((), [])
    owners.share("a:1", ALL)
    owners.set_tag("a:1", BOB)
    assert owners.grantees("a:1") == ()


def test_everything_survives_a_restart(owners: ImageOwners, records: Records) -> None:
    """Makers, owners, shares, and what is public."""
    made(owners)
    owners.share("a:1", user_grantee(BOB))
    owners.publish("sha256:2")
    again = ImageOwners(records)
    assert again.may_read(B, "sha256:1", ["a:1"])
    assert not again.may_read(CAROL, "sha256:1", ["a:1"])
    assert again.may_read(CAROL, "sha256:2", [])
    assert list(again.owned_tags(ALICE)) == ["a:1"]
    assert list(again.shared_tags(B)) == ["a:1"]
    assert list(again.shared_tags(A)) == []


def test_the_last_events_of_an_image_reach_its_maker(owners: ImageOwners) -> None:
    """Gone, it is still known to have been alice's."""
    made(owners)
    owners.forget([{"Untagged": "a:1"}, {"Deleted": "sha256:1"}])
    assert owners.may_read(A, "sha256:1", [])
    assert not owners.may_read(B, "sha256:1", [])


def test_a_digest_is_as_secret_as_the_tags_of_its_repository(owners: ImageOwners) -> None:
    """repository@sha256:... names the repository."""
    owners.set_tag("host:5000/a:1", ALICE)
    digest = "host:5000/a@sha256:" + "0" * 64
    assert (owners.shows_tag(A, digest), owners.shows_tag(B, digest)) == (True, False)
    assert owners.shows_tag(B, "python@sha256:" + "0" * 64)


OWN, THEIRS = "ds01.invalid/u1001/app:1", "ds01.invalid/u1002/app:1"


def test_a_local_name_says_whose_it_is(owners: ImageOwners) -> None:
    """Also where no record says it: a lost one makes nobody's image everybody's."""
    assert owners.tag_owner(OWN) == ALICE
    assert not owners.is_public("sha256:1", [OWN])
    assert owners.may_read(A, "sha256:1", [OWN])
    assert not owners.may_read(B, "sha256:1", [OWN])
    assert (owners.shows_tag(A, OWN), owners.shows_tag(B, OWN)) == (True, False)
    assert (
        owners.shows_tag(A, "ds01.invalid/u1001/app@sha256:1"),
        owners.shows_tag(B, "ds01.invalid/u1001/app@sha256:1"),
    ) == (True, False)
    assert owners.shows_tag(ROOT, "ds01.invalid/u1001/app@sha256:1")


def test_a_shared_local_name_is_read_by_whom_it_is_shared_with(owners: ImageOwners) -> None:
    """Its digest as well; and no longer when the name is gone."""
    made(owners, OWN)
    owners.share(OWN, user_grantee(BOB))
    assert owners.may_read(B, "sha256:1", [OWN])
    assert owners.shows_tag(B, OWN)
    assert owners.shows_tag(B, "ds01.invalid/u1001/app@sha256:1")
    owners.forget([{"Untagged": OWN}])
    assert not owners.shows_tag(B, OWN)
    assert owners.tag_owner(OWN) == ALICE


def test_an_own_name_shadows_for_its_owner_alone(owners: ImageOwners) -> None:
    """As long as the record has it."""
    owners.set_tag(OWN, ALICE)
    assert owners.shadows(ALICE, "app:1")
    assert not owners.shadows(BOB, "app:1")
    assert not owners.shadows(ALICE, "team/app:1")
    owners.set_tag(OWN, None)
    assert not owners.shadows(ALICE, "app:1")


def test_the_record_of_local_names_is_what_the_engine_has(owners: ImageOwners, records: Records) -> None:
    """What is gone is dropped, with its shares; what is there is known; other tags are left alone."""
    owners.set_tag(OWN, ALICE)
    owners.share(OWN, ALL)
    owners.set_tag("team/app:1", ALICE)
    owners.match_local([THEIRS, "busybox:latest"])
    assert owners.shadows(BOB, "app:1")
    assert not owners.shadows(ALICE, "app:1")
    assert records.tags() == {THEIRS: BOB, "team/app:1": ALICE}
    assert records.shares() == []


def test_a_local_name_that_was_written_is_on_record(owners: ImageOwners) -> None:
    """Also where the engine was matched while it was written, or an admin wrote it."""
    owners.set_tag(OWN, ALICE)
    owners.match_local([])
    assert not owners.knows(OWN)
    for tag in (OWN, "team/app:1"):
        owners.note_local(tag)
    assert (owners.knows(OWN), owners.knows("ds01.invalid/u1001/app@sha256:1")) == (True, True)
    assert (owners.knows("ds01.invalid/u1001/app"), owners.knows("ds01.invalid/u1001/none@sha256:1")) == (
        False,
        False,
    )
    assert owners.tag_owner("team/app:1") is None
