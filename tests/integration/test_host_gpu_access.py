"""Device policy on slices, with systemd as PID 1 and on both versions of cgroups: closed, granted, taken back."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from allocator.device_policy import base, drivers, drop_ins, gpu_nodes, set_property
from allocator.host_access import AccessFailed
from allocator.mig_capabilities import Capabilities
from cli.gpu_sessions import close, reopen
from policy.model import Uid
from tests.fakes.fake_nvml import mig
from tests.fakes.host_access import HOUR, World
from tests.integration.systemd_box import Box, booted, missing

ALICE, BOB, ADMIN = Uid(1000), Uid(1001), Uid(1002)
BASE = base(Path("/proc/devices").read_text())
DENIED, ALLOWED = errno.EPERM, errno.ENXIO
# A session: it opens what it is told to, whenever it is told to, and writes the errno down.
SESSION = """[Service]
Slice=user-%i.slice
ExecStart=/bin/bash -c 'while read -r path; do if (: <"$path") 2>/run/session-%i.error; then echo open; else cat /run/session-%i.error; fi >/run/session-%i.answer; done < <(tail -f -n +1 /run/session-%i.ask)'
"""
WORDS = {
    "such device": errno.ENXIO,
    "not permitted": errno.EPERM,
    "ermission denied": errno.EACCES,
    "such file": errno.ENOENT,
}


class Machine:
    """A box with device files of NVIDIA's, ds01's drop-ins and three users' sessions."""

    def __init__(self, box: Box) -> None:
        self.box = box
        for name, minor in (("nvidia0", 0), ("nvidia1", 1), ("nvidiactl", 255)):
            node = box.path(f"/dev/{name}")
            os.mknod(node, stat.S_IFCHR, os.makedev(195, minor))
            node.chmod(0o666)
        for name, text in drop_ins(BASE, free=[ADMIN]).items():
            box.write(f"/etc/systemd/system/{name}", text)
        box.write("/etc/systemd/system/session@.service", SESSION)
        box.run("systemctl", "daemon-reload")
        for uid in (ALICE, BOB, ADMIN):
            self.log_in(uid)

    def log_in(self, uid: Uid) -> None:
        self.box.write(f"/run/session-{uid}.ask", "")
        self.box.run("systemctl", "start", f"session@{uid}.service")

    def oracle(self, uid: Uid, name: str) -> int:
        """The errno that this user's session meets when it opens a device file."""
        script = (
            f"rm -f /run/session-{uid}.answer; echo /dev/{name} >>/run/session-{uid}.ask;"
            f" for i in $(seq 300); do [[ -s /run/session-{uid}.answer ]] && break; sleep 0.02; done; cat /run/session-{uid}.answer"
        )
        said = self.box.run("bash", "-c", script)
        return next(code for words, code in WORDS.items() if words in said)

    def run(self, command: Sequence[str]) -> None:
        """Carry out what `device_policy` says."""
        self.box.run(*command)


def require_box(mode: str) -> None:
    """Skip where a box cannot be booted; fail where its root was promised (DS01_REQUIRE_SYSTEMD)."""
    why = missing(mode)
    if "root with systemd" in why and os.environ.get("DS01_REQUIRE_SYSTEMD"):
        pytest.fail(why)
    if why:
        pytest.skip(why)


@pytest.fixture(params=["v1", "v2"])
def machine(request: pytest.FixtureRequest) -> Iterator[Machine]:
    require_box(request.param)
    with booted(request.param, f"ds01-box-{os.getpid()}") as box:
        yield Machine(box)


def test_sessions_are_closed_and_admins_are_not(machine: Machine) -> None:
    """No file of NVIDIA's for people; root and admins, whose sudo stays in their slice, have all; so has the system."""
    assert [machine.oracle(ALICE, name) for name in ("nvidia0", "nvidiactl", "nvidia9")] == [
        DENIED,
        DENIED,
        errno.ENOENT,
    ]
    assert machine.oracle(ADMIN, "nvidia0") == ALLOWED


