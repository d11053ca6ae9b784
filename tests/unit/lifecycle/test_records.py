"""What users were told outlives the daemon, not the boot, and not the lease."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from lifecycle.ending import Told
from lifecycle.records import Records
from policy.model import LeaseId

ONE, OTHER = LeaseId("lease1"), LeaseId("lease2")
SAID = Told(seconds=60, first_ms=5, least_seconds=30, reported=True)
OWNERS = frozenset({os.geteuid()})


def opened(path: Path, boot: str = "boot-1") -> Records:
    return Records(path / "lifecycle" / "told.json", boot_id=boot, owners=OWNERS)


def test_a_restart_knows_what_was_said(tmp_path: Path) -> None:
    """All of it, in a file that nobody else can read."""
    opened(tmp_path).put(ONE, SAID)
    assert opened(tmp_path).get(ONE) == SAID
    assert opened(tmp_path).get(OTHER) is None
    assert (tmp_path / "lifecycle" / "told.json").stat().st_mode & 0o077 == 0


def test_a_reboot_forgets(tmp_path: Path) -> None:
    """Its moments are of another clock."""
    opened(tmp_path).put(ONE, SAID)
    assert opened(tmp_path, boot="boot-2").get(ONE) is None


def test_what_is_over_is_forgotten(tmp_path: Path) -> None:
    """On disk too; what lives stays."""
    records = opened(tmp_path)
    records.put(ONE, SAID)
    records.put(OTHER, SAID)
    records.keep({OTHER})
    assert (opened(tmp_path).get(ONE), opened(tmp_path).get(OTHER)) == (None, SAID)


@pytest.mark.parametrize(
    "content",
    [b"", b'{"boot_id":"\xff"}', b"{}", b"[]", b'{"boot_id":"boot-1","leases":{"lease1":{"seconds":"x"}}}'],
)
def test_a_file_that_cannot_be_read_is_nothing_said(tmp_path: Path, content: bytes) -> None:
    """It is logged, and the daemon goes on: it warns once more."""
    opened(tmp_path).put(ONE, SAID)
    (tmp_path / "lifecycle" / "told.json").write_bytes(content)
    with capture_logs() as lines:
        records = opened(tmp_path)
    assert records.get(ONE) is None
    assert [line["event"] for line in lines] == ["warnings.unkept"]
    records.put(ONE, SAID)
    assert opened(tmp_path).get(ONE) == SAID


def test_a_file_of_somebody_else_is_not_believed(tmp_path: Path) -> None:
    """It would say that users were warned."""
    opened(tmp_path).put(ONE, SAID)
    (tmp_path / "lifecycle" / "told.json").chmod(0o666)
    with capture_logs():
        assert opened(tmp_path).get(ONE) is None


def test_a_full_disk_ends_nothing(tmp_path: Path) -> None:
    """What was said is known as long as the daemon lives; the log says once that it will not last."""
    (tmp_path / "lifecycle").write_text("no directory")
    with capture_logs() as lines:
        records = opened(tmp_path)
        records.put(ONE, SAID)
        records.put(OTHER, SAID)
    assert records.get(ONE) == SAID
    assert [line["event"] for line in lines].count("warnings.unkept") <= 2
    assert lines[-1]["path"].endswith("told.json")
