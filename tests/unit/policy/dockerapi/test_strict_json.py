"""JSON at the size and in the shapes that cost most."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest

if TYPE_CHECKING:
    from policy.model import Json


def test_text_is_written_without_escapes_that_make_it_grow() -> None:
    """A body of other alphabets stays as long as it came, so that the plugin still sees it."""
    value: Json = {"Labels": {"a": "字" * 1000}}
    body = strict_json.write_bytes(value, what="the body")
    assert len(body) < 3100
    assert strict_json.parse_bytes(body, what="the body") == value


def test_a_body_that_outgrew_the_limit_is_not_written() -> None:
    """A body larger than the plugin is shown would be decided unseen."""
    with pytest.raises(MalformedRequest, match="larger than"):
        strict_json.write_bytes("a" * strict_json.BODY_BYTES_MAX, what="the body")


def test_the_last_of_many_keys_given_twice_is_found_quickly() -> None:
    """A user cannot make the reader compare each key with each other."""
    members = ",".join(f'"k{number}":0' for number in range(60_000))
    started = time.process_time()
    with pytest.raises(MalformedRequest, match="k59999 is given twice"):
        strict_json.parse("{" + members + ',"k59999":0}', what="the body")
    assert time.process_time() - started < 2


@pytest.mark.parametrize("depth", [32, 33, 500, 200_000])
def test_depth_is_bounded(depth: int) -> None:
    """Thirty-one levels of nesting are read, more are refused, however many."""
    text = "[" * (depth - 1) + "0" + "]" * (depth - 1)
    if depth <= strict_json.DEPTH_MAX:
        strict_json.parse(text, what="the body")
    else:
        with pytest.raises(MalformedRequest, match="nested deeper"):
            strict_json.parse(text, what="the body")


@pytest.mark.parametrize(("text", "value"), [("-9223372036854775808", -(2**63)), ("-0", 0), ("0.5", 0.5)])
def test_numbers_are_exact(text: str, value: float) -> None:
    """The whole range of int64 is read."""
    assert strict_json.parse(text, what="n") == value


@pytest.mark.parametrize("more", [0, 1])
def test_the_number_of_values_is_bounded(more: int) -> None:
    """A body of nothing but values would cost everybody's time; text of any length costs none."""
    text = "[" + ",".join(["0"] * (strict_json.VALUES_MAX - 1 + more)) + "]"
    strict_json.parse('["' + "," * 800_000 + '"]', what="the body")
    if more:
        with pytest.raises(MalformedRequest, match="more than 20000 values"):
            strict_json.parse(text, what="the body")
    else:
        strict_json.parse(text, what="the body")
