"""A simulated GPU machine for one test: its state, the driver library that tells it, and programs that ask."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from lab import simulate
from lab.scenarios import SCENARIOS, Part

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

ROOT = Path(__file__).parents[2]
PREAMBLE = """
import ctypes, os, sys
import pynvml as p
def code(function, *arguments):
    try:
        function(*arguments)
    except p.NVMLError as error:
        return error.value
    return 0
def migs(h):
    found = {}
    for i in range(p.nvmlDeviceGetMaxMigDeviceCount(h)):
        try:
            found[i] = p.nvmlDeviceGetUUID(p.nvmlDeviceGetMigDeviceHandleByIndex(h, i))
        except p.NVMLError_NotFound:
            pass
    return found
"""
START = "p.nvmlInit(); gpu = [p.nvmlDeviceGetHandleByIndex(i) for i in range(p.nvmlDeviceGetCount())]\n"
LAB = """
sys.path[0:0] = [os.getcwd()]
from pathlib import Path
from lab import simulate
state = Path(os.environ["DS01_SIM_NVML"])
"""


def driver_library(name: str, *, sanitize: bool = False, without: Collection[str] = ()) -> Path:
    """The library, compiled once for all test processes; `name` tells builds with other arguments apart."""
    directory = ROOT / "build" / "nvml" / name
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        return simulate.build(directory, sanitize=sanitize, without=without)


class SimulatedMachine:
    """One state directory and the library; `ask` runs a script in a process of its own.

    library: None where the machine has none.
    """

    def __init__(
        self, state_dir: Path, *, library: Path | None, spec: str = simulate.DEFAULT_SPEC, now_ns: int = 0
    ) -> None:
        self.dir = state_dir
        self.library = library
        simulate.write_state(state_dir, simulate.machine(spec, now_ns=now_ns))

    @property
    def environment(self) -> dict[str, str]:
        """What makes a process see this machine."""
        found = self.dir if self.library is None else self.library.parent
        return {"DS01_SIM_NVML": str(self.dir), "LD_LIBRARY_PATH": str(found)}

    def uuid(self, index: int) -> str:
        """Of the GPU that stands at `index` now."""
        uuid: str = simulate.read_state(self.dir)["gpus"][index]["uuid"]
        return uuid

    def ask(
        self,
        script: str,
        *,
        start: str = START,
        env: Mapping[str, str] | None = None,
        within: tuple[str, ...] = (),
    ) -> str:
        """What `script` prints; `p` is pynvml, `gpu` the handles, `code` a call's error, `migs` a GPU's devices.

        within: a command that starts the script elsewhere.
        """
        done = self.run(*within, sys.executable, "-c", PREAMBLE + start + script, env=env)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run(
        self, *command: str, env: Mapping[str, str] | None = None, text: str = "", seconds: int = 30
    ) -> subprocess.CompletedProcess[str]:
        """A program on this machine, with `text` on its stdin."""
        environ = os.environ | self.environment | dict(env or {})
        return subprocess.run(
            command,
            cwd=ROOT,
            input=text,
            capture_output=True,
            text=True,
            env=environ,
            timeout=seconds,
            check=False,
        )


class Played(SimulatedMachine):
    """A machine on which a scenario of `lab.scenarios` has been played up to a step."""

    def __init__(self, state_dir: Path, name: str, part: Part | None = None) -> None:
        self.scenario = SCENARIOS[name]
        without = self.scenario.library
        library = None if without is None else driver_library(name if without else "plain", without=without)
        super().__init__(state_dir, library=library, spec=self.scenario.machine)
        self._step = 0
        self.play(part or Part(pid=os.getpid(), milliseconds=300))

    def play(self, part: Part) -> None:
        """The next step."""
        with simulate.changed(self.dir) as state:
            self.scenario.play(state, self._step, part)
        self._step += 1

    def rewind(self) -> None:
        """The machine as it was before the first step, which `play` plays again: for who looked at it before."""
        with simulate.changed(self.dir) as state:
            before = simulate.machine(self.scenario.machine) | {"seq": state["seq"]}
            state.clear()
            state.update(before)
        self._step = 0
