"""NVML, in a process of its own: `python -m allocator.nvml SECONDS` answers each line on stdin with one JSON line.

A hung driver call can neither be cancelled nor, at times, killed; here it stops nobody but this process, and in
it, where the driver lets others go on, nobody but the thread of one GPU: a GPU that has not answered within
SECONDS is told as unresponsive, beside fresh values of the others. With `nvml_*` the only modules that import
pynvml. SOURCE: NVML API reference; nvml.h 13.5.
"""

from __future__ import annotations

import json
import sys
import time
from threading import Thread
from typing import TYPE_CHECKING, Any, Final

import pynvml

from allocator import nvml_codes
from allocator.nvml_codes import Action
from allocator.nvml_events import Ear, Topology
from allocator.nvml_measure import known
from allocator.nvml_read import GpuReader, SessionOver, Unidentified, Wire, stale

if TYPE_CHECKING:
    from collections.abc import Callable

_NO_GPUS: Final = 1  # NVML_INIT_FLAG_NO_GPUS: start even with every GPU gone


class _Look:
    """One GPU being read in a thread; a thread that hangs is left behind, and joined by none."""

    def __init__(self, reader: GpuReader, began: float) -> None:
        self._reader = reader
        self.began = began
        self.found: tuple[Wire, ...] = ()
        self.code: int | None = nvml_codes.UNKNOWN  # what a thread that fails unforeseen leaves
        self.over: int | None = None  # the code with which the whole session ended
        self.thread = Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.found, self.code = self._reader.read(), None
        except Unidentified as error:
            self.code = error.code
        except SessionOver as error:
            self.over = error.code


class Session:
    """One NVML session: started at the first answer, kept until it fails."""

    def __init__(self, *, gpu_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """gpu_seconds: how long the GPUs have to answer, all at the same time."""
        self._gpu_seconds = gpu_seconds
        self._clock = clock
        self._ear = Ear()
        self._topology = Topology()
        self._readers: dict[int, GpuReader] = {}
        self._looks: dict[int, _Look] = {}
        self._count = 0
        self._driver: str | None = None
        self._started = False

    def answer(self) -> dict[str, Any]:
        """All devices, or why there are none. `ends`: this process is of no more use."""
        before = time.process_time()
        try:
            self._start()
            self._forget(pynvml.nvmlDeviceGetCount())
        except pynvml.NVMLError as error:
            return {"problem": str(error), "code": error.value, "ends": self._is_over(error.value)}
        events = self._ear.heard()
        for event in events:
            self._examine(event["gpu"])
        told = self._look()
        over = next((look.over for look in self._looks.values() if look.over is not None), None)
        if over is not None:
            return {"problem": str(pynvml.NVMLError(over)), "code": over, "ends": True}
        self._topology.begin({index: reader.last[0]["uuid"] for index, reader in self._identified()})
        return told | {
            "events": [event for event in events if event["xid"] is not None],
            "pairs": self._topology.pairs,
            "driver": self._driver,
            "cpu_ms": (time.process_time() - before) * 1000,
        }

    def _start(self) -> None:
        if not self._started:
            pynvml.nvmlInitWithFlags(_NO_GPUS)
            self._started = True
            self._driver = known(pynvml.nvmlSystemGetDriverVersion)
            self._ear.open()

    def _is_over(self, code: int) -> bool:
        # Where there is no driver the same process asks again; a library that does not match stays loaded.
        return self._started or nvml_codes.action(code) is not Action.NO_GPUS

    def _forget(self, count: int) -> None:
        """There are so many GPUs now."""
        self._count = count
        for index in [index for index in self._readers if index >= count]:
            del self._readers[index], self._looks[index]

    def _identified(self) -> list[tuple[int, GpuReader]]:
        return [(index, reader) for index, reader in self._readers.items() if reader.last]

    def _examine(self, uuid: str) -> None:
        for _, reader in self._identified():
            if reader.last[0]["uuid"] == uuid:
                reader.examine()

    def _look(self) -> dict[str, Any]:
        """Every GPU at once, until the slowest has answered or the time is over."""
        began = self._clock()
        for index in range(self._count):
            reader = self._readers.setdefault(
                index, GpuReader(index, clock=self._clock, listen=self._ear.register)
            )
            if index not in self._looks or not self._looks[index].thread.is_alive():
                self._looks[index] = _Look(reader, began)
        devices: list[Wire] = []
        unidentified: dict[str, Any] = {}
        for index in range(self._count):
            look = self._looks[index]
            # One that is late since an earlier look is not waited for again.
            fresh = look.began == began
            look.thread.join(max(0.0, began + self._gpu_seconds - self._clock()) if fresh else 0)
            found = self._seen(self._readers[index], look)
            devices += found
            if not found:
                unidentified[str(index)] = None if look.thread.is_alive() else look.code
        return {"devices": devices, "unidentified": unidentified}

    def _seen(self, reader: GpuReader, look: _Look) -> tuple[Wire, ...]:
        if not look.thread.is_alive():
            code = look.code
            return look.found if code is None or not reader.last else reader.failed(code)
        silent = self._clock() - look.began
        return stale(reader.last, {"state": "unresponsive", "silent_seconds": silent})


def main() -> None:
    """Serve until stdin ends, or NVML does."""
    session = Session(gpu_seconds=float(sys.argv[1]))
    for _line in sys.stdin:
        said = session.answer()
        sys.stdout.write(json.dumps(said) + "\n")
        sys.stdout.flush()
        if said.get("ends"):
            return


if __name__ == "__main__":
    main()
