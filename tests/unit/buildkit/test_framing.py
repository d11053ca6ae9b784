"""gRPC's length-prefixed messages."""

from __future__ import annotations

import pytest

from buildkit.framing import BadMessage, Messages, frame


@pytest.mark.parametrize("cut", range(1, 14))
def test_messages_come_whole_however_they_are_cut(cut: int) -> None:
    """An empty one too."""
    data = frame(b"ab") + frame(b"") + frame(b"c")
    messages = Messages(10)
    found = [one for start in range(0, len(data), cut) for one in messages.feed(data[start : start + cut])]
    assert found == [b"ab", b"", b"c"]
    assert not messages.partial


def test_what_has_come_in_part_is_told() -> None:
    """So that a request that ends there is refused."""
    messages = Messages(10)
    assert messages.feed(frame(b"abc")[:-1]) == []
    assert messages.partial


@pytest.mark.parametrize("data", [b"\x01\0\0\0\1a", b"\0\0\0\0\x0b", b"\0\xff\xff\xff\xff"])
def test_compressed_and_long_ones_are_refused(data: bytes) -> None:
    """A long one before its bytes have come."""
    with pytest.raises(BadMessage):
        Messages(10).feed(data)
