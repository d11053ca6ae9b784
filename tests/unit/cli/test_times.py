"""Lengths of time that are typed."""

from __future__ import annotations

import pytest

from cli.outcome import Exit, Failed
from cli.times import seconds_of


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("15m", 900), ("8h", 28800), ("7d", 604800)])
def test_a_number_and_a_unit_are_seconds(text: str, seconds: int) -> None:
    """Seconds, minutes, hours or days."""
    assert seconds_of("--lead", text) == seconds


@pytest.mark.parametrize("text", ["", "15", "m", "1h30m", "-1h", "1.5h", "\u0661h", "1w"])
def test_anything_else_is_a_slip(text: str) -> None:
    """It is told with the option and with how to write it."""
    with pytest.raises(Failed, match=r"--lead .*no time; write it like") as failed:
        seconds_of("--lead", text)
    assert failed.value.code is Exit.USAGE
