"""Two forms of a name, and the way between them that loses nothing."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.dockerapi.references import NETWORK_WORDS
from policy.model import Uid
from policy.names import HIDDEN, ViewerNames, of_another, own, owner, plain, real
from policy.stand_ins import StandIns

UIDS = st.integers(min_value=0, max_value=2**32 - 2).map(Uid)
NAMES = (
    st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", fullmatch=True)
    | st.builds(real, UIDS, st.sampled_from(["web", "u1.web", "."]))
    | st.text(min_size=1)
)
LOGINS = st.sampled_from(["alice", "alice.web", "u1", "u0", "web", "A-b_c", "1x", ""])
NAMES_OF_USERS = st.tuples(UIDS, LOGINS, st.sampled_from(["web", "web.web", "u1.web", "alice.web", "x"]))
ALICE = Uid(1001)


@given(UIDS, NAMES)
def test_a_name_comes_back(uid: Uid, name: str) -> None:
    """From the user's form to dockerd's and back, whatever the name, and the form says whose it is."""
    assert plain(uid, real(uid, name)) == name
    assert owner(real(uid, name)) == uid


@given(UIDS, NAMES, UIDS, NAMES)
def test_two_names_never_meet(uid: Uid, name: str, other: Uid, others_name: str) -> None:
    """Equal inside dockerd means the same user and the same name."""
    same = (uid, name) == (other, others_name)
    assert (real(uid, name) == real(other, others_name)) == same
    if uid != other:
        assert plain(other, real(uid, name)) == real(uid, name)


@given(UIDS, st.from_regex(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", fullmatch=True))
def test_dockerd_takes_it_for_a_name_and_nothing_else(uid: Uid, name: str) -> None:
    """It has dockerd's form, and is no word, no id and no prefix of one."""
    assert re.fullmatch(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", real(uid, name))
    assert real(uid, name) not in NETWORK_WORDS
    assert not re.fullmatch(r"[0-9a-f]*", real(uid, name))


@pytest.mark.parametrize("name", ["web", "u1001", "u.web", "u01.web", "u-1.web", "U1001.web", "xu1001.web"])
def test_other_names_are_in_no_namespace(name: str) -> None:
    """Those from before, and those that dockerd makes up."""
    assert owner(name) is None
    assert plain(ALICE, name) == name
    assert plain(None, f"u1001.{name}") == f"u1001.{name}"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('name "/u1001.web" is in use', 'name "/web" is in use'),
        ("remove u1001.data: volume is in use", "remove data: volume is in use"),
        ("endpoint u1001.u1001.web", "endpoint u1001.web"),
        ("/u1001.db:/u1001.web/db", "/db:/web/db"),
        ("network u1002.net", f"network {HIDDEN}"),
        ("u1002.net u1001.net", f"{HIDDEN} net"),
        ("not mine: xu1001.web 1.u1001.web a_u1002.b", "not mine: xu1001.web 1.u1001.web a_u1002.b"),
        ("u10010.web", HIDDEN),
        ("172.17.0.2:1001. 0.0.0.0", "172.17.0.2:1001. 0.0.0.0"),
        ("u1001.é", "é"),
    ],
)
def test_a_message_has_own_names_plain_and_no_others(text: str, shown: str) -> None:
    """Own ones as their user knows them, others' not at all."""
    assert ViewerNames(ALICE).plain_text(text) == shown


def test_what_the_user_wrote_stays_in_a_message() -> None:
    """It is no news."""
    kept = frozenset({"u1002.net"})
    assert ViewerNames(ALICE).plain_text("network u1002.net not found", kept) == "network u1002.net not found"


def test_an_admin_reads_others_names_as_they_are() -> None:
    """Own ones plain all the same."""
    admin = ViewerNames(ALICE, everything=True)
    assert admin.plain_text("u1002.net and u1001.net") == "u1002.net and net"
    assert (admin.plain("u1001.net"), admin.plain("u1002.net")) == ("net", "u1002.net")


def test_roots_networks_that_policy_shares_are_plain() -> None:
    """And nothing else of root's."""
    viewer = ViewerNames(ALICE, networks=frozenset({"lan"}))
    assert (viewer.plain("u0.lan"), viewer.plain("u0.other")) == ("lan", "u0.other")
    assert viewer.plain_text("u0.lan u0.other u1001.net") == f"lan {HIDDEN} net"
    assert viewer.may_be_in(b'"u0.lan"')
    assert not viewer.may_be_in(b'"u0.other"')


