"""Steps: written before they are tried, and found after a crash."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from allocator.ledger import Ledger
from allocator.mig import Create, Destroy, SetMode
from allocator.mig_driver import IN_USE, MigRefused
from allocator.mig_journal import MigJournal, StepKind, StepState
from allocator.mig_steps import Steps, entry_of
from allocator.model import InventoryUnavailable
from tests.unit.allocator.test_mig_apply import GPU, HALF, NOW, SMALL, World, Written, instance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.mig import Step

CREATE = Create(gpu=GPU, profile=SMALL, start=0)
DESTROY = Destroy(gpu=GPU, instance=instance(SMALL, 0))
SWITCH = SetMode(gpu=GPU, enabled=False)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    one = Ledger(tmp_path / "ledger")
    yield one
    one.close()


def steps(world: World, ledger: Ledger) -> Steps:
    journal = Written(world, ledger)
    return Steps(driver=world, journal=journal, quiesced=world.quiesced, clients=world.clients)


def test_an_entry_says_what_is_out_of_reach() -> None:
    """The devices of what is destroyed, the GPU whose mode is switched, the place where something is made."""
    assert (entry_of(DESTROY, "x").devices, entry_of(DESTROY, "x").place) == (DESTROY.instance.devices, None)
    assert (entry_of(SWITCH, "x").devices, entry_of(SWITCH, "x").place) == ((GPU,), None)
    assert (entry_of(CREATE, "x").devices, entry_of(CREATE, "x").place) == ((), (GPU, 0))


@pytest.mark.parametrize(
    ("problem", "state"),
    [
        pytest.param(None, StepState.DONE, id="done"),
        pytest.param(MigRefused("NVML: In use", IN_USE), StepState.FAILED, id="refused"),
        pytest.param(InventoryUnavailable("no answer"), StepState.INTENDED, id="no-answer"),
    ],
)
async def test_a_step_ends_as_nvml_said(
    ledger: Ledger, problem: MigRefused | InventoryUnavailable | None, state: StepState
) -> None:
    """Without an answer nobody knows."""
    world = World()
    world.refuse = problem
    with pytest.raises(type(problem)) if problem else nullcontext():
        await steps(world, ledger).take(CREATE, entry_of(CREATE, "root"))
    (entry,) = MigJournal(ledger).last(1)
    assert (entry.kind, entry.state, entry.who) == (StepKind.CREATE, state, "root")


async def test_who_is_in_the_way_is_told(ledger: Ledger) -> None:
    """Where NVML says that somebody is, and nowhere else."""
    world = World(instance(SMALL, 0))
    world.refuse = MigRefused("NVML: In use", IN_USE)
    with pytest.raises(MigRefused, match="NVML: In use; process 7 has GPU-1/1900 open") as refused:
        await steps(world, ledger).take(DESTROY, entry_of(DESTROY, "root"))
    assert refused.value.code == IN_USE
    world.refuse = MigRefused("NVML: Insufficient Resources", 23)
    with pytest.raises(MigRefused, match=r"NVML: Insufficient Resources$"):
        await steps(world, ledger).take(CREATE, entry_of(CREATE, "root"))
    said = [entry.why for entry in MigJournal(ledger).last(2)]
    assert said == ["NVML: In use; process 7 has GPU-1/1900 open", "NVML: Insufficient Resources"]


@pytest.mark.parametrize(
    ("step", "left", "state", "instances"),
    [
        pytest.param(CREATE, World(), StepState.ABANDONED, 0, id="create-not-begun"),
        pytest.param(CREATE, World(instance(HALF, 0)), StepState.ABANDONED, 1, id="create-another"),
        pytest.param(
            CREATE, World(replace(instance(SMALL, 0), devices=())), StepState.DONE, 1, id="create-half"
        ),
        pytest.param(DESTROY, World(instance(SMALL, 0)), StepState.ABANDONED, 1, id="destroy-not-begun"),
        pytest.param(
            DESTROY, World(replace(instance(SMALL, 0), devices=())), StepState.DONE, 0, id="destroy-half"
        ),
        pytest.param(DESTROY, World(), StepState.DONE, 0, id="destroy-done"),
        pytest.param(SWITCH, World(), StepState.ABANDONED, 0, id="mode-not-begun"),
        pytest.param(SWITCH, World(on=False), StepState.DONE, 0, id="mode-done"),
    ],
)
async def test_a_step_that_was_cut_short_is_ended(
    ledger: Ledger, step: Step, left: World, state: StepState, instances: int
) -> None:
    """Finished where it was half done; else as it is found."""
    number = MigJournal(ledger).intend(entry_of(step, "root"), NOW)
    entry = replace(entry_of(step, "root"), number=number)
    ended = await steps(left, ledger).finish(entry)
    assert ended.state is state
    assert MigJournal(ledger).unfinished() == ()
    assert len(left.partition.instances) == instances
    assert all(one.devices for one in left.partition.instances)
