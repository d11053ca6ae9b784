"""Laws of the reader: splitting changes nothing, garbage raises one thing, and llhttp agrees with what is accepted."""

from __future__ import annotations

import itertools

import httptools
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from http1.errors import BadRequest, BadResponse
from http1.heads import RequestHead, ResponseHead
from http1.limits import Limits
from http1.reader import End, RequestReader, ResponseReader

LIMITS = Limits(head_bytes=512, header_count=12, trailer_bytes=64)

_names = st.sampled_from(
    ["Host", "Accept", "X-A", "Connection", "Upgrade", "Content-Length", "Transfer-Encoding", "Expect"]
)
_values = st.sampled_from(
    [
        "docker",
        "",
        "close",
        "Upgrade",
        "tcp",
        "h2c",
        "3",
        "03",
        "+3",
        "-1",
        "3, 3",
        "chunked",
        "gzip, chunked",
        "100-continue",
    ]
)
_eols = st.sampled_from(["\r\n"] * 12 + ["\n", "\r", "\r\n ", "\x00\r\n"])
_lines = st.sampled_from(
    ["GET /_ping HTTP/1.1"] * 6
    + [
        "POST /x?y=1 HTTP/1.1",
        "GET http://h/ HTTP/1.1",
        "CONNECT h:1 HTTP/1.1",
        "GET / HTTP/1.0",
        "PRI * HTTP/2.0",
        "GET  / HTTP/1.1",
    ]
)
_bodies = st.sampled_from(
    [
        b"",
        b"abc",
        b"3\r\nabc\r\n0\r\n\r\n",
        b"0\r\nX-T: 1\r\n\r\n",
        b"3;x=y\r\nabc\r\n0\r\n\r\n",
        b"3\r\nabcd\r\n0\r\n\r\n",
        b"3\nabc\n0\n\n",
    ]
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Requests that are nearly right, in all the ways that smuggle."""
    fields = draw(
        st.lists(st.tuples(_names, st.sampled_from([": "] * 8 + [":", " : "]), _values, _eols), max_size=5)
    )
    host = draw(st.sampled_from(["Host: docker\r\n"] * 6 + [""]))
    text = draw(_lines) + draw(_eols) + host + "".join("".join(field) for field in fields) + "\r\n"
    return text.encode("latin-1") + draw(_bodies)


_streams = st.one_of(st.lists(requests(), min_size=1, max_size=3).map(b"".join), st.binary(max_size=80))


def _read(pieces: list[bytes]) -> tuple[list[object], bool]:
    """All events of a stream with its body bytes joined, and whether it was refused."""
    reader = RequestReader(LIMITS)
    events: list[object] = []
    try:
        for piece in pieces:
            new = reader.feed(piece)
            while new:
                events += new
                new = reader.next_message() if isinstance(new[-1], End) else []
    except BadRequest:
        return _joined(events), True
    return _joined(events), False


def _joined(events: list[object]) -> list[object]:
    joined: list[object] = []
    for event in events:
        if isinstance(event, bytes) and joined and isinstance(joined[-1], bytes):
            joined[-1] += event
        else:
            joined.append(event)
    return joined


@settings(max_examples=300, deadline=None)
@given(stream=_streams, cuts=st.lists(st.integers(0, 600), max_size=8))
def test_any_split_gives_the_same_events_or_a_refusal(stream: bytes, cuts: list[int]) -> None:
    """However the bytes arrive, the same requests are read or the stream is refused."""
    at = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    whole, whole_refused = _read([stream])
    split, split_refused = _read([stream[a:b] for a, b in itertools.pairwise(at)])
    assert split_refused == whole_refused
    if not whole_refused:
        assert split == whole
    # A refusal may come later when the bytes do, but what was read before it is the same.
    heads = [event for event in whole if isinstance(event, RequestHead)]
    assert [event for event in split if isinstance(event, RequestHead)][: len(heads)] == heads


@settings(max_examples=200, deadline=None)
@given(stream=_streams)
def test_byte_by_byte_is_the_same(stream: bytes) -> None:
    """The slowest sender is read like the fastest."""
    assert _read([bytes([byte]) for byte in stream])[1] == _read([stream])[1]


class _Oracle:
    """llhttp's reading of one request."""

    def __init__(self) -> None:
        self.target = b""
        self.headers: list[tuple[str, str]] = []
        self.body = b""
        self.done = 0

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self.done:
            self.headers.append((name.decode("latin-1").lower(), value.decode("latin-1").strip(" \t")))

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.done += 1


@settings(max_examples=300, deadline=None)
@given(stream=requests())
def test_what_is_accepted_llhttp_reads_the_same_way(stream: bytes) -> None:
    """No second reader sees another request in what this one accepts."""
    reader = RequestReader(LIMITS)
    try:
        events = _joined([*reader.feed(stream)])
    except BadRequest:
        return
    assume(events and isinstance(events[-1], End) and not reader.held_bytes)
    head = events[0]
    assert isinstance(head, RequestHead)
    assume(head.upgrade is None)  # llhttp stops parsing bodies of upgrades
    oracle = _Oracle()
    parser = httptools.HttpRequestParser(oracle)
    parser.feed_data(stream)
    assert oracle.done == 1
    assert parser.get_method().decode() == head.method
    assert oracle.target.decode() == head.target
    end = events[-1]
    assert isinstance(end, End)
    assert tuple(oracle.headers) in {head.headers, head.headers + end.trailers}
    assert oracle.body == b"".join(event for event in events if isinstance(event, bytes))


@settings(max_examples=300, deadline=None)
@given(
    pieces=st.lists(
        st.one_of(
            st.binary(max_size=30),
            st.sampled_from(
                [
                    b"HTTP/1.1 200 OK\r\n",
                    b"Content-Length: 3\r\n",
                    b"Transfer-Encoding: chunked\r\n",
                    b"\r\n",
                    b"abc",
                    b"3\r\nabc\r\n",
                    b"0\r\n\r\n",
                    b"HTTP/1.1 100 Continue\r\n\r\n",
                    b"HTTP/1.1 101 UPGRADED\r\n\r\n",
                ]
            ),
        ),
        max_size=10,
    ),
    method=st.sampled_from(["GET", "HEAD"]),
)
def test_any_response_bytes_give_events_or_bad_response(pieces: list[bytes], method: str) -> None:
    """A broken upstream raises BadResponse and nothing else."""
    reader = ResponseReader(LIMITS)
    reader.expect(method)
    events: list[object] = []
    try:
        for piece in pieces:
            events += reader.feed(piece)
        events += reader.feed_eof()
    except BadResponse:
        return
    assert sum(isinstance(event, ResponseHead) for event in events) == 1


def test_the_oracle_alone_would_be_too_lenient() -> None:
    """Why the grammar is ours: llhttp accepts two hosts where this reader refuses."""
    stream = b"POST / HTTP/1.1\r\nHost: d\r\nHost: e\r\nContent-Length: 0\r\n\r\n"
    httptools.HttpRequestParser(_Oracle()).feed_data(stream)
    with pytest.raises(BadRequest):
        RequestReader(LIMITS).feed(stream)
