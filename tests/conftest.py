"""What holds for all tests: time is never a reason to fail a property. How fast ds01 is, `script/bench` says.

And simulated GPUs: `driver` is the library, `sim` a machine as the lab's, and each scenario of `lab.scenarios` a fixture of
its own name: a machine on which its first step was played.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

from lab.scenarios import SCENARIOS
from tests.fakes.simulated_gpus import Played, SimulatedMachine, driver_library

if TYPE_CHECKING:
    from pathlib import Path

settings.register_profile("ds01", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ds01")


@pytest.fixture(scope="session")
def driver() -> Path:
    return driver_library("plain")


@pytest.fixture
def sim(driver: Path, tmp_path: Path) -> SimulatedMachine:
    return SimulatedMachine(tmp_path / "state", library=driver)


def _fixture_of(name: str) -> object:
    @pytest.fixture(name=name)
    def played(tmp_path: Path) -> Played:
        return Played(tmp_path / name, name)

    return played


globals().update({f"_scenario_{name}": _fixture_of(name) for name in SCENARIOS})
