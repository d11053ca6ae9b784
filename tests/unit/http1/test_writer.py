"""The writer: nothing a value holds can become framing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from http1.heads import RequestHead
from http1.limits import Limits
from http1.reader import RequestReader
from http1.writer import error_body, forwardable, request_head, response_head, write_chunk, write_last_chunk


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param("x", "a\r\nEvil: 1", id="CRLF"),
        pytest.param("x", "a\r\n\r\nGET / HTTP/1.1", id="second message"),
        pytest.param("x", "a\nb", id="LF"),
        pytest.param("x", "a\rb", id="CR"),
        pytest.param("x", "a\x00b", id="NUL"),
        pytest.param("x", "a\x7fb", id="DEL"),
        pytest.param("x", "\u010d", id="not latin-1"),
        pytest.param("x: a\r\ny", "b", id="name with CRLF"),
        pytest.param("x y", "b", id="name with space"),
        pytest.param("", "b", id="no name"),
        pytest.param("Content-Length", "5", id="length"),
        pytest.param("transfer-encoding", "chunked", id="encoding"),
        pytest.param("CONNECTION", "close", id="connection"),
    ],
)
def test_refuses_headers(name: str, value: str) -> None:
    """Injection and framing headers raise before a byte is written."""
    with pytest.raises(ValueError):
        response_head(200, [(name, value)])
    with pytest.raises(ValueError):
        request_head("GET", "/", [(name, value)])


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/a b"),
        ("GET", "/\r\nX: y"),
        ("GET", "x"),
        ("G T", "/"),
        ("", "/"),
        ("GET", "/\u00e4"),
        ("GET", ""),
    ],
)
def test_refuses_request_lines(method: str, target: str) -> None:
    """A request line has exactly three parts."""
    with pytest.raises(ValueError, match="request line"):
        request_head(method, target, [])


def test_refuses_a_reason_with_crlf_and_two_hosts() -> None:
    """The other places that text goes to."""
    with pytest.raises(ValueError, match="status line"):
        response_head(200, [], reason="OK\r\nX: y")
    with pytest.raises(ValueError, match="forbidden"):
        response_head(101, [], upgrade="tcp\r\nX: y")
    with pytest.raises(ValueError, match="Host"):
        request_head("GET", "/", [("host", "a"), ("Host", "b")])


def test_writes_as_dockerd_does() -> None:
    """Names are spelled as Go spells them; framing comes last."""
    assert (
        response_head(200, [("api-version", "1.41"), ("ostype", "linux")], content_length=2)
        == b"HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nOstype: linux\r\nContent-Length: 2\r\n\r\n"
    )
    assert response_head(101, [], reason="UPGRADED", upgrade="tcp") == (
        b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
    )


def test_chunks_and_errors() -> None:
    """Chunk framing in hexadecimal, trailers, and the error form of Docker."""
    assert b"".join(write_chunk(bytes(26))) == b"1a\r\n" + bytes(26) + b"\r\n"
    assert write_last_chunk() == b"0\r\n\r\n"
    assert write_last_chunk((("x-t", "y"),)) == b"0\r\nX-T: y\r\n\r\n"
    assert error_body('a"\n') == b'{"message": "a\\"\\n"}\n'


def test_hop_by_hop_fields_stay_behind() -> None:
    """What describes one connection is not carried to another."""
    assert forwardable((("te", "x"), ("upgrade", "tcp"), ("etag", "1"), ("expect", "100-continue"))) == (
        ("etag", "1"),
    )


_token = st.text("abcdefXYZ0-_", min_size=1, max_size=8)
_value = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)


@given(
    headers=st.lists(
        st.tuples(_token.map(lambda name: "x-" + name.lower()), _value.map(lambda v: v.strip(" \t"))),
        max_size=6,
    )
)
def test_what_is_written_is_read_back(headers: list[tuple[str, str]]) -> None:
    """Writing then reading gives the same request."""
    events = RequestReader(Limits()).feed(request_head("POST", "/x?y=%20", headers, content_length=0))
    head = events[0]
    assert isinstance(head, RequestHead)
    assert (head.method, head.target) == ("POST", "/x?y=%20")
    assert head.headers == (("host", "docker"), *headers, ("content-length", "0"))
