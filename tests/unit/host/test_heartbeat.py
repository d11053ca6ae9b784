"""A daemon's word that it is at work: believed as long as it promised, and no longer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from host import heartbeat
from host.heartbeat import Heard, Pulse

SILENCE = Heard(pulse=Pulse.SILENT)


def test_a_beat_is_heard(tmp_path: Path) -> None:
    """Well, or with what is wrong; by every account."""
    path = tmp_path / "beat"
    heartbeat.beat(path, next_seconds=60, problem=None)
    assert heartbeat.listen(path) == Heard(pulse=Pulse.OK)
    assert path.stat().st_mode & 0o777 == 0o644
    heartbeat.beat(path, next_seconds=60, problem="no allocator")
    assert heartbeat.listen(path) == Heard(pulse=Pulse.UNAVAILABLE, problem="no allocator")


def test_a_late_beat_is_silence(tmp_path: Path) -> None:
    """It promised another by now."""
    heartbeat.beat(tmp_path / "beat", next_seconds=-0.01, problem=None)
    assert heartbeat.listen(tmp_path / "beat") == SILENCE


def test_a_beat_of_another_boot_is_silence(tmp_path: Path) -> None:
    """Its moments are of another clock."""
    path = tmp_path / "beat"
    heartbeat.beat(path, next_seconds=60, problem=None)
    path.write_text(json.dumps({**json.loads(path.read_text()), "boot_id": "another"}))
    assert heartbeat.listen(path) == SILENCE


@pytest.mark.parametrize(
    "content", [None, b"", b"{}", b'{"boot_id":"x","next_ms":"y","problem":null}', b'{"boot_id":"\xff"}']
)
def test_what_cannot_be_read_is_silence(tmp_path: Path, content: bytes | None) -> None:
    """As is no file."""
    if content is not None:
        (tmp_path / "beat").write_bytes(content)
    assert heartbeat.listen(tmp_path / "beat") == SILENCE


def test_it_can_be_ended(tmp_path: Path) -> None:
    """At once, and twice."""
    heartbeat.beat(tmp_path / "beat", next_seconds=60, problem=None)
    for _ in range(2):
        heartbeat.stop(tmp_path / "beat")
        assert heartbeat.listen(tmp_path / "beat") == SILENCE
