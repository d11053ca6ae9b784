"""Words for exactly those who are refused."""

from __future__ import annotations

import pytest

from allocator.forbidden import _WORDS, words
from tests.unit.allocator.test_openapi import OPERATIONS


def test_each_refusal_has_words() -> None:
    """Every operation of the API that answers 403, and no other."""
    assert set(_WORDS) == {key for key, one in OPERATIONS.items() if "403" in one["responses"]}


@pytest.mark.parametrize("key", _WORDS, ids=str)
def test_they_say_who_may_and_what_to_do(key: tuple[str, str]) -> None:
    """In one line: who may do what, then the next step."""
    who, _, instead = words(*key).partition("; ")
    assert who.startswith(("only root may ", "only admins may ", "only the ds01 proxy may "))
    assert "ds01" in instead or "docker" in instead
