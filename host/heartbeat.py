"""How a daemon without a socket says that it is at work: a file in `run/` that it promises to write again in time."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import msgspec

from host.clock import boot_id, boottime_ms
from host.files import write_atomic

if TYPE_CHECKING:
    from pathlib import Path


class Pulse(StrEnum):
    """How a daemon is."""

    OK = "ok"
    UNAVAILABLE = "unavailable"  # it is there, and cannot do its work
    SILENT = "silent"  # it has ended, hangs or was never started


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """What is known of a daemon. problem: in its own words; None: it has none, or is silent."""

    pulse: Pulse
    problem: str | None = None


class _Beat(msgspec.Struct):
    boot_id: str
    next_ms: int  # CLOCK_BOOTTIME, by which the next one is written
    problem: str | None


def beat(path: Path, *, next_seconds: float, problem: str | None) -> None:
    """Say that all is well, or what is not, and that the next beat comes within `next_seconds`. Raises: OSError."""
    said = _Beat(boot_id=boot_id(), next_ms=boottime_ms() + int(next_seconds * 1000), problem=problem)
    write_atomic(path, msgspec.json.encode(said), mode=0o644, durable=False)


def stop(path: Path) -> None:
    """Say that no beat will come. Raises: OSError other than missing."""
    path.unlink(missing_ok=True)


def listen(path: Path) -> Heard:
    """What the daemon said last; a beat of another boot, one that is late, or none at all is silence."""
    try:
        said = msgspec.json.decode(path.read_bytes(), type=_Beat)
    except (OSError, ValueError):  # ValueError: msgspec's own, or no text
        return Heard(pulse=Pulse.SILENT)
    if said.boot_id != boot_id() or boottime_ms() > said.next_ms:
        return Heard(pulse=Pulse.SILENT)
    pulse = Pulse.OK if said.problem is None else Pulse.UNAVAILABLE
    return Heard(pulse=pulse, problem=said.problem)
