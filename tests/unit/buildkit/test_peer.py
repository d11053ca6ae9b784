"""One end of an HTTP/2 connection, against the h2 library at the other."""

from __future__ import annotations

import pytest
from h2 import events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection

from buildkit.peer import STREAMS, Broken, Peer

REQUEST = [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "x")]
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def client() -> H2Connection:
    connection = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
    connection.initiate_connection()
    return connection


def joined() -> tuple[Peer, H2Connection]:
    """A serving peer and a client that know each other's settings."""
    peer, other = Peer(client_side=False), client()
    exchange(peer, other)
    return peer, other


def exchange(peer: Peer, other: H2Connection) -> tuple[list[h2.Event], list[h2.Event]]:
    """Carry bytes until both are silent. Returns: what the peer saw, what the other saw."""
    seen: tuple[list[h2.Event], list[h2.Event]] = ([], [])
    while True:
        to_peer, to_other = other.data_to_send(), peer.take()
        if not to_peer and not to_other:
            return seen
        seen[0].extend(peer.receive(to_peer))
        seen[1].extend(other.receive_data(to_other))


def test_a_request_and_its_answer() -> None:
    """Head, body, trailers."""
    peer, other = joined()
    other.send_headers(1, REQUEST)
    other.send_data(1, b"hello", end_stream=True)
    seen, _ = exchange(peer, other)
    kinds = [type(event) for event in seen if not isinstance(event, h2.SettingsAcknowledged)]
    assert kinds == [h2.RequestReceived, h2.DataReceived, h2.StreamEnded]
    peer.accept(1)
    peer.send_headers(1, [(":status", "200")])
    peer.send(1, b"world")
    peer.finish(1, (("grpc-status", "0"),))
    _, seen = exchange(peer, other)
    assert [event.data for event in seen if isinstance(event, h2.DataReceived)] == [b"world"]
    assert any(isinstance(event, h2.TrailersReceived) for event in seen)


def test_bytes_may_come_one_by_one() -> None:
    """The preface and frame headers too."""
    peer, other = Peer(client_side=False), client()
    other.send_headers(1, REQUEST, end_stream=True)
    data = other.data_to_send()
    events = [event for n in range(len(data)) for event in peer.receive(data[n : n + 1])]
    assert isinstance(events[-1], h2.StreamEnded)


def test_what_the_window_does_not_let_go_waits() -> None:
    """And goes when room is given; a stream that waits does not stop another."""
    peer, other = joined()
    for stream in (1, 3):
        other.send_headers(stream, REQUEST, end_stream=True)
    exchange(peer, other)
    for stream, size in ((1, 100_000), (3, 10)):
        peer.accept(stream)
        peer.send_headers(stream, [(":status", "200")])
        peer.send(stream, b"x" * size)
    other.increment_flow_control_window(1_000_000)
    exchange(peer, other)
    assert peer.queued(1) == 100_000 - 65535
    assert peer.queued(3) == 0
    other.increment_flow_control_window(100_000, 1)
    exchange(peer, other)
    assert peer.queued(1) == 0


def test_a_piece_at_a_time() -> None:
    """However large the other end's window: what was taken is bounded."""
    peer, other = joined()
    other.send_headers(1, REQUEST, end_stream=True)
    other.increment_flow_control_window(2**30)
    other.increment_flow_control_window(2**30, 1)
    exchange(peer, other)
    peer.accept(1)
    peer.send_headers(1, [(":status", "200")])
    peer.send(1, b"x" * 10_000_000)
    assert len(peer.take()) < 100_000


def test_a_stream_that_is_over_takes_nothing() -> None:
    """Late answers are dropped, whoever ended it."""
    peer, other = joined()
    other.send_headers(1, REQUEST)
    exchange(peer, other)
    peer.accept(1)
    peer.send_headers(1, [(":status", "200")])
    peer.send(1, b"late")
    other.reset_stream(1)
    peer.receive(other.data_to_send())
    peer.finish(1, (("a", "b"),))
    assert b"late" not in peer.take()
    peer.forget(1)
    peer.send_headers(1, [(":status", "200")])
    peer.send(1, b"late")
    peer.finish(1)
    peer.reset(1)
    peer.acknowledge(1, 0)
    assert peer.queued(1) == 0


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"GET / HTTP/1.1\r\n", id="http1"),
        pytest.param(PREFACE + b"\xff\xff\xff\0\0\0\0\0\0", id="long-frame"),
        pytest.param(PREFACE + b"\0\0\1\0\0\0\0\0\1x", id="no-settings"),
        pytest.param(
            PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\5\1\4\0\0\0\1\xff\xff\xff\xff\xff", id="bad-hpack"
        ),
        pytest.param(PREFACE + b"\0\0\0\4\0\0\0\0\0" + b"\0\0\4\x08\0\0\0\0\0\0\0\0\0", id="no-window"),
    ],
)
def test_what_is_not_http2_breaks_the_connection(data: bytes) -> None:
    """And says so at once."""
    peer = Peer(client_side=False)
    with pytest.raises(Broken):
        peer.receive(data)


def test_thousands_of_unknown_frames_are_skipped() -> None:
    """HTTP/2 says to ignore them; h2 alone would go too deep."""
    peer, other = joined()
    assert peer.receive(b"\0\0\0\xee\0\0\0\0\0" * 7000) == []
    other.send_headers(1, REQUEST, end_stream=True)
    seen, _ = exchange(peer, other)
    assert isinstance(seen[0], h2.RequestReceived)


def test_thousands_of_continuations_break_the_connection() -> None:
    """A header without end."""
    peer, other = joined()
    other.send_headers(1, REQUEST)
    head = other.data_to_send()
    with pytest.raises(Broken):
        peer.receive(head[:4] + b"\0" + head[5:] + b"\0\0\0\x09\0\0\0\0\1" * 7000)


def test_more_streams_than_allowed_break_the_connection() -> None:
    """Each may hold a request."""
    peer, other = joined()
    for number in range(STREAMS):
        other.send_headers(2 * number + 1, REQUEST)
    peer.receive(other.data_to_send())
    raw = client()
    raw.data_to_send()
    raw.send_headers(2 * STREAMS + 1, REQUEST)
    with pytest.raises(Broken):
        peer.receive(raw.data_to_send())


def test_a_client_opens_streams() -> None:
    """The other way round, towards the engine."""
    peer = Peer(client_side=True)
    other = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
    other.initiate_connection()
    assert [peer.open(REQUEST), peer.open(REQUEST)] == [1, 3]
    _, seen = exchange(peer, other)
    assert sum(isinstance(event, h2.RequestReceived) for event in seen) == 2


def test_a_server_that_takes_no_streams_breaks_the_connection() -> None:
    """It cannot be waited for."""
    peer = Peer(client_side=True)
    other = H2Connection(H2Configuration(client_side=False))
    other.initiate_connection()
    other.update_settings({3: 0})
    exchange(peer, other)
    with pytest.raises(Broken):
        peer.open(REQUEST)
