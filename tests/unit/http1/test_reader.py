"""The strict reader: what it refuses, and what it reads."""

from __future__ import annotations

import pytest

from http1.errors import BadRequest, BadResponse
from http1.heads import RequestHead, ResponseHead
from http1.limits import Limits
from http1.reader import END, End, RequestReader, ResponseReader

LIMITS = Limits()
OK = b"GET /_ping HTTP/1.1\r\nHost: docker\r\n"


@pytest.mark.parametrize(
    ("data", "status"),
    [
        pytest.param(b"GET / HTTP/1.1\nHost: d\n\n", 400, id="bare LF"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: d\r\nA: b\nC: d\r\n\r\n", 400, id="bare LF inside"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: d\x00\r\n\r\n", 400, id="NUL"),
        pytest.param(b"GET / HTTP/1.1\r\nHost: d\rX: y\r\n\r\n", 400, id="bare CR"),
        pytest.param(OK + b"A: b\r\n c\r\n\r\n", 400, id="folded"),
        pytest.param(OK + b"A : b\r\n\r\n", 400, id="space before colon"),
        pytest.param(OK + b": b\r\n\r\n", 400, id="empty name"),
        pytest.param(OK + b"A\r\n\r\n", 400, id="no colon"),
        pytest.param(OK + b"\xc3\xa4: b\r\n\r\n", 400, id="name not a token"),
        pytest.param(OK + b"Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", 400, id="two equal lengths"),
        pytest.param(OK + b"Content-Length: 1, 1\r\n\r\nx", 400, id="length list"),
        pytest.param(OK + b"Content-Length: +1\r\n\r\nx", 400, id="plus length"),
        pytest.param(OK + b"Content-Length: -1\r\n\r\nx", 400, id="negative length"),
        pytest.param(OK + b"Content-Length: 0x1\r\n\r\nx", 400, id="hex length"),
        pytest.param(OK + b"Content-Length: \xb2\r\n\r\nx", 400, id="superscript digit"),
        pytest.param(OK + b"Content-Length:\r\n\r\n", 400, id="empty length"),
        pytest.param(
            OK + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400, id="CL and TE"
        ),
        pytest.param(OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 400, id="TE list"),
        pytest.param(OK + b"Transfer-Encoding: Chunked\r\n\r\n", 400, id="TE case"),
        pytest.param(OK + b"Transfer-Encoding: \x0bchunked\r\n\r\n", 400, id="TE vertical tab"),
        pytest.param(
            OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 400, id="two TE"
        ),
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", 400, id="no Host"),
        pytest.param(OK + b"Host: e\r\n\r\n", 400, id="two Hosts"),
        pytest.param(b"GET http://d/_ping HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="absolute form"),
        pytest.param(b"CONNECT d:80 HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="authority form"),
        pytest.param(b"OPTIONS * HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="asterisk form"),
        pytest.param(b"GET / HTTP/1.0\r\nHost: d\r\n\r\n", 505, id="HTTP/1.0"),
        pytest.param(b"GET / HTTP/1.2\r\nHost: d\r\n\r\n", 505, id="HTTP/1.2"),
        pytest.param(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, id="HTTP/2 preface"),
        pytest.param(b"GET /\xc3\xa4 HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="target not ASCII"),
        pytest.param(b"GET /a b HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="space in target"),
        pytest.param(b"GET /\x7f HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="DEL in target"),
        pytest.param(b"G(T / HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="method not a token"),
        pytest.param(b"GET /\r\nHost: d\r\n\r\n", 400, id="HTTP/0.9"),
        pytest.param(b"\r\nGET / HTTP/1.1\r\nHost: d\r\n\r\n", 400, id="empty line first"),
        pytest.param(b"\x16\x03\x01\x02\x00\x01\x00", 400, id="TLS hello"),
        pytest.param(OK + b"Expect: 200-ok\r\n\r\n", 417, id="other expectation"),
        pytest.param(OK + b"A: b\r\n" * 200 + b"\r\n", 431, id="too many headers"),
        pytest.param(OK + b"A: " + b"b" * 70000, 431, id="endless header"),
        pytest.param(OK + b"A: " + b"b" * 70000 + b"\r\n\r\n", 431, id="long head"),
    ],
)
def test_refuses(data: bytes, status: int) -> None:
    """What two readers could read differently is refused with the right status."""
    with pytest.raises(BadRequest) as caught:
        RequestReader(LIMITS).feed(data)
    assert caught.value.status == status


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"3;a=b\r\nabc\r\n0\r\n\r\n", id="extension"),
        pytest.param(b"3 \r\nabc\r\n0\r\n\r\n", id="space after size"),
        pytest.param(b"0x3\r\nabc\r\n0\r\n\r\n", id="0x"),
        pytest.param(b"-3\r\nabc\r\n0\r\n\r\n", id="negative"),
        pytest.param(b"\r\nabc", id="no size"),
        pytest.param(b"3\nabc\r\n0\r\n\r\n", id="bare LF after size"),
        pytest.param(b"3\r\nabcd\r\n0\r\n\r\n", id="longer than its size"),
        pytest.param(b"3\r\nabc\n0\r\n\r\n", id="bare LF after data"),
        pytest.param(b"ffffffffffffffff\r\n", id="size overflows"),
        pytest.param(b"0\r\nHost: x\r\n\r\n", id="framing in trailers"),
        pytest.param(b"0\r\n X: x\r\n\r\n", id="folded trailer"),
        pytest.param(b"0\r\nX: " + b"x" * 9000 + b"\r\n\r\n", id="long trailer"),
    ],
)
def test_refuses_bad_chunks(body: bytes) -> None:
    """Chunk framing has one reading or none."""
    reader = RequestReader(LIMITS)
    with pytest.raises(BadRequest):
        reader.feed(OK + b"Transfer-Encoding: chunked\r\n\r\n" + body)


def test_reads_a_head() -> None:
    """Names are lower-cased, order and duplicates kept, values stripped."""
    head, end = RequestReader(LIMITS).feed(
        OK + b"X-B:  1 \r\nx-b:2\r\nConnection: keep-alive, Upgrade\r\nUpgrade: TCP\r\n\r\n"
    )
    assert isinstance(head, RequestHead)
    assert (head.method, head.target) == ("GET", "/_ping")
    assert head.headers[:3] == (("host", "docker"), ("x-b", "1"), ("x-b", "2"))
    assert (head.upgrade, head.keep_alive, head.content_length, head.chunked) == ("tcp", True, None, False)
    assert end == END


def test_upgrade_needs_connection_upgrade() -> None:
    """An Upgrade header alone asks for nothing (RFC 9110 section 7.8)."""
    head = RequestReader(LIMITS).feed(OK + b"Upgrade: tcp\r\n\r\n")[0]
    assert isinstance(head, RequestHead)
    assert head.upgrade is None


def test_empty_host_is_one_host() -> None:
    """dockerd 20.10 sends its plugins an empty Host."""
    assert RequestReader(LIMITS).feed(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\n\r\n")[-1] == END


def test_holds_what_follows_a_request() -> None:
    """Bytes behind a request are not parsed before they are asked for, and can be had raw."""
    reader = RequestReader(LIMITS)
    reader.feed(OK + b"\r\n" + b"\x00 not http")
    reader.feed(b" at all")
    assert reader.release() == b"\x00 not http at all"


def test_pipelined_requests_come_one_by_one() -> None:
    """The second request is read when the first is done with."""
    reader = RequestReader(LIMITS)
    assert len(reader.feed((OK + b"\r\n") * 2)) == 2
    assert len(reader.next_message()) == 2
    assert reader.next_message() == []


def test_chunked_body_and_trailers() -> None:
    """Chunks are unwrapped and trailers come with the end."""
    events = RequestReader(LIMITS).feed(
        OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nA\r\n0123456789\r\n0\r\nX-T: y\r\n\r\n"
    )
    assert events[1:] == [b"abc", b"0123456789", End(trailers=(("x-t", "y"),))]


def _response(
    data: bytes, method: str = "GET", *, raw: bool = False, upgrade: bool = False
) -> tuple[list[object], ResponseReader]:
    reader = ResponseReader(LIMITS)
    reader.expect(method, raw=raw, upgrade=upgrade)
    return [*reader.feed(data)], reader


@pytest.mark.parametrize(
    ("data", "method"),
    [
        pytest.param(b"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "GET", id="204"),
        pytest.param(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", "GET", id="304"),
        pytest.param(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", "HEAD", id="HEAD"),
        pytest.param(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "HEAD", id="HEAD chunked"),
        pytest.param(b"HTTP/1.1 200 OK\r\n\r\n", "HEAD", id="HEAD without length"),
    ],
)
def test_responses_without_body(data: bytes, method: str) -> None:
    """These end with their head, whatever it says about a body."""
    events, _ = _response(data, method)
    assert events[1:] == [END]


def test_interim_responses_are_skipped() -> None:
    """100 and 103 are not the answer."""
    events, _ = _response(
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nA: b\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx"
    )
    assert isinstance(events[0], ResponseHead)
    assert events[0].status == 200
    assert events[1:] == [b"x", END]


def test_close_delimited_body_ends_with_the_connection() -> None:
    """Without length and chunks, the end of the connection is the end of the body."""
    events, reader = _response(b"HTTP/1.1 200 OK\r\n\r\nabc")
    assert events[1:] == [b"abc"]
    assert reader.feed_eof() == [END]


def test_cut_response_is_an_error() -> None:
    """A body shorter than promised never looks complete."""
    _, reader = _response(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabc")
    with pytest.raises(BadResponse):
        reader.feed_eof()


@pytest.mark.parametrize("status", ["101 UPGRADED", "200 OK"])
def test_raw_answers_hold_their_bytes(status: str) -> None:
    """Nothing behind the head of a raw answer is parsed."""
    events, reader = _response(f"HTTP/1.1 {status}\r\n\r\n\x01raw".encode(), raw=True, upgrade=True)
    assert len(events) == 1
    assert reader.raw
    assert reader.release() == b"\x01raw"


def test_unasked_switch_is_refused() -> None:
    """101 without an upgrade asked for is a broken upstream."""
    with pytest.raises(BadResponse):
        _response(b"HTTP/1.1 101 UPGRADED\r\n\r\n")


def test_a_repeated_head_is_the_same_object() -> None:
    """The same bytes on one connection give the same head, other bytes or another connection do not."""
    reader, other = RequestReader(LIMITS), RequestReader(LIMITS)
    data, changed = OK + b"\r\n", OK.replace(b"_ping", b"_pong") + b"\r\n"

    def head(one: RequestReader, sent: bytes) -> object:
        first = one.feed(sent)[0]
        assert one.next_message() == []
        return first

    first = head(reader, data)
    assert head(reader, data) is first
    assert head(other, data) == first
    assert head(other, data) is not first
    assert head(reader, changed) != first
    assert head(reader, data) == first


def test_a_long_head_is_not_remembered() -> None:
    """What an idle connection keeps is small."""
    reader = RequestReader(LIMITS)
    data = OK + b"A: " + b"b" * 4096 + b"\r\n\r\n"
    first = reader.feed(data)[0]
    reader.next_message()
    assert reader.feed(data)[0] is not first


def test_a_repeated_answer_is_read_for_its_request() -> None:
    """The same answer to HEAD and to GET ends at different places."""
    reader = ResponseReader(LIMITS)
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
    for _ in range(2):
        reader.expect("HEAD")
        assert reader.feed(head)[-1] is END
        reader.expect("GET")
        assert reader.feed(head + b"OK")[1:] == [b"OK", END]
