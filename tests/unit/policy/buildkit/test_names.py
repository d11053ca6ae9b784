"""Names inside BuildKit begin with their user."""

from __future__ import annotations

import pytest

from policy.buildkit import names
from policy.model import Uid

ALICE, BOB = Uid(100), Uid(1001)


def test_a_name_comes_back_as_its_user_gave_it() -> None:
    """And to nobody else."""
    inside = names.own(ALICE, "abc")
    assert inside == "ds01-100-abc"
    assert names.shown(ALICE, inside) == "abc"
    assert names.shown(BOB, inside) is None
    assert names.shown(ALICE, "abc") is None


def test_twice_is_once() -> None:
    """The plugin looks again at what the proxy has written."""
    assert names.own(ALICE, names.own(ALICE, "abc")) == names.own(ALICE, "abc")


@pytest.mark.parametrize("name", ["abc", "ds01-1001-abc", "ds01-10", ""])
def test_no_name_of_one_user_is_anothers(name: str) -> None:
    """Even one that begins like another's, and even where one number begins like another."""
    assert names.shown(BOB, names.own(ALICE, name)) is None
    assert not names.cache_namespace(BOB).startswith(names.cache_namespace(ALICE) + "/")


@pytest.mark.parametrize(
    ("text", "good"),
    [("uhhnbth2jyll6yzzjhfa4i8iq", True), ("a.b_c-d", True), ("", False), ("a:b", False), ("a/b", False),
     ("-a", False), ("é", False), ("a\n", False), ("a" * 129, False)],
)  # fmt: skip
def test_what_a_client_may_call_things(text: str, *, good: bool) -> None:
    """Letters, digits and three signs; no colon, behind which BuildKit would look for another name."""
    assert names.is_name(text) is good
