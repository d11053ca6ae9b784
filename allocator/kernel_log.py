"""XIDs in the kernel log, where the driver writes them also while NVML hangs.

Owns what a record says and hearing it as it is written; leaves reading the log to `host.kmsg`, and what NVML has told of
the same errors to `allocator.hearing`.
SOURCE: NVIDIA open-gpu-kernel-modules, src/nvidia/src/kernel/gpu/rc/kernel_rc.c, krcReportXid: the PCI address,
" GPU-I:%02u" and " GPU-CI:%02u" where it knows the instance, the code, "pid=..., name=..., " or not, a message.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from host.kmsg import KernelLog
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# SECURITY: what users write to /dev/kmsg has facility user (8 and more before the comma), whatever they ask for: one
# digit is the kernel's own. "-" is a record that is whole: what continues another ("c", "+") may begin anywhere in a
# sentence, with a name that a user chose. The message must begin with the driver's words, for the same reason, and a
# newline in a process's name is escaped by the kernel. SOURCE: Linux, kernel/printk/printk.c, devkmsg_write.
_RECORD: Final = re.compile(
    rb"[0-7],[0-9]+,[0-9]+,-(?:,[!-:<-~]*)?;"
    rb"NVRM: Xid \(PCI:(?P<address>[0-9a-f]{4,8}:[0-9a-f]{2}:[0-9a-f]{2})"
    rb"(?: GPU-I:(?P<gpu_instance>[0-9]{2,5})(?: GPU-CI:(?P<compute_instance>[0-9]{2,5}))?)?"
    rb"\): (?P<xid>[0-9]{1,9}), [ -~]*"
)
_ADDRESS: Final = re.compile(r"([0-9a-f]{4,8}):([0-9a-f]{2}):([0-9a-f]{2})(?:\.[0-7])?", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class PciAddress:
    """Where a GPU is plugged in. NVML writes it with eight digits, in capitals and with a function, the kernel log with four and without."""

    domain: int
    bus: int
    device: int

    def __str__(self) -> str:
        """As the kernel log has it."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedXid:
    """What one record says. gpu_instance_id, compute_instance_id: None: the driver did not name one."""

    address: PciAddress
    xid: int
    gpu_instance_id: int | None = None
    compute_instance_id: int | None = None


def parse_address(text: str) -> PciAddress | None:
    """NVML's or the kernel log's spelling; None: it is neither."""
    found = _ADDRESS.fullmatch(text)
    if found is None:
        return None
    domain, bus, device = (int(part, 16) for part in found.groups())
    return PciAddress(domain=domain, bus=bus, device=device)


def parse_record(line: bytes) -> LoggedXid | None:
    """The XID that a record of the kernel's own is; None: it is none, or is not from the kernel."""
    found = _RECORD.fullmatch(line)
    address = None if found is None else parse_address(found["address"].decode("ascii"))
    if found is None or address is None:
        return None
    gpu_instance, compute_instance = found["gpu_instance"], found["compute_instance"]
    return LoggedXid(
        address=address,
        xid=int(found["xid"]),
        gpu_instance_id=None if gpu_instance is None else int(gpu_instance),
        compute_instance_id=None if compute_instance is None else int(compute_instance),
    )


class LogEar:
    """Hears XIDs in the log as they are written; a log that cannot be read is said once, and stops nothing."""

    def __init__(self, path: Path, *, heard: Callable[[LoggedXid], None]) -> None:
        """Nothing is heard before `listen`."""
        self._path = path
        self._heard = heard
        self._log: KernelLog | None = None
        self.problem: str | None = "the kernel log was not opened yet"  # None: it is heard

    def listen(self) -> None:
        """Hear what is written from now on, in the running loop."""
        try:
            self._log = KernelLog(self._path)
            asyncio.get_running_loop().add_reader(self._log, self._read)
        except OSError as error:  # from the loop: a file that cannot be waited on
            self._end(error)
        else:
            self.problem = None

    def close(self) -> None:
        """Hear no more."""
        if self._log is not None:
            asyncio.get_running_loop().remove_reader(self._log)
            self._log.close()
            self._log = None

    def _read(self) -> None:
        if self._log is None:
            return
        try:
            found = self._log.read()
        except OSError as error:
            self._end(error)
            return
        if found.overrun:
            log(events.KERNEL_LOG_OVERRUN, path=str(self._path))
        for line in found.lines:
            xid = parse_record(line)
            if xid is not None:
                self._heard(xid)

    def _end(self, error: OSError) -> None:
        self.close()
        self.problem = f"{self._path}: {error.strerror}"
        log(events.KERNEL_LOG_UNAVAILABLE, path=str(self._path), problem=str(error.strerror))
