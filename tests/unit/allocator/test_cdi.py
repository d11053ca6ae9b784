"""Having the CDI spec written again: a command that is run, and whose failure is told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from allocator import cdi
from allocator.cdi import Regeneration
from observability import events

if TYPE_CHECKING:
    from pathlib import Path

    from observability.events import Event


async def test_the_command_is_run_to_its_end(tmp_path: Path) -> None:
    """With its words as they stand; without a command nothing is."""
    made = tmp_path / "a name"
    assert await Regeneration(["touch", str(made)]).run() is None
    assert made.exists()
    assert await Regeneration([]).run() is None


@pytest.mark.parametrize(
    ("command", "said"),
    [
        pytest.param(["/no/such/program"], "No such file", id="absent"),
        pytest.param(["sh", "-c", "echo spoilt >&2; exit 3"], "ended with 3: spoilt", id="fails"),
        pytest.param(["sleep", "60"], "did not end within 0.1 seconds", id="hangs"),
    ],
)
async def test_a_failure_is_told_and_ends_nothing(
    command: list[str], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In the log, and to who had it run."""
    told: list[tuple[Event, str]] = []
    monkeypatch.setattr(cdi, "log", lambda event, *, problem: told.append((event, problem)))
    monkeypatch.setattr(cdi, "_SECONDS", 0.1 if "sleep" in command else 10)
    answer = await Regeneration(command).run()
    ((event, problem),) = told
    assert event is events.CDI_STALE
    assert said in problem
    assert answer == problem
