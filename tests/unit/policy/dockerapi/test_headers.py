"""The headers that are written."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import Incoming, MalformedRequest, Outgoing
from policy.dockerapi.read import read
from policy.dockerapi.write import write


def through(method: str, target: str, headers: tuple[tuple[str, str], ...]) -> Outgoing:
    """What is written for a request without a body."""
    return write(read(Incoming(method=method, target=target, headers=headers, body=None), engine_max=(1, 41)))


def test_session_headers_keep_every_method() -> None:
    """A builder session announces several gRPC methods by one header given many times."""
    name = "x-docker-expose-session-grpc-method"
    written = through(
        "POST",
        "/session",
        (("upgrade", "h2c"), (name, "/a/B"), (name, "/a/C"), ("x-docker-expose-session-uuid", "u1")),
    )
    assert written.target == "/v1.41/session"
    assert written.headers == (
        (name, "/a/B"),
        (name, "/a/C"),
        ("x-docker-expose-session-uuid", "u1"),
        ("upgrade", "h2c"),
    )


@pytest.mark.parametrize(
    ("accept", "written"),
    [
        ("application/x-ndjson", (("accept", "application/x-ndjson"),)),
        ("text/html, Application/JSON-seq;q=0.9, application/json", (("accept", "application/json-seq"),)),
        ("*/*", ()),
    ],
)
def test_accept_is_one_media_type_or_none(accept: str, written: tuple[tuple[str, str], ...]) -> None:
    """Only a type that changes the answer of events is passed on."""
    assert through("GET", "/v1.41/events", (("accept", accept),)).headers == written


def test_a_stream_is_written_as_a_tar() -> None:
    """Whatever a client calls its upload, dockerd never takes it for a form or for JSON."""
    written = through("POST", "/v1.41/build", (("content-type", "application/octet-stream"),))
    assert written.headers == (("content-type", "application/x-tar"),)
    assert written.body is None


@pytest.mark.parametrize(
    "headers",
    [
        (("sec-websocket-key", "a\nb"),),
        (("sec-websocket-key", "a"), ("sec-websocket-key", "b")),
        (("upgrade", "websocket"), ("upgrade", "h2c")),
    ],
)
def test_a_handshake_header_that_is_not_one_plain_value_is_refused(
    headers: tuple[tuple[str, str], ...],
) -> None:
    """Forwarded values can never start another header line."""
    with pytest.raises(MalformedRequest):
        through("GET", "/v1.41/containers/a/attach/ws", headers)
