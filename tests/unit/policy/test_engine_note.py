"""What is noted of the engine is read back, or refused."""

from __future__ import annotations

import pytest

from policy import engine_note
from policy.engine_note import EngineNote, runtime_of

NOTE = EngineNote(runtime="ds01", data_root="/var/lib/docker")


def test_what_was_written_is_read() -> None:
    """Both fields."""
    assert engine_note.read(engine_note.write(NOTE)) == NOTE


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"[]",
        b"\xff",
        engine_note.write(NOTE).replace(b"ds01", b"crun"),
        engine_note.write(NOTE).replace(b"/var", b"var"),
        engine_note.write(NOTE).replace(b'"ds01"', b"1"),
        engine_note.write(NOTE) * 2,
    ],
)
def test_anything_else_is_refused(content: bytes) -> None:
    """A runtime that ds01 does not write, a data root that is no path, another form."""
    with pytest.raises(ValueError):
        engine_note.read(content)


def test_the_guarded_runtime_is_named_where_it_is() -> None:
    """And plain runc where there is nothing else."""
    assert runtime_of({"runc": {}, "ds01": {}}) == "ds01"
    assert runtime_of({"runc": {}, "nvidia": {}}) == "runc"
