"""The allocator's side of the NVML process: start it, ask it, and give up on it in time."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable, Snapshot
from policy.model import DeviceUuid

_LINE_BYTES = 1 << 20
_ROOT = Path(__file__).parents[1]
_COMMAND = (sys.executable, "-m", "allocator.nvml")


class NvmlWorker:
    """An `Inventory` read by a child process.

    INVARIANT: at most one child at a time. One that does not answer is asked to end, and no other is started
    while it is still there: it may be stuck in the driver, and a second would get stuck beside it.
    """

    def __init__(self, *, deadline_seconds: float, command: tuple[str, ...] = _COMMAND) -> None:
        self._deadline_seconds = deadline_seconds
        self._command = command
        self._process: asyncio.subprocess.Process | None = None
        self._stuck = False

    async def read(self) -> Snapshot:
        """All devices now. Raises: InventoryUnavailable: no library, no driver, or no answer in time."""
        process = await self._running()
        answered = False
        try:
            async with asyncio.timeout(self._deadline_seconds):
                line = await self._ask(process)
            answered = True
        except TimeoutError as error:
            raise InventoryUnavailable(
                f"the NVIDIA driver did not answer within {self._deadline_seconds:g} seconds"
            ) from error
        except (OSError, ValueError) as error:
            raise InventoryUnavailable("the NVML process ended") from error
        finally:
            # Also when cancelled: an answer still to come would be taken for the next question's.
            if not answered:
                self._give_up(process)
        return parse(line)

    async def close(self) -> None:
        """End the child; one stuck in the driver is left to the kernel."""
        if self._process is not None and self._process.returncode is None:
            self._give_up(self._process)
            try:
                await asyncio.wait_for(self._process.wait(), 1)
            except TimeoutError:
                return

    async def _running(self) -> asyncio.subprocess.Process:
        if self._process is not None and self._process.returncode is None:
            if self._stuck:
                raise InventoryUnavailable("the NVIDIA driver does not answer")
            return self._process
        path = os.pathsep.join(filter(None, (str(_ROOT), os.environ.get("PYTHONPATH"))))
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, "PYTHONPATH": path},
                limit=_LINE_BYTES,
            )
        except OSError as error:
            raise InventoryUnavailable("the NVML process cannot be started") from error
        self._stuck = False
        return self._process

    async def _ask(self, process: asyncio.subprocess.Process) -> bytes:
        if process.stdin is None or process.stdout is None:
            raise ValueError("no pipes")
        process.stdin.write(b"\n")
        await process.stdin.drain()
        line = await process.stdout.readline()
        if not line.endswith(b"\n"):
            raise ValueError("cut off")
        return line

    def _give_up(self, process: asyncio.subprocess.Process) -> None:
        # Once: to signal a child that is just ending reaps it under the feet of asyncio's watcher.
        if process.returncode is None and not self._stuck:
            process.terminate()
        self._stuck = True


def parse(line: bytes) -> Snapshot:
    """The child's answer. Raises: InventoryUnavailable: it says so, or it is unreadable."""
    try:
        said: dict[str, Any] = json.loads(line)
        if "problem" in said:
            raise InventoryUnavailable(f"NVML: {said['problem']}")
        devices = [_device(item) for item in said["devices"]]
    except (ValueError, KeyError, TypeError) as error:
        raise InventoryUnavailable("the NVML process gave an unreadable answer") from error
    if len({device.uuid for device in devices}) != len(devices):
        raise InventoryUnavailable("NVML named one device twice")
    return Snapshot(devices={device.uuid: device for device in devices})


def _device(item: dict[str, Any]) -> Device:
    pids, parent = item["pids"], item.get("parent")
    return Device(
        uuid=DeviceUuid(item["uuid"]),
        kind=DeviceKind(item["kind"]),
        index=item["index"],
        parent=None if parent is None else DeviceUuid(parent),
        profile=item["profile"],
        memory_mib=item["memory_mib"],
        gpu_instance_id=item.get("gpu_instance_id"),
        compute_instance_id=item.get("compute_instance_id"),
        pids=None if pids is None else tuple(pids),
        state=DeviceState(item["state"]),
    )
