"""Child processes find the allocator's packages, wherever it was started."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from allocator.child import module, start


async def test_a_child_finds_the_packages_from_any_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And keeps what PYTHONPATH named before, behind them."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "allocator.py").write_text("raise SystemExit('the wrong one')")
    (tmp_path / "said.py").write_text("import allocator.model; print(allocator.model.__file__)")
    child = await start((sys.executable, "-P", "-c", "import said"))
    out, _ = await child.communicate()
    assert child.returncode == 0
    assert Path(os.fsdecode(out).strip()).name == "model.py"


async def test_a_child_answers_a_question_through_its_pipes() -> None:
    """As many bytes in one line as the largest answer has."""
    child = await start((sys.executable, "-c", "print(input() * 1_000_000)"))
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(b"yes\n")
    assert await child.stdout.readline() == b"yes" * 1_000_000 + b"\n"
    assert await child.wait() == 0


async def test_a_command_that_is_not_there_is_told() -> None:
    """To who asked, who knows what it was for."""
    with pytest.raises(FileNotFoundError):
        await start(("/nonexistent",))


def test_a_module_runs_with_this_python() -> None:
    """No other has the packages."""
    assert module("allocator.nvml") == (sys.executable, "-m", "allocator.nvml")
