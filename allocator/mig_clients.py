"""Who has a GPU or an instance of it open, in words: NVML says that a step of MIG is in somebody's way, and not in whose."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from allocator.mig_capabilities import FilesUnknown
from allocator.model import InventoryUnavailable

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Iterable

    from allocator.attributor import OpenElsewhere
    from allocator.granted_devices import CapabilityNumbers
    from allocator.model import Snapshot
    from policy.model import DeviceUuid

_SECONDS: Final = 30.0
_MOST: Final = 5  # that are named
_CAPABILITIES: Final = "nvidia-caps"
_LAST_RESORT: Final = "reboot, or reset the GPU (nvidia-smi --gpu-reset) while ds01-allocator is stopped"


class Clients:
    """Looks at the files that every process has open."""

    def __init__(
        self,
        *,
        scan: Callable[[], Awaitable[Iterable[OpenElsewhere]]],
        current: Callable[[], Snapshot],
        own: Callable[[], int | None],
        capabilities: CapabilityNumbers,
    ) -> None:
        """Args: scan: all who have a device file of NVIDIA's open. own: the pid of our own NVML process."""
        self._scan = scan
        self._current = current
        self._own = own
        self._capabilities = capabilities

    async def of(self, gpu: DeviceUuid, instance: int | None) -> str:
        """Who is in the way of a step on a GPU, and what to do. Args: instance: NVML's id of the GPU instance it is about."""
        try:
            async with asyncio.timeout(_SECONDS):
                found = [one for one in await self._scan() if one.facts.identity.pid != self._own()]
        except (OSError, TimeoutError):
            return "who has it open cannot be told; see sudo fuser -v /dev/nvidia*"
        minor = self._minor(gpu)
        capability = None if minor is None else await asyncio.to_thread(self._capability, minor, instance)
        holders = [one for one in found if capability in _capabilities(one)] if capability else []
        if holders:
            return f"{_named(holders)} has the instance open: end that, then apply again"
        others = [one for one in found if minor is None or minor in _gpus(one)]
        if others:
            return f"of those who have the GPU open, {_named(others)}, end who may be it, then apply again"
        return f"nobody can be seen to have it open; if that lasts, {_LAST_RESORT}"

    def _minor(self, gpu: DeviceUuid) -> int | None:
        with suppress(InventoryUnavailable, KeyError):
            return self._current().devices[gpu].minor
        return None

    def _capability(self, minor: int, instance: int | None) -> int | None:
        """Of the GPU instance; None: it is about none, or the driver does not tell."""
        if instance is None:
            return None
        with suppress(FilesUnknown):
            return self._capabilities.of(gpu_minor=minor, gpu_instance=instance, compute_instance=0)[0]
        return None


def _capabilities(one: OpenElsewhere) -> frozenset[int]:
    return frozenset(file.minor for file in one.files if file.driver == _CAPABILITIES)


def _gpus(one: OpenElsewhere) -> frozenset[int | None]:
    return frozenset(file.gpu_minor for file in one.files)


def _named(found: Collection[OpenElsewhere]) -> str:
    """Some of them, and how many more."""
    named = [_one(each) for each in list(found)[:_MOST]]
    more = [f"{len(found) - _MOST} more"] if len(found) > _MOST else []
    return ", ".join([*named, *more])


def _one(found: OpenElsewhere) -> str:
    attribution = found.attribution
    container = attribution.container
    where = attribution.unit if container is None else f"container {container[:12]}"
    said = ", ".join(filter(None, (found.facts.name, where)))
    return f"process {found.facts.identity.pid}" + (f" ({said})" if said else "")
