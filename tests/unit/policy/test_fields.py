"""Typed looks at JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from policy.fields import (
    as_bool,
    as_int,
    as_list,
    as_object,
    as_strings,
    as_text,
    shown,
    size_bytes,
    size_text,
)


@pytest.mark.parametrize(
    ("look", "empty", "wrong"),
    [
        (as_object, {}, []),
        (as_list, [], {}),
        (as_strings, [], [1]),
        (as_text, "", 1),
        (as_int, 0, True),
        (as_bool, False, 1),
    ],
)
def test_absent_is_empty_and_a_wrong_type_raises(
    look: Callable[[Any], Any], empty: object, wrong: object
) -> None:
    """A rule that meets a wrong type raises, and so denies."""
    assert look(None) == empty
    with pytest.raises(TypeError):
        look(wrong)


def test_shown_is_one_short_line() -> None:
    """Whatever a request holds, a message shows at most 80 printable ASCII characters of it."""
    text = shown("a\n\x1bé" + "x" * 200)
    assert len(text) == 80
    assert text.isascii()
    assert text.isprintable()


def test_sizes_as_people_write_them() -> None:
    """The largest unit that is exact to a tenth."""
    assert [size_text(n) for n in (8 * 1024**3, 1536 * 1024**2, 1000)] == ["8GiB", "1.5GiB", "1000 bytes"]


@pytest.mark.parametrize(
    ("text", "size"),
    [("10m", 10 * 2**20), ("512kb", 2**19), ("7", 7), ("", 0), ("-1", 0), ("9" * 13, 0), ("1t", 0)],
)
def test_sizes_as_dockers_options_write_them(text: str, size: int) -> None:
    """What is no size is 0, which callers replace by their limit."""
    assert size_bytes(text) == size
