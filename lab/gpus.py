"""Which GPUs a lab has: the machine's own, or simulated ones."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from lab import cdi, simulate
from lab.settings import REAL_GPUS
from lab.tree import ALLOCATOR_UID

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lab.tree import LabTree

_DRIVER = Path("/proc/driver/nvidia/gpus")


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpus:
    """What to tell the user, and what the allocator's environment needs."""

    text: str
    environment: Mapping[str, str] = field(default_factory=dict)


def prepare(tree: LabTree, spec: str | None) -> Gpus:
    """Set the GPUs up before dockerd starts: it looks for the hook only then.

    Raises: simulate.SpecInvalid. subprocess.CalledProcessError: no library could be built.
    """
    (tree.hook / simulate.HOOK_NAME).unlink(missing_ok=True)
    shutil.rmtree(tree.cdi, ignore_errors=True)
    if spec == REAL_GPUS or (spec is None and _real_ones()):
        return Gpus(text="the machine's own GPUs")
    chosen = spec or simulate.DEFAULT_SPEC
    machine = simulate.machine(chosen, now_ns=time.time_ns())
    simulate.write_state(tree.nvml, machine)
    library = simulate.build(tree.nvml / "lib")
    hook = simulate.install_hook(tree.hook, state_dir=tree.nvml, library=library)
    cdi.write_spec(tree.cdi, machine, hook=hook)
    # The allocator takes the driver's lock and changes MIG devices and the CDI spec; containers' claims are root's.
    capability = tree.nvml / "mig-config"
    capability.touch(mode=0o400)
    kernel_log = tree.nvml / simulate.KERNEL_LOG
    for path in (tree.nvml, tree.nvml / "lock", tree.nvml / "state.json", kernel_log, capability, tree.cdi):
        os.chown(path, ALLOCATOR_UID, ALLOCATOR_UID)
    environment = {"LD_LIBRARY_PATH": str(library.parent), "DS01_SIM_NVML": str(tree.nvml)}
    return Gpus(text=f"simulated GPUs: {chosen}", environment=environment)


def _real_ones() -> bool:
    return _DRIVER.is_dir() and any(_DRIVER.iterdir())
