"""A stand-in says what it stands for, in one form, and none lies below another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.model import Uid
from policy.paths import clean_path, is_under
from policy.stand_ins import StandIn, StandIns

ROOT = "/var/lib/ds01/sources"
STAND_INS = StandIns(ROOT)
PARTS = st.text(st.characters(min_codepoint=0x20, exclude_characters="/\x7f"), min_size=1, max_size=5).filter(
    lambda part: part not in {".", ".."}
)
PATHS = st.lists(PARTS | st.sampled_from(["1", "2rw", "sources", "home"]), min_size=1, max_size=4).map(
    lambda parts: "/" + "/".join(parts)
)
ANY = st.builds(StandIn, source=PATHS, uid=st.integers(0, 2**32 - 2).map(Uid), read_only=st.booleans())


def test_the_form() -> None:
    """As the decision record says it: operators read it in inspect at the engine's own socket."""
    stand_in = StandIn(source="/home/alice/d", uid=Uid(1000), read_only=False)
    assert STAND_INS.path(stand_in) == f"{ROOT}/1000/3rw/home/alice/d"


@given(ANY)
def test_what_it_stands_for_can_be_read_off(stand_in: StandIn) -> None:
    """There and back."""
    path = STAND_INS.path(stand_in)
    assert clean_path(path) == path
    assert STAND_INS.behind(path) == stand_in
    assert STAND_INS.source(path) == stand_in.source
    assert STAND_INS.plain_text(f"open {path}: no") == f"open {stand_in.source}: no"


@given(ANY, ANY)
def test_none_lies_below_another(one: StandIn, other: StandIn) -> None:
    """What is mounted on one never covers another, and two differ wherever what they stand for does."""
    first, second = STAND_INS.path(one), STAND_INS.path(other)
    assert (first == second) == (one == other)
    assert is_under(first, second) == (one == other)


@given(PATHS, PATHS)
def test_not_even_where_the_paths_do(above: str, below: str) -> None:
    """The case for which the depth comes first."""
    one, other = (
        STAND_INS.path(StandIn(source=path, uid=Uid(1), read_only=False)) for path in (above, above + below)
    )
    assert not is_under(other, one)


@pytest.mark.parametrize(
    "path",
    [
        "/home/alice",
        ROOT,
        f"{ROOT}/1000/3rw",
        f"{ROOT}/1000/3rw/",
        f"{ROOT}/1000/2rw/home/alice/d",
        f"{ROOT}/1000/3rx/home/alice/d",
        f"{ROOT}/01000/3rw/home/alice/d",
        f"{ROOT}/1000/03rw/home/alice/d",
        f"{ROOT}/1000/4rw/home/../alice/d",
        f"{ROOT}/1000/3rw/home/alice/d/",
        f"{ROOT}/1000/3rw//home/alice",
        f"{ROOT}/-1/3rw/home/alice/d",
        f"{ROOT}x/1000/3rw/home/alice/d",
        f"x{ROOT}/1000/3rw/home/alice/d",
    ],
)
def test_another_form_stands_for_nothing(path: str) -> None:
    """One spelling each: what dockerd resolves otherwise than ds01 reads it is no stand-in."""
    assert STAND_INS.behind(path) is None
    assert STAND_INS.source(path) == path
