"""One allocator of one GPU, with a clock that tests move."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.service import Allocator


@pytest.fixture
def nvml() -> FakeNvml:
    return FakeNvml(gpu(0))


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def one(tmp_path: Path, nvml: FakeNvml, clock: Clock) -> AsyncIterator[Allocator]:
    allocator = service(tmp_path / "ledger", nvml, clock)
    yield allocator
    await allocator.close()
