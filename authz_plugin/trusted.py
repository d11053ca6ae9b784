"""Break-glass: root's word, in a file, that dockerd may be used without the proxy for a while."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

BREAK_GLASS_LIMIT_MS = 60 * 60 * 1000


class _BreakGlassFile(msgspec.Struct, forbid_unknown_fields=True):
    until_boottime_ms: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """Root's permission to use dockerd directly, until a moment of CLOCK_BOOTTIME."""

    until_boottime_ms: int
    reason: str
    by: str

    def is_open(self, now_ms: int) -> bool:
        """Open now. A file that reaches more than 60 minutes ahead is not open."""
        return now_ms < self.until_boottime_ms <= now_ms + BREAK_GLASS_LIMIT_MS


def parse_break_glass(content: bytes) -> BreakGlass:
    """`{"until_boottime_ms", "reason", "by"}`, nothing else. Raises: ValueError."""
    try:
        read = msgspec.json.decode(content, type=_BreakGlassFile)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if not read.reason.strip() or not read.by.strip():
        raise ValueError("reason and by must say something")
    return BreakGlass(until_boottime_ms=read.until_boottime_ms, reason=read.reason, by=read.by)
