"""Which files in /dev/nvidia-caps a MIG device needs: the driver's word, held against the files that are there.

Two capabilities open a MIG device: one of its GPU instance, one of its compute instance. Blocks as long as /proc and /dev do.
SOURCE: MIG User Guide, "/dev based nvidia-capabilities"; open-gpu-kernel-modules, gpu_instance_subscription.c (osRmCapAcquire).
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from allocator.holders import characters
from allocator.processes import PROC
from host.proc import read

_DRIVER = "nvidia-caps"
_MINOR = re.compile(r"^DeviceFileMinor:\s*([0-9]{1,7})\s*$", re.MULTILINE)
_FIRST_OF_AN_INSTANCE = 3  # 1 and 2 are mig/config and mig/monitor, which are of the whole machine


class FilesUnknown(Exception):  # noqa: N818  the name says what is wrong
    """Which device files it comes to cannot be told; the message says what is missing, on one line."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """Where the driver tells it, and where its files are."""

    proc: Path = PROC
    nodes: Path = Path("/dev/nvidia-caps")

    def of(self, *, gpu_minor: int, gpu_instance: int, compute_instance: int) -> tuple[int, int]:
        """N of /dev/nvidia-caps/nvidia-capN: of the GPU instance, and of the compute instance.

        Args: gpu_minor: N of /dev/nvidiaN. Raises: FilesUnknown.
        """
        base = self.proc / f"driver/nvidia/capabilities/gpu{gpu_minor}/mig/gi{gpu_instance}"
        found = (_minor(base / "access"), _minor(base / f"ci{compute_instance}/access"))
        if min(found) < _FIRST_OF_AN_INSTANCE or found[0] == found[1]:
            raise FilesUnknown(
                f"the driver says that the capabilities in {base} are {found[0]} and {found[1]}"
            )
        major = self._major()
        for number in found:
            self._check(number, major)
        return found

    def _major(self) -> int:
        try:
            majors = [number for number, name in characters(read(self.proc / "devices")) if name == _DRIVER]
        except (OSError, ValueError) as error:
            raise FilesUnknown(f"{self.proc / 'devices'} cannot be read: {error}") from error
        if len(majors) != 1:
            raise FilesUnknown(f"the driver {_DRIVER} is not in {self.proc / 'devices'}")
        return majors[0]

    def _check(self, number: int, major: int) -> None:
        """Systemd takes a path for the numbers behind it, and passes over one that is not there.

        SECURITY: a file left from before the driver was loaded anew can have a number that is another driver's now.
        """
        path = self.nodes / f"nvidia-cap{number}"
        try:
            found = path.lstat()
        except OSError as error:
            raise FilesUnknown(f"{path}: {error.strerror}; nvidia-smi -L, as root, makes it") from error
        is_it = stat.S_ISCHR(found.st_mode) and found.st_rdev == os.makedev(major, number)
        if not is_it:
            raise FilesUnknown(f"{path} is not what the driver says; nvidia-smi -L, as root, makes it anew")


def _minor(path: Path) -> int:
    try:
        said = _MINOR.findall(read(path))
    except (OSError, ValueError) as error:
        raise FilesUnknown(f"the driver does not tell the capability {path}: {error}") from error
    if len(said) != 1:
        raise FilesUnknown(f"the driver does not tell the capability {path}")
    return int(said[0])
