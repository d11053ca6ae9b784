"""dockerd's messages are read strictly and answered in its own words."""

from __future__ import annotations

import json
from typing import Any

import pytest

from authz_plugin.wire import WireInvalid, parse_question, write_denial


def test_a_question_is_read(make_req: Any) -> None:
    """Method, raw target, folded header names and the decoded body."""
    question = parse_question(make_req(body=b"{}"))
    assert (question.method, question.target) == ("POST", "/v1.41/containers/create?name=x")
    assert question.all_of("content-type") == ("application/json",)
    assert question.body == b"{}"
    assert question.path == "/v1.41/containers/create"


@pytest.mark.parametrize("body", [None, b""])
def test_absent_and_empty_bodies_look_alike(make_req: Any, body: bytes | None) -> None:
    """dockerd does not tell them apart, so neither does ds01."""
    assert parse_question(make_req(body=body)).body is None


def test_null_fields_are_absent(make_req: Any) -> None:
    """Go writes nil maps and slices as null."""
    question = parse_question(make_req(body=None, RequestHeaders=None, RequestBody=None))
    assert (question.headers, question.body) == ((), None)


def test_the_reader_sees_no_stamp(make_req: Any) -> None:
    """The stamp is the plugin's affair, not the request's."""
    incoming = parse_question(make_req(stamp="x")).incoming(without="x-ds01-stamp")
    assert [name for name, _ in incoming.headers] == ["content-type"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[]",
        b"null",
        b"{",
        b"\xff",
        b'{"RequestMethod":"GET"}',
        b'{"RequestMethod":"","RequestUri":"/"}',
        b'{"RequestMethod":1,"RequestUri":"/"}',
        b'{"RequestMethod":"GET","RequestUri":"/","RequestBody":"***"}',
        b'{"RequestMethod":"GET","RequestUri":"/","RequestBody":{}}',
        b'{"RequestMethod":"GET","RequestUri":"/","RequestHeaders":{"A":["b"]}}',
        b'{"RequestMethod":"GET","RequestUri":"/"} {}',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:50]),
)
def test_anything_else_is_no_question(body: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(WireInvalid):
        parse_question(body)


@pytest.mark.parametrize("text", ["", " \n ", "two\r\nlines", "x" * 5000, "\x1b[31m"])
def test_a_denial_is_one_bounded_line(text: str) -> None:
    """`Msg` is what every client prints, so it is there, on one line."""
    answer = json.loads(write_denial(text))
    assert answer["Allow"] is False
    assert 0 < len(answer["Msg"]) <= 1000
    assert "\n" not in answer["Msg"]
