"""`ds01-lab gpu ...` on the state of a lab, as its user types it and as NVML then answers."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from allocator.kernel_log import LoggedXid, PciAddress, parse_record
from host.kmsg import KernelLog
from lab import cdi, main, simulate
from lab.scenarios import SCENARIOS
from lab.tree import LabTree
from tests.fakes.simulated_gpus import SimulatedMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

MIG = simulate.mig_uuid(simulate.gpu_uuid(2), 2, 0)
PIDS = "print([r.pid for r in p.nvmlDeviceGetComputeRunningProcesses_v3({})])"


class Lab(SimulatedMachine):
    """The GPU side of a lab below `root`, without daemons."""

    def __init__(self, root: Path, driver: Path) -> None:
        self.tree = LabTree.at(root)
        super().__init__(self.tree.nvml, library=driver)
        cdi.write_spec(self.tree.cdi, simulate.read_state(self.dir), hook=self.tree.hook / simulate.HOOK_NAME)

    def gpu(self, *arguments: str) -> int:
        return main.main(["gpu", *arguments, "--root", str(self.tree.root)])

    def named_devices(self) -> list[str]:
        spec = json.loads((self.tree.cdi / "nvidia.json").read_text())
        return [device["name"] for device in spec["devices"]]


@pytest.fixture
def lab(driver: Path) -> Iterator[Lab]:
    """At a place that everybody reaches and whose sockets' addresses are short: it is seen where it is."""
    with tempfile.TemporaryDirectory(prefix="lab", dir="/var/tmp") as root:
        Path(root).chmod(0o755)
        (Path(root) / "etc").mkdir()
        yield Lab(Path(root), driver)


def test_processes_come_and_go(lab: Lab) -> None:
    """By index, on a MIG device, with memory that may be unknown; NVML lists it until it is removed."""
    assert lab.gpu("add-process", "2:1", str(os.getpid()), "--mib", "unknown") == 0
    handle = f"p.nvmlDeviceGetHandleByUUID(b'{MIG}')"
    assert lab.ask(PIDS.format(handle)) == f"[{os.getpid()}]"
    assert lab.gpu("remove-process", str(os.getpid())) == 0
    assert lab.ask(PIDS.format(handle)) == "[]"


def test_the_list_tells_what_is_the_matter(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Devices by index and UUID with their processes, XIDs and faults."""
    lab.gpu("add-process", simulate.gpu_uuid(0), "4242", "--mib", "700")
    lab.gpu("xid", "2:1", "31")
    lab.gpu("lose", "1")
    lab.gpu("hang", "nvmlInit*", "--seconds", "2", "--sigterm-proof")
    assert lab.gpu("list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["0", simulate.gpu_uuid(0), "4242", "(700", "MiB)"]
    assert [line.split()[0] for line in lines[1:13]] == [
        "1", "2", "2:0", "2:1", "3", *(f"3:{place}" for place in range(7)),
    ]  # fmt: skip
    assert lines[13] == f"XID 31 on {simulate.gpu_uuid(2)}"
    assert [line.split()[0] for line in lines[14:]] == ["fault", "fault"]
    event = simulate.read_state(lab.dir)["events"][0]
    assert (event["gi"], event["ci"]) == (2, 0)


def test_an_xid_is_in_the_kernel_log_as_the_driver_writes_it(lab: Lab) -> None:
    """Of a MIG device with its instance, of a GPU without; also one that NVML does not tell."""
    log = KernelLog(lab.dir / simulate.KERNEL_LOG)
    try:
        assert lab.gpu("xid", "2:0", "31") == 0
        assert lab.gpu("xid", "0", "79", "--log-only") == 0
        told = [parse_record(line) for line in log.read().lines]
    finally:
        log.close()
    assert told == [
        LoggedXid(
            address=PciAddress(domain=0, bus=0x17, device=0), xid=31, gpu_instance_id=1, compute_instance_id=0
        ),
        LoggedXid(address=PciAddress(domain=0, bus=0x07, device=0), xid=79),
    ]
    assert [event["data"] for event in simulate.read_state(lab.dir)["events"]] == [31]


def test_an_xid_waits_for_no_reader(lab: Lab) -> None:
    """Nobody reads the kernel log of a lab whose allocator is down."""
    assert lab.gpu("xid", "0", "79") == 0


def test_a_gpu_gets_busy(lab: Lab) -> None:
    """Utilisation and power are what was said; utilisation may be unknown."""
    script = "print(p.nvmlDeviceGetPowerUsage(gpu[0]), code(p.nvmlDeviceGetUtilizationRates, gpu[0]))"
    assert lab.gpu("load", "0", "93", "--watts", "310.5") == 0
    assert lab.ask(script + "\nprint(p.nvmlDeviceGetUtilizationRates(gpu[0]).gpu)") == "310500 0\n93"
    assert lab.gpu("load", "0", "unknown") == 0
    assert lab.ask(script) == "60000 3"


def test_faults_hold_until_healed(lab: Lab) -> None:
    """A lost GPU answers so, and is back after heal."""
    script = "print(code(p.nvmlDeviceGetName, gpu[1]))"
    lab.gpu("lose", "1")
    assert lab.ask(script) == "15"
    assert lab.gpu("heal") == 0
    assert lab.ask(script) == "0"


def test_a_scenario_is_played_by_steps(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Step 1 destroys a MIG device, step 2 makes it again; the engine's CDI spec follows."""
    before = lab.named_devices()
    assert lab.gpu("scenario", "same_uuid_after_recreation", "--step", "1") == 0
    assert len(lab.named_devices()) == len(before) - 1
    assert lab.gpu("scenario", "same_uuid_after_recreation", "--step", "2") == 0
    assert lab.named_devices() == before
    assert SCENARIOS["same_uuid_after_recreation"].summary in capsys.readouterr().out


@pytest.mark.parametrize("name", SCENARIOS)
def test_every_scenario_can_be_played(lab: Lab, name: str) -> None:
    """On the lab's own machine each goes through, all steps at once, and leaves a state that is valid."""
    assert lab.gpu("scenario", name) == 0
    assert simulate.read_state(lab.dir)["seq"] == 2


def test_scenarios_are_listed_with_what_they_are(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a name, one line each."""
    assert lab.gpu("scenario") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(SCENARIOS)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("lose", "9"), "there is no device 9; see: ds01-lab gpu list"),
        (("scenario", "ghost_memory", "--step", "2"), "ghost_memory ends with step 1; there is no step 2"),
        (
            ("scenario", "same_uuid_after_recreation", "--step", "2"),
            "no MIG device was destroyed; play step 1 first",
        ),
    ],
)
def test_what_cannot_be_played_is_refused_and_changes_nothing(
    lab: Lab, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], words: str
) -> None:
    """The exit code is 1, the sentence says why, and the state is as it was."""
    before = (lab.dir / "state.json").read_text()
    assert lab.gpu(*arguments) == 1
    assert capsys.readouterr().err == f"ds01-lab: {words}\n"
    assert (lab.dir / "state.json").read_text() == before


def test_a_lab_without_simulated_gpus_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """There is nothing to play with."""
    assert main.main(["gpu", "list", "--root", str(tmp_path)]) == 1
    assert "no lab with simulated GPUs" in capsys.readouterr().err
