"""Having the CDI spec written again after a change of MIG: NVIDIA's own refresh watches drivers, not MIG (gpu-monitoring-tools#142)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Sequence

NVIDIA: Final = ("nvidia-ctk", "cdi", "generate", "--output=/var/run/cdi/nvidia.yaml")
_SECONDS = 120.0


class Regeneration:
    """One command, given in daemon.yaml; empty: this server hands GPUs over without CDI."""

    def __init__(self, command: Sequence[str]) -> None:
        self._command = tuple(command)

    async def run(self) -> str | None:
        """Run it to its end. Returns: what went wrong, which is logged too; None: nothing did."""
        problem = await self._run() if self._command else None
        if problem is not None:
            log(events.CDI_STALE, problem=problem)
        return problem

    async def _run(self) -> str | None:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            return f"{self._command[0]}: {error.strerror}"
        try:
            async with asyncio.timeout(_SECONDS):
                _, said = await process.communicate()
        except TimeoutError:
            process.kill()
            await process.wait()
            return f"{self._command[0]} did not end within {_SECONDS:g} seconds"
        if process.returncode:
            words = " ".join(said.decode(errors="replace").split())
            return f"{self._command[0]} ended with {process.returncode}: {words[:300]}"
        return None
