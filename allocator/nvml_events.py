"""Hearing of errors as they happen, and of how near GPUs are: what the NVML process does beside its looks.

Both have threads of their own, so that a driver that hangs for them hangs for nobody else.
"""

from __future__ import annotations

import ctypes
import time
from collections import deque
from contextlib import suppress
from itertools import combinations
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import pynvml

from allocator import nvml_codes
from allocator.nvml_codes import Action
from allocator.nvml_measure import known

if TYPE_CHECKING:
    from collections.abc import Mapping

_XID: Final = pynvml.nvmlEventTypeXidCriticalError
_CHANGES: Final = pynvml.nvmlEventTypeGpuUnavailableError | pynvml.nvmlEventTypeGpuRecoveryAction
_WAIT_MS: Final = 1000
_PAUSE_SECONDS: Final = 1.0  # after an error: a lost GPU answers every wait at once
_MOST: Final = 1000  # events that wait to be told; older ones give way
_NO_INSTANCE: Final = 0xFFFFFFFF


class Ear:
    """The event set of this session, and the thread that waits for it."""

    def __init__(self) -> None:
        """Nothing is heard before `open`."""
        self._set: Any = None
        self._uuids: dict[int, str] = {}  # by GPU handle, which lasts as long as the session
        self._heard: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def open(self) -> None:
        """Begin to listen; a driver without events is never heard of."""
        self._set = known(pynvml.nvmlEventSetCreate)
        if self._set is not None:
            Thread(target=self._listen, name="events", daemon=True).start()

    def register(self, handle: Any, uuid: str) -> None:
        """Listen to one whole GPU, to what of our events it has."""
        self._uuids[_address(handle)] = uuid
        offered = known(pynvml.nvmlDeviceGetSupportedEventTypes, handle) if self._set is not None else None
        if offered is not None and offered & (_XID | _CHANGES):
            known(pynvml.nvmlDeviceRegisterEvents, handle, offered & (_XID | _CHANGES), self._set)

    def heard(self) -> list[dict[str, Any]]:
        """What was heard since the last call, oldest first; `xid` None: look at that GPU again."""
        return [self._heard.popleft() for _ in range(len(self._heard))]

    def _listen(self) -> None:
        while True:
            try:
                event = pynvml.nvmlEventSetWait_v2(self._set, _WAIT_MS)
            except pynvml.NVMLError as error:
                if nvml_codes.action(error.value) is not Action.WAIT:
                    time.sleep(_PAUSE_SECONDS)
                continue
            uuid = self._uuids.get(_address(event.device))
            if uuid is not None:
                self._heard.append(_event(event, uuid))


def _event(event: Any, uuid: str) -> dict[str, Any]:
    return {
        "gpu": uuid,
        "xid": int(event.eventData) if event.eventType == _XID else None,
        "gpu_instance_id": _instance(event.gpuInstanceId),
        "compute_instance_id": _instance(event.computeInstanceId),
    }


def _instance(number: int) -> int | None:
    return None if number == _NO_INSTANCE else int(number)


def _address(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0


class Topology:
    """How near each two GPUs are, read once in a thread of its own."""

    def __init__(self) -> None:
        """Nothing is known before `begin`."""
        self._asked: frozenset[str] = frozenset()
        self.pairs: tuple[dict[str, Any], ...] = ()

    def begin(self, uuids: Mapping[int, str]) -> None:
        """Read it for these GPUs, by index, unless that was done."""
        if frozenset(uuids.values()) <= self._asked:
            return
        self._asked = frozenset(uuids.values())
        Thread(target=self._read, args=(dict(uuids),), name="topology", daemon=True).start()

    def _read(self, uuids: dict[int, str]) -> None:
        handles = {uuid: _handle(index) for index, uuid in uuids.items()}
        names = sorted(uuid for uuid, handle in handles.items() if handle is not None)
        self.pairs = tuple(_pair(handles, one, other) for one, other in combinations(names, 2))


def _handle(index: int) -> Any:
    """None for a GPU that is gone: the others have each other all the same."""
    with suppress(pynvml.NVMLError):
        return pynvml.nvmlDeviceGetHandleByIndex(index)
    return None


def _pair(handles: Mapping[str, Any], one: str, other: str) -> dict[str, Any]:
    both = (handles[one], handles[other])
    level = status = None
    with suppress(pynvml.NVMLError):  # one of them went away meanwhile
        level = known(pynvml.nvmlDeviceGetTopologyCommonAncestor, *both)
        status = known(pynvml.nvmlDeviceGetP2PStatus, *both, pynvml.NVML_P2P_CAPS_INDEX_NVLINK)
    return {
        "gpus": [one, other],
        "level": None if level is None else int(level),
        "nvlink": None if status is None else status == pynvml.NVML_P2P_STATUS_OK,
    }
