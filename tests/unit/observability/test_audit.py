"""A record is wholly on file, or the caller is told that it is not."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import stat
from typing import TYPE_CHECKING, Any

import pytest

from observability.audit import LINE_LIMIT_BYTES, AuditLog, AuditUnavailable, tail_find

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


@pytest.fixture
def audit(path: Path) -> Iterator[AuditLog]:
    log = AuditLog(path)
    yield log
    log.close()


def records(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_record_is_one_line(audit: AuditLog, path: Path) -> None:
    """With schema, UTC time in milliseconds and the monotonic clock, readable by its owner alone."""
    audit.append({"request_id": "a", "note": "two\nlines", "schema": 99})
    (record,) = records(path)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", record.pop("time"))
    assert record.pop("monotonic_ms") > 0
    assert record == {"request_id": "a", "note": "two\nlines", "schema": 1}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    "record",
    [{"x": object()}, {"x": float("nan")}, {"x": "y" * LINE_LIMIT_BYTES}],
    ids=["no JSON", "not a number", "too long"],
)
def test_what_cannot_be_written_is_refused(audit: AuditLog, path: Path, record: dict[str, Any]) -> None:
    """Nothing is cut short silently."""
    with pytest.raises(AuditUnavailable):
        audit.append(record)
    assert path.read_bytes() == b""


def test_a_torn_line_is_ended_at_open(path: Path) -> None:
    """A crash costs its own line, not the next one."""
    path.write_bytes(b'{"request_id":"x"}\n{"reque')
    log = AuditLog(path)
    log.append({"request_id": "a"})
    log.close()
    assert path.read_bytes().startswith(b'{"request_id":"x"}\n{"reque\n{"')


def test_a_full_disk_is_told(path: Path) -> None:
    """ENOSPC raises; the caller must not act."""
    path.symlink_to("/dev/full")
    with pytest.raises(AuditUnavailable):  # a link is not followed
        AuditLog(path)


def test_a_short_write_is_told_and_mended(
    audit: AuditLog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is half on file is not on file; the next record starts a line of its own."""
    write = os.write
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", lambda descriptor, line: write(descriptor, line[:5]))
        with pytest.raises(AuditUnavailable, match="only 5"):
            audit.append({"request_id": "a"})
    audit.append({"request_id": "b"})
    torn, whole = path.read_text().splitlines()
    assert len(torn) == 5
    assert json.loads(whole)["request_id"] == "b"


def test_an_error_is_told(audit: AuditLog, monkeypatch: pytest.MonkeyPatch) -> None:
    """Any error of the system is an AuditUnavailable."""

    def full(_descriptor: int, _line: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(AuditUnavailable, match="No space"):
        audit.append({})


def test_rotation_is_followed(audit: AuditLog, path: Path) -> None:
    """After a rename records go to the new file, none to the old."""
    audit.append({"request_id": "a"})
    path.rename(path.with_name("audit.jsonl.1"))
    audit.append({"request_id": "b"})
    assert [record["request_id"] for record in records(path)] == ["b"]


def _many(path: Path, name: str) -> None:
    log = AuditLog(path)
    for number in range(200):
        log.append({"request_id": f"{name}{number}", "fill": "x" * 3000})
    log.close()


def test_processes_share_a_file(path: Path) -> None:
    """No line is torn by another's."""
    context = multiprocessing.get_context("fork")
    workers = [context.Process(target=_many, args=(path, name)) for name in "ab"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len({record["request_id"] for record in records(path)}) == 400


def test_the_newest_record_of_a_request_is_found(audit: AuditLog, path: Path) -> None:
    """Backwards, over chunk borders, past lines that only mention the id."""
    audit.append({"request_id": "a", "turn": 1})
    audit.append({"request_id": "a", "turn": 2})
    for number in range(30):
        audit.append({"request_id": f"b{number}", "note": "a", "fill": "x" * 50_000})
    found = audit.tail_find("a")
    assert found is not None
    assert found["turn"] == 2
    assert tail_find(path, "c") is None
    assert tail_find(path.with_name("gone"), "a") is None