def test_a_grant_is_live_for_one_user_and_one_gpu_and_ends(machine: Machine) -> None:
    """In a session that is there already, without a new login; it outlasts a reload, and its end is live too."""
    machine.run(set_property(ALICE, BASE, gpu_nodes([1])))
    assert [machine.oracle(ALICE, name) for name in ("nvidia1", "nvidiactl", "nvidia0")] == [
        ALLOWED,
        ALLOWED,
        DENIED,
    ]
    assert machine.oracle(BOB, "nvidia1") == DENIED
    machine.box.run("systemctl", "daemon-reload")
    assert machine.oracle(ALICE, "nvidia1") == ALLOWED
    machine.run(set_property(ALICE, BASE))
    assert [machine.oracle(ALICE, name) for name in ("nvidia1", "nvidiactl")] == [DENIED, DENIED]


def test_a_grant_before_the_login_counts(machine: Machine) -> None:
    """The slice need not be there when it is given or taken."""
    carol = Uid(1003)
    machine.run(set_property(carol, BASE, gpu_nodes([0])))
    machine.log_in(carol)
    assert [machine.oracle(carol, name) for name in ("nvidia0", "nvidia1")] == [ALLOWED, DENIED]
    machine.run(set_property(carol, BASE))
    assert machine.oracle(carol, "nvidia0") == DENIED


def test_one_grant_replaces_another(machine: Machine) -> None:
    """Nothing of the first is left."""
    machine.run(set_property(ALICE, BASE, gpu_nodes([0])))
    machine.run(set_property(ALICE, BASE, gpu_nodes([1])))
    assert [machine.oracle(ALICE, name) for name in ("nvidia0", "nvidia1")] == [DENIED, ALLOWED]


def test_a_grant_of_all_is_by_drivers(machine: Machine) -> None:
    """By the names in /proc/devices, which this machine lacks without a driver: the command is taken, and opens nothing."""
    named = drivers("Character devices:\n195 nvidia\n234 nvidia-uvm\n")
    machine.run(set_property(ALICE, BASE, named))
    shown = machine.box.run("systemctl", "show", "-p", "DeviceAllow", f"user-{ALICE}.slice")
    assert "DeviceAllow=char-nvidia rw" in shown
    assert machine.oracle(BOB, "nvidia0") == DENIED


CAPS_MAJOR = 235  # of no driver here; NVIDIA's is dealt out at each load
CAPS = {"gi7": 336, "gi7/ci0": 337, "gi8": 345, "gi8/ci0": 346}  # of GPU 2, as current drivers number them


def split_gpu(box: Box) -> Capabilities:
    """Device files of GPU 2 and of its two MIG devices, and what the driver tells of them in /proc."""
    nodes, told = box.path("/dev/nvidia-caps"), box.path("/run/driver")
    nodes.mkdir()
    os.mknod(box.path("/dev/nvidia2"), stat.S_IFCHR | 0o666, os.makedev(195, 2))
    for name, minor in {"": 1, **CAPS}.items():
        os.mknod(nodes / f"nvidia-cap{minor}", stat.S_IFCHR | 0o444, os.makedev(CAPS_MAJOR, minor))
        access = told / "driver/nvidia/capabilities/gpu2/mig" / name / "access"
        access.parent.mkdir(parents=True, exist_ok=True)
        access.write_text(f"DeviceFileMinor: {minor}\nDeviceFileMode: 292\nDeviceFileModify: 1\n")
    (told / "devices").write_text(f"Character devices:\n195 nvidia\n{CAPS_MAJOR} nvidia-caps\n")
    return Capabilities(proc=told, nodes=nodes)


