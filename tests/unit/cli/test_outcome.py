"""Exit codes are a contract with scripts."""

from __future__ import annotations

from cli.outcome import Exit


def test_the_codes_do_not_move() -> None:
    """0 ok, 1 refused, 2 usage, 3 unavailable, 70 bug."""
    assert [int(code) for code in Exit] == [0, 1, 2, 3, 70]
