"""Backpressure on its way in."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import pytest

from http1.errors import ClientGone
from http1.flow import FlowProtocol, Inflow
from http1.limits import Limits

if TYPE_CHECKING:
    import asyncio


class _Transport:
    """Remembers whether it was told to read."""

    reading = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def is_closing(self) -> bool:
        return False

    def set_write_buffer_limits(self, high: int, low: int) -> None:
        assert high > low


def _flow() -> tuple[Inflow, _Transport]:
    protocol = FlowProtocol(Limits(high_water_bytes=10, low_water_bytes=5))
    transport = _Transport()
    protocol.attach(cast("asyncio.BaseTransport", transport))
    return Inflow(protocol), transport


async def test_reading_stops_above_high_water_and_goes_on() -> None:
    """What is not read is not received either."""
    inflow, transport = _flow()
    inflow.feed(b"12345")
    assert transport.reading
    inflow.feed(b"6789012")
    assert not transport.reading
    assert await inflow.read() == b"123456789012"
    assert transport.reading


async def test_bytes_before_a_failure_are_read_first() -> None:
    """A failure ends the body after what came before it."""
    inflow, _ = _flow()
    inflow.feed(b"ab")
    inflow.fail(ClientGone("left"))
    assert await inflow.read() == b"ab"
    with pytest.raises(ClientGone):
        await inflow.read()


async def test_failure_after_the_end_changes_nothing() -> None:
    """A complete body stays complete when its connection breaks."""
    inflow, _ = _flow()
    inflow.finish((("x-t", "y"),))
    inflow.fail(ClientGone("left"))
    assert await inflow.read() == b""
    assert inflow.trailers == (("x-t", "y"),)
