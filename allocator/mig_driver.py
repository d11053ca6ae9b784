"""The allocator's side of the process that changes MIG: one process for each step, given up in time."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from allocator.child import module, start
from allocator.mig import GpuInstance, MigProfile, Partition
from allocator.model import InventoryUnavailable
from policy.model import DeviceUuid

_COMMAND = module("allocator.nvml_mig")
_END_SECONDS = 1
IN_USE = 19  # NVML_ERROR_IN_USE


class MigRefused(Exception):  # noqa: N818  the name says what is wrong
    """NVML will not carry out the step. `code` is its error code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class MigDriver:
    """Reads and changes partitions. Raises from all: MigRefused; InventoryUnavailable: no answer in time, or none to read."""

    def __init__(self, *, deadline_seconds: float, command: tuple[str, ...] = _COMMAND) -> None:
        self._deadline_seconds = deadline_seconds
        self._command = command
        self._left: list[asyncio.subprocess.Process] = []  # given up, and not ended yet

    async def partitions(self) -> tuple[Partition, ...]:
        """Every GPU that can do MIG, by index; holders are not known here."""
        said = await self._do({"do": "describe"})
        try:
            return tuple(_partition(item) for item in said)
        except (KeyError, TypeError, ValueError) as error:
            raise InventoryUnavailable("the MIG process gave an unreadable answer") from error

    async def create(self, gpu: DeviceUuid, profile: MigProfile, start: int) -> int:
        """Returns: the id of the new GPU instance."""
        asked = {"do": "create", "gpu": gpu, "profile": profile.number, "start": start, "size": profile.size}
        return int(await self._do(asked))

    async def destroy(self, gpu: DeviceUuid, number: int) -> None:
        """One that is gone already is no error."""
        await self._do({"do": "destroy", "gpu": gpu, "number": number})

    async def complete(self, gpu: DeviceUuid, number: int) -> None:
        """Make the compute instance that a GPU instance lacks."""
        await self._do({"do": "complete", "gpu": gpu, "number": number})

    async def set_mode(self, gpu: DeviceUuid, *, enabled: bool) -> bool:
        """Returns: whether it is switched now; else it waits for a reset of the GPU."""
        return int(await self._do({"do": "set_mode", "gpu": gpu, "enabled": enabled})) == 0

    async def _do(self, asked: dict[str, Any]) -> Any:
        # INVARIANT: nothing is asked while an earlier step may still be carried out: what became of that one could not be told.
        self._left = [process for process in self._left if process.returncode is None]
        if self._left:
            raise InventoryUnavailable("an earlier step of a change of MIG still hangs in the NVIDIA driver")
        try:
            process = await start(self._command)
        except OSError as error:
            raise InventoryUnavailable("the MIG process cannot be started") from error
        try:
            async with asyncio.timeout(self._deadline_seconds):
                out, _ = await process.communicate(json.dumps(asked).encode() + b"\n")
            said = json.loads(out)
            if "problem" in said:
                raise MigRefused(f"NVML: {said['problem']}", int(said["code"]))
            return said["result"]
        except TimeoutError as error:
            raise InventoryUnavailable(
                f"the NVIDIA driver did not answer within {self._deadline_seconds:g} seconds"
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise InventoryUnavailable("the MIG process ended without an answer") from error
        finally:
            await self._end(process)

    async def _end(self, process: asyncio.subprocess.Process) -> None:
        """Ask it to end, never SIGKILL: that has frozen machines in the middle of a driver call (dcgm-exporter#84)."""
        if process.returncode is None:
            self._left.append(process)
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), _END_SECONDS)


def _partition(item: dict[str, Any]) -> Partition:
    profiles = tuple(
        MigProfile(
            name=each["name"],
            number=each["number"],
            compute_slices=each["compute_slices"],
            size=each["size"],
            starts=tuple(each["starts"]),
            most=each["most"],
        )
        for each in item["profiles"]
    )
    return Partition(
        gpu=DeviceUuid(item["gpu"]),
        index=item["index"],
        mig_now=item["mig_now"],
        mig_pending=item["mig_pending"],
        compute_slices=max((profile.compute_slices for profile in profiles), default=0),
        profiles=profiles,
        instances=tuple(
            GpuInstance(
                number=each["number"],
                profile=each["profile"],
                compute_slices=each["compute_slices"],
                start=each["start"],
                size=each["size"],
                devices=tuple(map(DeviceUuid, each["devices"])),
            )
            for each in item["instances"]
        ),
    )
