"""One line per event, readable by a machine."""

from __future__ import annotations

import errno
import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
import structlog

from observability import events
from observability.logging import configure, log

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    text = io.StringIO()
    configure("ds01-test", stream=text)
    yield text
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_has_event_level_daemon_time_and_keys(stream: io.StringIO) -> None:
    """The level is the event's own."""
    log(events.POLICY_REJECTED, problems="policy.yaml:1")
    (line,) = lines(stream)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "policy.rejected",
        "level": "error",
        "daemon": "ds01-test",
        "problems": "policy.yaml:1",
    }


@pytest.mark.parametrize("key", ["body", "env", "authorization"])
def test_secrets_are_withheld(stream: io.StringIO, key: str) -> None:
    """Even when somebody hands them over by mistake."""
    log(events.REQUEST_FAILED, **{key: "hunter2"})
    assert "hunter2" not in stream.getvalue()


def test_a_value_cannot_end_its_line(stream: io.StringIO) -> None:
    """A path with a newline forges no second line."""
    log(events.REQUEST_DENIED, path='/x\n{"event":"canary.passed"}')
    assert len(lines(stream)) == 1


def test_people_get_columns() -> None:
    """On a terminal it is not JSON."""
    text = io.StringIO()
    configure("ds01-test", stream=text, console=True)
    log(events.DAEMON_STOPPED, reason="signal")
    structlog.reset_defaults()
    assert "daemon.stopped" in text.getvalue()
    assert not text.getvalue().startswith("{")


class _FullDisk(io.StringIO):
    def write(self, text: str, /) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), text[:0])


def test_a_log_that_cannot_be_written_fails_nobody() -> None:
    """A full disk costs the line and not the request that it is about."""
    configure("ds01-test", stream=_FullDisk())
    log(events.POLICY_REJECTED, problems="policy.yaml:1")
    structlog.reset_defaults()
