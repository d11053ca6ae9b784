"""Break-glass is read exactly or not at all."""

from __future__ import annotations

import pytest

from authz_plugin.trusted import parse_break_glass

GLASS = b'{"until_boottime_ms":5,"reason":"upgrade","by":"root"}'


def test_break_glass_is_read() -> None:
    """Until when, why, by whom."""
    glass = parse_break_glass(GLASS)
    assert (glass.until_boottime_ms, glass.reason, glass.by) == (5, "upgrade", "root")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        GLASS.replace(b"5", b'"5"'),
        GLASS.replace(b"5", b"5.5"),
        GLASS.replace(b"upgrade", b" "),
        GLASS.replace(b"root", b""),
        GLASS.replace(b"}", b',"forever":true}'),
    ],
)
def test_break_glass_is_exact(content: bytes) -> None:
    """No reason, no name, no unknown key."""
    with pytest.raises(ValueError):
        parse_break_glass(content)
