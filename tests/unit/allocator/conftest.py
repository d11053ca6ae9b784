"""The simulated driver library for tests that ask real pynvml."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="session")
def sim() -> Any:
    """`lab.simulate`; a tree of the product alone has none."""
    if not (ROOT / "lab" / "nvml").is_dir():
        pytest.skip("no simulated NVML in this tree")
    return import_module("lab.simulate")


@pytest.fixture(scope="session")
def library(sim: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library, built once."""
    built: Path = sim.build(tmp_path_factory.mktemp("nvml"))
    return built
