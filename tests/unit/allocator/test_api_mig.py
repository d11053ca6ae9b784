"""Routes about MIG, over real plans and a GPU in memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from allocator.api_mig import MigRoutes
from allocator.ledger import Ledger
from allocator.mig_driver import IN_USE, MigRefused
from tests.fakes.routes import NOBODY, TRUSTED, served
from tests.unit.allocator.test_mig_apply import GPU, HALF, SMALL, World, instance, repartition

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


async def test_a_layout_is_planned_and_applied(tmp_path: Path, ledger: Ledger) -> None:
    """The plan changes nothing; afterwards the same plan is empty."""
    world = World(instance(SMALL, 0), instance(HALF, 4))
    wanted = {"layouts": {GPU: {"3g.20gb": 2}}}
    async with served(tmp_path, MigRoutes(repartition(world, ledger), trusted_uids=TRUSTED).routes()) as call:
        status, there = await call("GET", "/v1/mig")
        assert (status, there["gpus"][0]["index"], len(there["gpus"][0]["instances"])) == (200, "0", 2)
        status, planned = await call("POST", "/v1/mig/plan", wanted)
        (plan,) = planned["plans"]
        assert [step["do"] for step in plan["steps"]] == ["destroy", "create"]
        assert (status, plan["index"], len(world.partition.instances)) == (200, "0", 2)
        status, done = await call("POST", "/v1/mig/apply", wanted)
        (outcome,) = done["outcomes"]
        assert (status, outcome["done"], outcome["problem"], done["cdi_problem"]) == (200, 2, None, None)
        _, planned = await call("POST", "/v1/mig/plan", wanted)
        assert planned["plans"][0]["steps"] == []


async def test_a_cdi_spec_that_cannot_be_written_is_told(tmp_path: Path, ledger: Ledger) -> None:
    """With the reason, beside what was done."""
    world = World(instance(SMALL, 0))
    world.cdi_problem = "nvidia-ctk: No such file or directory"
    async with served(tmp_path, MigRoutes(repartition(world, ledger), trusted_uids=TRUSTED).routes()) as call:
        _, done = await call("POST", "/v1/mig/apply", {"layouts": {GPU: {}}})
    assert (done["outcomes"][0]["done"], done["cdi_problem"]) == (1, world.cdi_problem)


async def test_a_whole_gpu_waits_for_a_reset(tmp_path: Path, ledger: Ledger) -> None:
    """Null is a whole GPU."""
    world = World(instance(SMALL, 0))
    async with served(tmp_path, MigRoutes(repartition(world, ledger), trusted_uids=TRUSTED).routes()) as call:
        _, done = await call("POST", "/v1/mig/apply", {"layouts": {GPU: None}})
        (outcome,) = done["outcomes"]
        assert [step["do"] for step in outcome["plan"]["steps"]] == ["destroy", "set_mode"]
        assert outcome["waits_for_reset"] is True


async def test_what_cannot_be_is_refused_with_the_reason(tmp_path: Path, ledger: Ledger) -> None:
    """A profile that does not exist, a GPU that is not there, a body that cannot be read, and what NVML refuses."""
    world = World(instance(SMALL, 0))
    world.held = {instance(SMALL, 0).devices[0]: ("container web of alice",)}
    async with served(tmp_path, MigRoutes(repartition(world, ledger), trusted_uids=TRUSTED).routes()) as call:
        status, said = await call("POST", "/v1/mig/plan", {"layouts": {GPU: {"9g.90gb": 1}}})
        assert (status, "no MIG profile" in said["message"]) == (409, True)
        status, said = await call("POST", "/v1/mig/plan", {"layouts": {"GPU-x": None}})
        assert (status, "no GPU GPU-x" in said["message"]) == (409, True)
        assert (await call("POST", "/v1/mig/plan", {"layouts": []}))[0] == 400
        _, planned = await call("POST", "/v1/mig/plan", {"layouts": {GPU: {}}})
        assert "container web of alice" in planned["plans"][0]["kept"][0]
        world.held = {}
        world.refuse = MigRefused("NVML: In use by another client", IN_USE)
        _, done = await call("POST", "/v1/mig/apply", {"layouts": {GPU: {}}})
        assert done["outcomes"][0]["problem"].startswith("NVML: In use by another client; process 7 has")


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/v1/mig"), ("POST", "/v1/mig/plan"), ("POST", "/v1/mig/apply")]
)
async def test_only_the_trusted_ask(tmp_path: Path, ledger: Ledger, method: str, path: str) -> None:
    """Others are told so, and nothing else."""
    world = World(instance(SMALL, 0))
    async with served(tmp_path, MigRoutes(repartition(world, ledger), trusted_uids=NOBODY).routes()) as call:
        status, said = await call(method, path, {"layouts": {GPU: {}}})
        assert (status, "only root may split GPUs" in said["message"]) == (403, True)
    assert len(world.partition.instances) == 1