@pytest.mark.parametrize(("text", "found"), [(b'"/u1001.web"', True), (b'"/u1002.web"', False), (b"", False)])
def test_text_without_own_names_is_known_quickly(text: bytes, *, found: bool) -> None:
    """Then nothing need be taken apart."""
    assert ViewerNames(ALICE).may_be_in(text) == found


def test_stand_ins_show_as_what_they_stand_for() -> None:
    """In answers that hold one, in messages, and one by one."""
    viewer = ViewerNames(ALICE, stand_ins=StandIns("/s"))
    assert viewer.may_be_in(b'{"Source":"/s/1001/2rw/home/a"}')
    assert not viewer.may_be_in(b'{"Source":"/home/a"}')
    assert viewer.plain_source("/s/1001/2rw/home/a") == "/home/a"
    assert viewer.plain_source("/home/a") == ViewerNames(ALICE).plain_source("/home/a") == "/home/a"
    assert viewer.plain_text("u1001.web has no /s/1001/2ro/home/a") == "web has no /home/a"


OWN, THEIRS = "ds01.invalid/u1001/app", "ds01.invalid/u1002/app"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"No such image: {OWN}:1", "No such image: app:1"),
        (f'unable to remove repository reference "{OWN}" (must force)', 'unable to remove repository reference "app" (must force)'),
        (f"{OWN}@sha256:1, {OWN}", "app@sha256:1, app"),
        (f"{THEIRS}:1 is in use", f"{HIDDEN} is in use"),
        ("x/ds01.invalid/u1001/a", "x/ds01.invalid/u1001/a"),
    ],
)  # fmt: skip
def test_images_in_a_message_go_by_the_names_their_user_knows(text: str, shown: str) -> None:
    """Others' not at all."""
    assert ViewerNames(ALICE).plain_text(text) == shown
    assert ViewerNames(ALICE, everything=True).plain_text(text) == text


def test_an_images_name_is_its_users_own() -> None:
    """Another's is what those it is shared with write; admins go by what is inside dockerd."""
    assert ViewerNames(ALICE).image(f"{OWN}:1") == "app:1"
    assert ViewerNames(ALICE).image(f"{THEIRS}:1") == f"{THEIRS}:1"
    assert (
        ViewerNames(ALICE).plain_text(f"No such image: {THEIRS}", frozenset({THEIRS}))
        == f"No such image: {THEIRS}"
    )
    assert ViewerNames(ALICE, everything=True).image(f"{OWN}:1") == f"{OWN}:1"
    assert ViewerNames(ALICE).may_be_in(f'"{OWN}"'.encode())
    assert not ViewerNames(ALICE).may_be_in(f'"{THEIRS}"'.encode())


@pytest.mark.parametrize(
    ("login", "real_name", "names"),
    [
        ("alice", "u1001.web", ("alice.web", "u1001.web")),
        ("alice", "eager_curie", ("alice.eager_curie", "u1001.eager_curie")),
        ("anna.maria", "u1001.web", ("u1001.web",)),
        ("u1002", "u1001.web", ("u1001.web",)),
        ("LAB\\alice", "u1001.web", ("u1001.web",)),
        ("", "u1001.web", ("u1001.web",)),
    ],
)
def test_a_shared_container_has_names_for_others(login: str, real_name: str, names: tuple[str, ...]) -> None:
    """A login before the first dot, unless it could be taken for a uid or for part of a name."""
    assert of_another(Uid(1001), login, real_name) == names


@given(NAMES_OF_USERS, NAMES_OF_USERS)
def test_names_of_two_owners_never_meet(one: tuple[Uid, str, str], other: tuple[Uid, str, str]) -> None:
    """Whatever they are called and whatever they call it."""
    if one[0] != other[0] and one[1] != other[1]:
        assert not {*of_another(one[0], one[1], real(one[0], one[2]))} & {
            *of_another(other[0], other[1], real(other[0], other[2]))
        }


@pytest.mark.parametrize(
    ("listed", "name"),
    [
        (["/u1001.web"], "u1001.web"),
        (["/u1001.app/db", "/u1001.db"], "u1001.db"),
        (["/u1001.app/db"], ""),
        ([], ""),
        (None, ""),
    ],
)
def test_a_link_alias_is_no_name_of_a_container_s_own(listed: list[str] | None, name: str) -> None:
    """It has two slashes, and may stand first."""
    assert own(listed) == name
