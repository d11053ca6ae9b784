"""Values of JSON bodies: what is not exactly as it should be is refused, with the field's name."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from allocator.json_values import (
    BadInput,
    container_of,
    fraction_of,
    list_of,
    name_of,
    number_of,
    object_of,
    only,
    parse_body,
    profile_of,
    text_of,
)


@pytest.mark.parametrize("data", [b"", b"[]", b"1", b'{"a":1,"a":2}', b"{", b"\xff", b"[" * 100_000])
def test_a_body_is_one_object_without_duplicate_keys(data: bytes) -> None:
    """Whatever else it is."""
    with pytest.raises(BadInput, match="not one JSON object"):
        parse_body(data)
    assert parse_body(b'{"a": 1}') == {"a": 1}


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        pytest.param(lambda v: number_of(v, "f", most=5), [0, 5], [-1, 6, True, "1", 1.0, None], id="number"),
        pytest.param(lambda v: text_of(v, "f"), ["a", "~" * 128], ["", "\n", "é", "a" * 129, 1], id="text"),
        pytest.param(
            lambda v: container_of(v, "f"), ["a" * 64], ["a" * 63, "A" * 64, 1, None], id="container"
        ),
        pytest.param(lambda v: list_of(v, "f", most=1), [[], [1]], [[1, 2], {}, "a", None], id="list"),
        pytest.param(lambda v: object_of(v, "f"), [{}, {"a": 1}], [[], "a", None], id="object"),
        pytest.param(lambda v: name_of(v, "f"), ["web", "ä"], ["", 1, None], id="name"),
        pytest.param(lambda v: profile_of(v, "f", {"any"}), ["any", "2g.10gb"], ["2x", "", 1], id="profile"),
    ],
)
def test_only_what_is_exact_is_read(read: Callable[[Any], Any], good: list[Any], bad: list[Any]) -> None:
    """And the field is named."""
    for value in good:
        assert read(value) == value
    for value in bad:
        with pytest.raises(BadInput, match="f:"):
            read(value)


def test_fractions_have_a_denominator_that_is_not_zero() -> None:
    """As exact as they are written."""
    assert fraction_of("3/7", "f") == Fraction(3, 7)
    for value in ("1/0", "-1", "0.5", 1, ""):
        with pytest.raises(BadInput, match="f:"):
            fraction_of(value, "f")


def test_fields_are_there_and_known() -> None:
    """A missing and an unknown one are named."""
    assert only({"a": 1, "b": 2}, required={"a"}, optional={"b"}) == {"a": 1, "b": 2}
    with pytest.raises(BadInput, match="a: missing"):
        only({}, required={"a"})
    with pytest.raises(BadInput, match="c: unknown field"):
        only({"a": 1, "c": 1}, required={"a"})
