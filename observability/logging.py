"""One line per event on stderr: JSON for the journal, columns on a terminal."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

if TYPE_CHECKING:
    from collections.abc import MutableMapping

    from observability.events import Event

_NEVER_LOGGED = frozenset(
    {"body", "env", "buildargs", "authorization", "x-registry-auth", "x-registry-config"}
)


def configure(daemon: str, *, stream: TextIO | None = None, console: bool | None = None) -> None:
    """Set up logging for this process, once. Every line carries `daemon`, a UTC timestamp and the bound context.

    Args: stream: stderr when None. console: None means columns exactly when the stream is a terminal.
    """
    target = sys.stderr if stream is None else stream
    for_people = target.isatty() if console is None else console
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _name_daemon(daemon),
            _drop_secrets,
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer()
            if for_people
            else structlog.processors.JSONRenderer(sort_keys=True),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(file=target),
        cache_logger_on_first_use=False,
    )


def log(event: Event, **keys: Any) -> None:
    """Write one line for `event` at its own level. Values go in keys, never into the name.

    A line that cannot be written (a full disk, the journal restarting) is lost: a request that would fail over it, or hang
    without an answer, were worse. What must not be lost goes to the audit.
    """
    with contextlib.suppress(OSError):
        getattr(structlog.get_logger(), event.level.value)(event.name, **keys)


def _name_daemon(daemon: str) -> structlog.typing.Processor:
    def add(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        line["daemon"] = daemon
        return line

    return add


def _drop_secrets(_logger: Any, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """SECURITY: bodies and registry credentials are never logged, not even by mistake."""
    for key in _NEVER_LOGGED.intersection(line):
        line[key] = "(withheld)"
    return line
