"""The stand-in hook under a real dockerd: what a container with granted devices sees, and nothing more."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from lab import simulate
from lab.claims import held
from tests.fakes.simulated_gpus import SimulatedMachine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.dockerd

START_SECONDS = 30
GPU = simulate.gpu_uuid(0)
MIG_GPU = simulate.gpu_uuid(2)
MIG = simulate.mig_uuid(MIG_GPU, 1, 0)


class Engine:
    """One private dockerd that knows the stand-in hook."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "d.sock"
        library = simulate.build(root / "lib")
        self.state_dir = root / "state"
        self.machine = SimulatedMachine(self.state_dir, library=library)
        simulate.install_hook(root / "hook", state_dir=self.state_dir, library=library)

    def start(self) -> subprocess.Popen[bytes]:
        # fmt: off
        command = [
            "unshare", "-n", "-m", "dockerd", "-H", f"unix://{self.socket}", "--data-root", str(self.root / "data"),
            "--exec-root", str(self.root / "x"), "--pidfile", str(self.root / "pid"), "--bridge=none",
            "--iptables=false", "--storage-driver=vfs",
        ]
        # fmt: on
        environ = os.environ | {"PATH": f"{self.root / 'hook'}:{os.environ['PATH']}"}
        with (self.root / "log").open("wb") as log:
            return subprocess.Popen(command, env=environ, stdout=log, stderr=log)

    def docker(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = ["docker", "-H", f"unix://{self.socket}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    def run(self, gpus: str, *command: str) -> subprocess.CompletedProcess[str]:
        return self.docker("run", "--rm", "--network", "none", "--gpus", gpus, "busybox", *command)


def _import_busybox(engine: Engine) -> None:
    image = engine.root / "busybox.tar"
    with tarfile.open(image, "w") as tar:
        folder = tarfile.TarInfo("bin")
        folder.type, folder.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(folder)
        tar.add(shutil.which("busybox") or "", "bin/busybox")
        for name in ("sh", "ls", "cat", "touch"):
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            tar.addfile(link)
    done = engine.docker("import", str(image), "busybox")
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if os.geteuid() != 0 or not all(map(shutil.which, ("dockerd", "busybox", "gcc"))):
        if os.environ.get("DS01_REQUIRE_DOCKERD") == "1":
            pytest.fail("dockerd, busybox, gcc and root are required")
        pytest.skip("needs root, dockerd, busybox and gcc")
    root = Path(tempfile.mkdtemp(prefix="gpuhook"))
    engine = Engine(root)
    daemon = engine.start()
    try:
        deadline = time.monotonic() + START_SECONDS
        while engine.docker("version").returncode != 0:
            if daemon.poll() is not None or time.monotonic() > deadline:
                pytest.fail((root / "log").read_text()[-2000:])
            time.sleep(0.2)
        _import_busybox(engine)
        yield engine
    finally:
        with contextlib.suppress(ProcessLookupError):
            daemon.send_signal(signal.SIGTERM)
        daemon.wait(START_SECONDS)
        shutil.rmtree(root, ignore_errors=True)


def test_a_granted_gpu_has_its_nodes_and_no_others(engine: Engine) -> None:
    """The container finds the control node, its own GPU's node and no other GPU's."""
    done = engine.run(f'"device={GPU}"', "ls", "/dev")
    assert done.returncode == 0, done.stderr
    assert sorted(name for name in done.stdout.split() if name.startswith("nvidia")) == [
        "nvidia-uvm", "nvidia0", "nvidiactl",
    ]  # fmt: skip


def test_a_mig_device_comes_with_its_parents_node(engine: Engine) -> None:
    """A MIG grant shows the MIG UUID as visible, and the node of the GPU it is part of."""
    done = engine.run(f'"device={MIG}"', "sh", "-c", "cat /run/ds01-sim/visible; ls /dev/nvidia2")
    assert done.stdout.split() == [MIG, "/dev/nvidia2"], done.stderr


def test_nodes_open_for_an_ordinary_user(engine: Engine) -> None:
    """The device cgroup and the modes let any user of the container open a granted node."""
    done = engine.docker(
        "run", "--rm", "--network", "none", "--user", "1000", "--gpus", f'"device={GPU}"',
        "busybox", "sh", "-c", "cat /dev/nvidia0 && echo opened",
    )  # fmt: skip
    assert done.stdout.strip() == "opened", done.stderr


def test_state_is_read_only_and_only_granted_claims_are_writable(engine: Engine) -> None:
    """A container can claim its own device, not another's, and cannot change the machine or its own view."""
    other = engine.state_dir / "claims" / simulate.gpu_uuid(1)
    other.mkdir(exist_ok=True)
    base = "/run/ds01-sim"
    paths = (
        f"{base}/state/claims/{GPU}/0",
        f"{base}/state/claims/{other.name}/0",
        f"{base}/state/x",
        f"{base}/visible",
    )
    script = "; ".join(f"(echo 1 > {path}) 2>/dev/null && echo yes || echo no" for path in paths)
    done = engine.run(f'"device={GPU}"', "sh", "-c", script)
    assert done.stdout.split() == ["yes", "no", "no", "no"], done.stderr


def test_an_unknown_device_stops_the_start_in_nvidias_words(engine: Engine) -> None:
    """An id that is no device fails the start, and the sentence reaches the user."""
    done = engine.run('"device=GPU-0bad"', "ls")
    assert done.returncode != 0
    assert "nvidia-container-cli: device error: GPU-0bad: unknown device" in done.stderr


def test_void_gives_nothing(engine: Engine) -> None:
    """Without a device request and with `void` in the environment, no node appears."""
    done = engine.docker(
        "run", "--rm", "--network", "none", "-e", "NVIDIA_VISIBLE_DEVICES=void", "busybox", "ls", "/dev"
    )
    assert done.returncode == 0, done.stderr
    assert "nvidia" not in done.stdout


def test_count_and_all_mean_lowest_indices_and_everything(engine: Engine) -> None:
    """`--gpus 2` is GPUs 0 and 1, `--gpus all` every GPU and MIG device."""
    two = engine.run("2", "cat", "/run/ds01-sim/visible").stdout.split()
    everything = engine.run("all", "cat", "/run/ds01-sim/visible").stdout.split()
    assert two == [simulate.gpu_uuid(0), simulate.gpu_uuid(1)]
    assert len(everything) == 4 + 2 + 7


def test_a_job_in_a_container_is_a_process_of_the_host(engine: Engine) -> None:
    """The job on all granted devices has one pid of the host, whose cgroup is the container's, and goes with the container."""
    container = engine.docker(
        "run", "-d", "--rm", "--network", "none", "--user", "1000", "--gpus", f'"device={GPU},{MIG}"', "busybox",
        "/run/ds01-sim/job", "-m", "700",
    ).stdout.strip()  # fmt: skip
    try:
        deadline = time.monotonic() + START_SECONDS
        while len(claims := list(held(engine.state_dir))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert {(one.uuid, one.mib) for one in claims} == {(GPU, 700), (MIG, 700)}
        pid = claims[0].pid
        assert {one.pid for one in claims} == {pid}
        assert container in Path(f"/proc/{pid}/cgroup").read_text()
        asked = engine.machine.ask(
            "print([[r.pid for r in p.nvmlDeviceGetComputeRunningProcesses_v3(h)] for h in (gpu[0], gpu[1], gpu[2])])"
        )
        assert asked == f"[[{pid}], [], [{pid}]]"
    finally:
        engine.docker("rm", "-f", container)
    assert list(held(engine.state_dir)) == []


def test_a_job_has_only_what_was_granted(engine: Engine) -> None:
    """Another device than the container's cannot be claimed."""
    done = engine.run(f'"device={GPU}"', "/run/ds01-sim/job", simulate.gpu_uuid(1))
    assert done.returncode == 1
    assert f"cannot claim {simulate.gpu_uuid(1)}" in done.stderr
