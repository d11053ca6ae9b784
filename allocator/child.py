"""The allocator's own child processes: its Python and its packages, asked and answering through pipes."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path

_ROOT = Path(__file__).parents[1]
_LINE_BYTES = 8 << 20  # 64 GPUs with 1,000 processes each


def module(name: str) -> tuple[str, ...]:
    """The command that runs a module with this Python."""
    return (sys.executable, "-m", name)


async def start(command: tuple[str, ...]) -> Process:
    """A child that finds the packages from whatever folder the allocator was started in. Raises: OSError."""
    path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
    environment = {**os.environ, "PYTHONPATH": path}
    return await asyncio.create_subprocess_exec(
        *command, stdin=PIPE, stdout=PIPE, env=environment, limit=_LINE_BYTES
    )
