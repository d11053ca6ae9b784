"""Who has a device file of NVIDIA's open: processes that NVML does not list have no CUDA context, or not yet.

Blocks: it reads every descriptor of every process. A file on a dead network file system can block it for ever; run it
in a thread, and never a second one beside one that has not returned.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from allocator.processes import PROC
from host.proc import read

_DRIVER = "nvidia"
_MAIN = frozenset({"nvidia", "nvidia-frontend"})  # the second before driver 470: one major for all GPUs
_FIRST_OF_ALL_GPUS = 254  # minors of nvidia-modeset and nvidiactl; below them stands one minor for each GPU
# No file's path begins so; a path like "/memfd:x" could be anybody's.
_NO_DEVICE = re.compile(r"[a-z_]+:")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class DeviceFile:
    """One character device: by the driver's name in /proc/devices, and by number."""

    driver: str
    major: int
    minor: int

    @property
    def gpu_minor(self) -> int | None:
        """The N of /dev/nvidiaN; None for nvidiactl, nvidia-uvm, MIG capabilities and the rest."""
        return self.minor if self.driver in _MAIN and self.minor < _FIRST_OF_ALL_GPUS else None


def majors(devices: str) -> Mapping[int, str]:
    """The character majors of NVIDIA's drivers in the text of /proc/devices."""
    return {number: name for number, name in characters(devices) if name.startswith(_DRIVER)}


def characters(devices: str) -> Iterator[tuple[int, str]]:
    """Every line of /proc/devices about character devices; a major can stand in several."""
    text, _, _ = devices.partition("Block devices:")
    for line in text.splitlines():
        number, _, name = line.strip().partition(" ")
        if number.isdecimal() and name:
            yield int(number), name


@dataclass(frozen=True, slots=True, kw_only=True)
class Holdings:
    """Who has which of the devices open, by pid; `unread`: processes that did not let themselves be read."""

    open: Mapping[int, frozenset[DeviceFile]] = field(default_factory=dict)
    unread: frozenset[int] = frozenset()


def holders(drivers: Mapping[int, str] | None = None, *, proc: Path = PROC) -> Holdings:
    """Which processes have which of these devices open. What ends meanwhile is left out.

    Args: drivers: majors and their names; those of NVIDIA in /proc/devices when None.
    Raises: OSError: /proc itself cannot be read.
    """
    wanted = majors(read(proc / "devices")) if drivers is None else drivers
    found: dict[int, frozenset[DeviceFile]] = {}
    unread: set[int] = set()
    for process in proc.iterdir() if wanted else ():
        if process.name.isdecimal():
            try:
                held = frozenset(_held(process / "fd", wanted))
            except OSError:
                unread.add(int(process.name))
                continue
            if held:
                found[int(process.name)] = held
    return Holdings(open=found, unread=frozenset(unread))


def _held(descriptors: Path, wanted: Mapping[int, str]) -> Iterator[DeviceFile]:
    with suppress(FileNotFoundError, ProcessLookupError), os.scandir(descriptors) as entries:
        for entry in entries:
            with suppress(FileNotFoundError, ProcessLookupError):
                number = _device_number(entry.path)
                if number is not None and os.major(number) in wanted:
                    major = os.major(number)
                    yield DeviceFile(driver=wanted[major], major=major, minor=os.minor(number))


def _device_number(descriptor: str) -> int | None:
    """The number of the character device behind a link of /proc/<pid>/fd. Its name proves nothing: it is asked."""
    link = Path(descriptor)
    if _NO_DEVICE.match(str(link.readlink())):
        return None
    status = link.stat()
    return status.st_rdev if stat.S_ISCHR(status.st_mode) else None
