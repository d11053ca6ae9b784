"""The audit trail: one JSON line for each decision, written before the answer goes out.

A line is one write(2) with O_APPEND under flock(2), so that several processes may share the file and a crash tears
at most the last line. What could not be written raises, and the caller must not act.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from datetime import UTC, datetime
from threading import Lock
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

SCHEMA = 1
LINE_LIMIT_BYTES = 64 * 1024
_SEARCH_BYTES = 16 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
_encode = json.JSONEncoder(
    separators=(",", ":"), allow_nan=False
).encode  # made once: json.dumps makes one each time
_FLAGS = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


class AuditUnavailable(Exception):  # noqa: N818  one of the project's kinds of error (Unavailable)
    """The record is not on file. Nothing that changes anything may go on: 503."""


class AuditLog:
    """Appends records to one file, mode 0600. Reopens it after a rotation by rename."""

    def __init__(self, path: Path) -> None:
        """Open the file, and end a line that a crash left torn. Raises: AuditUnavailable."""
        self._path = path
        self._lock = Lock()
        self._descriptor = -1
        self._identity = (0, 0)
        self._open()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one record; `schema`, `time` (UTC, ms) and `monotonic_ms` are added.

        Raises: AuditUnavailable: nothing, or only a part, was written; or the record is no JSON or over 64 KiB.
        """
        line = _line(record)
        with self._lock:
            self._follow_rotation()
            self._write(line)

    def close(self) -> None:
        """Let go of the file. Later appends open it again."""
        with self._lock:
            self._close()

    def tail_find(self, request_id: str) -> dict[str, Any] | None:
        """The newest record with this request id among the last 16 MiB; None when there is none."""
        return tail_find(self._path, request_id)

    def _follow_rotation(self) -> None:
        """A rename leaves our descriptor on the old file: one stat tells."""
        try:
            status = os.stat(self._path, follow_symlinks=False)  # noqa: PTH116  one call, hot path
        except FileNotFoundError:
            self._close()
            self._open()
        except OSError as error:
            raise AuditUnavailable(f"audit log {self._path}: {error.strerror}") from error
        else:
            if (status.st_dev, status.st_ino) != self._identity:
                self._close()
                self._open()

    def _open(self) -> None:
        try:
            self._descriptor = os.open(self._path, _FLAGS, 0o600)
            # Another process's line may be half written at this moment: locked, its end is there or never comes.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            status = os.fstat(self._descriptor)
            self._identity = (status.st_dev, status.st_ino)
            if _is_torn(self._descriptor, status.st_size):
                self._write(b"\n")
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            self._close()
            raise AuditUnavailable(f"audit log {self._path}: {error.strerror}") from error

    def _write(self, line: bytes) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
            try:
                written = os.write(self._descriptor, line)
            finally:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        except OSError as error:
            raise AuditUnavailable(f"audit log {self._path}: {error.strerror}") from error
        if written != len(line):
            self._close()  # so that the next append opens anew and ends the torn line
            raise AuditUnavailable(
                f"audit log {self._path}: only {written} of {len(line)} bytes were written"
            )

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._identity = -1, (0, 0)


def tail_find(path: Path, request_id: str) -> dict[str, Any] | None:
    """The newest record with this request id among the last 16 MiB of a file; None when there is none.

    Raises: AuditUnavailable: the file cannot be read.
    """
    needle = json.dumps(request_id).encode()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise AuditUnavailable(f"audit log {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb", buffering=0) as file:
        for line in _lines_backwards(file.fileno()):
            if needle in line and (found := _record(line, request_id)) is not None:
                return found
    return None


def _lines_backwards(descriptor: int) -> Iterator[bytes]:
    """Whole lines, last first, of at most the last 16 MiB; the first bytes may be a part of a line."""
    end = os.fstat(descriptor).st_size
    floor = max(0, end - _SEARCH_BYTES)
    rest = b""
    while end > floor:
        start = max(floor, end - _CHUNK_BYTES)
        first, *lines = (os.pread(descriptor, end - start, start) + rest).split(b"\n")
        yield from reversed(lines)
        rest, end = first[: 4 * LINE_LIMIT_BYTES], start
    yield rest


def _record(line: bytes, request_id: str) -> dict[str, Any] | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    if isinstance(record, dict) and record.get("request_id") == request_id:
        return record
    return None


def _line(record: Mapping[str, Any]) -> bytes:
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    stamped = {**record, "schema": SCHEMA, "time": now, "monotonic_ms": time.monotonic_ns() // 1_000_000}
    try:
        line = _encode(stamped).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise AuditUnavailable("audit record cannot be written as JSON") from error
    if len(line) > LINE_LIMIT_BYTES:
        raise AuditUnavailable(f"audit record of {len(line)} bytes, limit is {LINE_LIMIT_BYTES}")
    return line


def _is_torn(descriptor: int, size_bytes: int) -> bool:
    return size_bytes > 0 and os.pread(descriptor, 1, size_bytes - 1) != b"\n"