@pytest.mark.parametrize("mode", ["v1", "v2"])
async def test_a_mig_device_is_granted_alone_and_ends_with_itself(mode: str, tmp_path: Path) -> None:
    """Its GPU's file and its own capabilities open; its neighbour's, and the machine's, do not. Split anew, nothing does."""
    require_box(mode)
    world = World(tmp_path)
    own = ("nvidia2", "nvidiactl", "nvidia-caps/nvidia-cap336", "nvidia-caps/nvidia-cap337")
    others = ("nvidia0", *(f"nvidia-caps/nvidia-cap{minor}" for minor in (1, 345, 346)))
    with booted(mode, f"ds01-box-{os.getpid()}") as box:
        machine = Machine(box)
        world.carry_out = machine.run
        world.capabilities = split_gpu(box)
        world.access = world.daemon()
        await world.grant(devices=["2:0"])
        assert {machine.oracle(ALICE, name) for name in own} == {ALLOWED}
        assert {machine.oracle(ALICE, name) for name in others} == {DENIED}
        assert {machine.oracle(BOB, name) for name in own} == {DENIED}
        box.run("systemctl", "daemon-reload")
        assert machine.oracle(ALICE, own[-1]) == ALLOWED
        box.run("bash", "-c", "rm /dev/nvidia-caps/nvidia-cap346")
        with pytest.raises(AccessFailed, match="nvidia-cap346"):
            await world.grant(devices=["2:1"])
        assert machine.oracle(ALICE, own[-1]) == ALLOWED
        world.devices.put(mig(2, 0, "3g.20gb", minor=2, generation=2))
        await world.access.sweep()
        assert {machine.oracle(ALICE, name) for name in (*own, "nvidia0")} == {DENIED}
    assert await world.access.live() == ()
    await world.access.close()
    world.processes.close()


def test_a_session_cannot_widen_its_slice(machine: Machine) -> None:
    """A user's own service that allows itself the device meets the slice's answer: every ancestor must allow."""
    own = "[Service]\nType=oneshot\nSlice=user-1000.slice\nDevicePolicy=closed\nDeviceAllow=/dev/nvidia0 rw\n"
    ask = "ExecStart=-/bin/bash -c '(: </dev/nvidia0) 2>/run/own.error'\n"
    machine.box.write("/run/systemd/system/own.service", own + ask)
    machine.box.run("systemctl", "daemon-reload")
    machine.box.run("systemctl", "start", "own.service")
    assert "not permitted" in machine.box.path("/run/own.error").read_text()


def test_sessions_are_closed_and_opened_live(machine: Machine) -> None:
    """As the command does it, without a reload: who is there is told, and files wait for the next boot."""
    units = machine.box.path("/etc/systemd/system")
    tell = machine.run
    reopen(present=[ALICE, BOB], units=units, tell=tell)
    assert [machine.oracle(uid, "nvidia0") for uid in (ALICE, BOB)] == [ALLOWED, ALLOWED]
    close([ADMIN], present=[0, ALICE, BOB, ADMIN], units=units, tell=tell)
    assert [machine.oracle(uid, "nvidia0") for uid in (ALICE, BOB, ADMIN)] == [DENIED, DENIED, ALLOWED]


@pytest.mark.parametrize("mode", ["v1", "v2"])
async def test_a_grant_outlasts_a_boot_and_ends_after_it(mode: str, tmp_path: Path) -> None:
    """The record carries it over; what systemd was told is gone with the boot, and told again."""
    require_box(mode)
    world = World(tmp_path)
    with booted(mode, f"ds01-box-{os.getpid()}") as box:
        first = Machine(box)
        world.carry_out = first.run
        await world.grant()
        assert [first.oracle(ALICE, name) for name in ("nvidia1", "nvidia0")] == [ALLOWED, DENIED]
    world.reboot(off_seconds=60)
    with booted(mode, f"ds01-box-{os.getpid()}") as box:
        second = Machine(box)
        world.carry_out = second.run
        assert second.oracle(ALICE, "nvidia1") == DENIED
        await world.access.start()
        assert second.oracle(ALICE, "nvidia1") == ALLOWED
        world.pass_time(HOUR)
        await world.access.sweep()
        assert second.oracle(ALICE, "nvidia1") == DENIED
    await world.access.close()
    world.processes.close()
