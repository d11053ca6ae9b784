"""Capabilities of MIG devices: what the driver tells, and the files that have to be as it tells."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from allocator.mig_capabilities import Capabilities, FilesUnknown

MAJOR = 235
ACCESS = "DeviceFileMinor: {}\nDeviceFileMode: 292\nDeviceFileModify: 1\n"
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes device files")


class Driver:
    """A driver's /proc and /dev: GPU 1 with GPU instances 1 and 2, of which the second has two compute instances."""

    def __init__(self, path: Path) -> None:
        self.proc, self.nodes = path / "proc", path / "dev"
        self.nodes.mkdir()
        for name, minor in (("gi1", 147), ("gi1/ci0", 148), ("gi2", 156), ("gi2/ci0", 157), ("gi2/ci1", 158)):
            self.tell(name, ACCESS.format(minor))
            self.make(minor)
        (self.proc / "devices").write_text(
            f"Character devices:\n195 nvidia\n{MAJOR} nvidia-caps\n\nBlock devices:\n"
        )

    def file(self, name: str) -> Path:
        return self.proc / "driver/nvidia/capabilities/gpu1/mig" / name / "access"

    def tell(self, name: str, text: str) -> None:
        self.file(name).parent.mkdir(parents=True, exist_ok=True)
        self.file(name).write_text(text)

    def make(self, minor: int, *, major: int = MAJOR, number: int | None = None) -> None:
        path = self.nodes / f"nvidia-cap{minor}"
        path.unlink(missing_ok=True)
        os.mknod(path, stat.S_IFCHR | 0o444, os.makedev(major, minor if number is None else number))

    def ask(self, instance: int, compute: int) -> tuple[int, int]:
        told = Capabilities(proc=self.proc, nodes=self.nodes)
        return told.of(gpu_minor=1, gpu_instance=instance, compute_instance=compute)


@root_only
@pytest.mark.parametrize(("instance", "compute", "numbers"), [(1, 0, (147, 148)), (2, 1, (156, 158))])
def test_a_mig_device_has_two_capabilities(
    tmp_path: Path, instance: int, compute: int, numbers: tuple[int, int]
) -> None:
    """One of its GPU instance and one of its own compute instance, not of another in there."""
    assert Driver(tmp_path).ask(instance, compute) == numbers


WRONG: dict[str, Callable[[Driver], object]] = {
    "no such instance": lambda driver: driver.file("gi1").unlink(),
    "no such compute instance": lambda driver: driver.file("gi1/ci0").unlink(),
    "no number": lambda driver: driver.tell("gi1", "DeviceFileMode: 292\n"),
    "two numbers": lambda driver: driver.tell("gi1", ACCESS.format(147) + ACCESS.format(148)),
    "not a number": lambda driver: driver.tell("gi1", ACCESS.format("-1")),
    "the machine's own": lambda driver: driver.tell("gi1", ACCESS.format(1)),
    "one for both": lambda driver: driver.tell("gi1", ACCESS.format(148)),
    "no driver for them": lambda driver: (driver.proc / "devices").write_text(
        "Character devices:\n195 nvidia\n"
    ),
    "no list of drivers": lambda driver: (driver.proc / "devices").unlink(),
    "no file": lambda driver: (driver.nodes / "nvidia-cap148").unlink(),
    "a file of another driver": lambda driver: driver.make(148, major=MAJOR + 1),
    "a file of another device": lambda driver: driver.make(148, number=156),
}


@root_only
@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG.keys())
def test_what_is_not_certain_is_refused(tmp_path: Path, spoil: Callable[[Driver], object]) -> None:
    """A number that the driver does not tell, or that the file does not have, opens nothing."""
    driver = Driver(tmp_path)
    spoil(driver)
    with pytest.raises(FilesUnknown):
        driver.ask(1, 0)


@root_only
def test_a_link_is_no_capability(tmp_path: Path) -> None:
    """It may lead elsewhere by the time that it is opened."""
    driver = Driver(tmp_path)
    (driver.nodes / "nvidia-cap148").rename(tmp_path / "node")
    (driver.nodes / "nvidia-cap148").symlink_to(tmp_path / "node")
    with pytest.raises(FilesUnknown, match="is not what the driver says"):
        driver.ask(1, 0)


def test_a_machine_without_the_driver_tells_nothing(tmp_path: Path) -> None:
    """No number is made up."""
    with pytest.raises(FilesUnknown, match="does not tell"):
        Capabilities(proc=tmp_path, nodes=tmp_path).of(gpu_minor=0, gpu_instance=1, compute_instance=0)
