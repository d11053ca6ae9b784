"""One image has one spelling, a repository is its name without tag and digest, and a local name is one user's."""

from __future__ import annotations

import pytest

from policy.image_names import (
    familiar,
    is_disguised,
    is_local,
    is_reserved,
    owner,
    plain,
    prefix,
    real,
    repository,
)
from policy.model import Uid

ALICE, BOB = Uid(1001), Uid(1002)
DIGEST = "sha256:" + "1" * 64


@pytest.mark.parametrize(
    ("text", "name"),
    [("a", "a"), ("a:1", "a"), ("h:5000/a", "h:5000/a"), ("h:5000/a:1", "h:5000/a"), ("a@sha256:0", "a"),
     ("h:5000/a:1@sha256:0", "h:5000/a")],
)  # fmt: skip
def test_a_repository_is_a_name_without_its_tag(text: str, name: str) -> None:
    """A port is no tag."""
    assert repository(text) == name


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox", "busybox:latest"),
        ("docker.io/alice/x:1", "alice/x:1"),
        ("index.docker.io/library/busybox:1", "busybox:1"),
        ("host:5000/x", "host:5000/x:latest"),
        ("host:5000/x:2", "host:5000/x:2"),
        ("x@sha256:1", "x@sha256:1"),
        ("docker.io/library/library/x", "library/library/x:latest"),
        ("library/a/b:1", "library/a/b:1"),
    ],
)
def test_one_image_has_one_spelling(text: str, tag: str) -> None:
    """Ownership by tag would be lost with a second spelling."""
    assert familiar(text) == tag
    assert familiar(tag) == tag


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("app", "app"),
        ("app_web:latest", "app_web:latest"),
        ("docker.io/library/app:1", "app:1"),
        ("docker.io/app", "app"),
        ("library/app", "app"),
        ("vsc-x-0123456789abcdef", "vsc-x-0123456789abcdef"),
        (f"app@{DIGEST}", f"app@{DIGEST}"),
        (f"app:1@{DIGEST}", f"app:1@{DIGEST}"),
        ("localhost:5000", "localhost:5000"),
    ],
)
def test_a_local_name_is_its_users_own(text: str, name: str) -> None:
    """Inside dockerd it begins with the user; its user knows it without."""
    inside = real(ALICE, text)
    assert inside == f"ds01.invalid/u1001/{name}"
    assert (plain(ALICE, inside), plain(BOB, inside), owner(inside)) == (name, inside, ALICE)
    assert real(BOB, text) != inside
    assert real(ALICE, inside) == inside, "applied twice it changes nothing"


@pytest.mark.parametrize(
    "text",
    ["alice/app", "reg.example/app", "localhost/app", "host:5000/app:1", "docker.io/alice/app:1", DIGEST, "1" * 64,
     "sha256:abc", "sha256", "App", "app:", "a:b:c", "app--", "", "app:-", "a b", "app:*", "docker.io/library/a/b"],
)  # fmt: skip
def test_what_has_an_account_or_is_no_name_stays_as_it_is(text: str) -> None:
    """dockerd answers for it in its own words."""
    assert not is_local(text)
    assert real(ALICE, text) == text


@pytest.mark.parametrize(
    "text",
    ["ds01.invalid/u1002/app", "DS01.Invalid/u1002/app", "ds01.invalid:443/u1002/app", "docker.io/ds01.invalid/u1002/app",
     "index.docker.io/library/ds01.invalid/u1/a", "a/ds01.invalid/u1/a", "docker.io/docker.io/ds01.invalid/u1/a",
     "ds01.invalid", "ds01.invalid:1"],
)  # fmt: skip
def test_ds01s_own_space_is_known_in_every_spelling(text: str) -> None:
    """Also where dockerd would only list it so."""
    assert is_reserved(text)
    assert not is_reserved(text.replace("ds01", "ds02").replace("DS01", "DS02"))


@pytest.mark.parametrize(
    ("text", "disguised"),
    [("docker.io/ghcr.io/a", True), ("index.docker.io/reg:5000/a", True), ("docker.io/alice/a", False),
     ("ghcr.io/a", False), ("docker.io/library/a", False), ("docker.io/docker.io/a", True), ("a.b:1", False),
     ("docker.io/a.b:1", False)],
)  # fmt: skip
def test_a_hub_name_may_not_read_as_another_registrys(text: str, *, disguised: bool) -> None:
    """dockerd leaves its beginning out."""
    assert is_disguised(text) is disguised


@pytest.mark.parametrize(
    "text",
    [
        "ds01.invalid/u01/a",
        "ds01.invalid/u/a",
        "ds01.invalid/1/a",
        "ds01.invalid/u1",
        "ds01.invalid/u1/",
        "u1/a",
    ],
)
def test_what_is_not_of_the_form_is_nobodys(text: str) -> None:
    """A number has one spelling."""
    assert owner(text) is None


def test_no_users_names_begin_with_anothers() -> None:
    """Users 1 and 11."""
    assert not prefix(Uid(11)).startswith(prefix(Uid(1)))
    assert owner(real(Uid(11), "a")) == 11
