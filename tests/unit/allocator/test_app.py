"""The daemon as a process: settings, its socket, and the end it is asked for."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
import structlog

from allocator import app
from allocator.app import clock, new_id
from allocator.granted_devices import GrantedDevice
from allocator.host_grants import HostGrants
from allocator.mig_journal import Entry, StepKind
from allocator.model import InventoryUnavailable
from allocator.parts import Parts
from allocator.settings import parse_settings
from host import notify
from policy.model import DeviceUuid, Uid
from tests.fakes.fake_nvml import FakeNvml, mig, split
from tests.fakes.leasing import evidence

if TYPE_CHECKING:
    from pathlib import Path


def test_ids_are_new_and_moments_are_of_this_boot() -> None:
    """Two ids differ; two moments of one boot follow each other."""
    now = clock()
    assert new_id() != new_id()
    earlier = now()
    assert 0 <= now().seconds_since(earlier) < 5
    assert now().utc.endswith("Z")


async def test_a_change_of_mig_asks_for_the_grants_on_record(tmp_path: Path) -> None:
    """As the daemon's parts are put together: what is granted outside containers holds its device."""
    settings = parse_settings(["--root", str(tmp_path)])
    settings.tree.ledger.parent.mkdir(parents=True)
    parts = Parts(settings, now=clock(), new_id=new_id)
    parts.__dict__["worker"] = FakeNvml(*split(0, "1g.5gb"))  # in place of the process that reads NVML
    device = GrantedDevice(uuid=mig(0, 0).uuid, generation=1)
    with closing(HostGrants(settings.tree.host_grants)) as grants:
        given = {"name": "alice", "seconds": 3600, "by": "root", "reason": "x"}
        grants.grant(uid=Uid(1000), devices=(device,), now=clock()(), utc_seconds=0, **given)  # type: ignore[arg-type]  # by name
    await parts.service.sweep()
    parts.service.foreign.tell(())
    await parts.service.settle(evidence(clock()()))
    (said,) = (await parts.service.withheld.holders())[device.uuid]
    assert said.startswith("access of alice outside containers")
    await parts.service.close()
    await parts.access.close()
    parts.processes.close()


def test_the_daemon_serves_and_ends_cleanly(tmp_path: Path) -> None:
    """It starts without a GPU or a kernel log, answers, keeps its ledger private, and takes its socket away on SIGTERM."""
    (tmp_path / "run").mkdir()
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text(f"allocator: {{kernel_log: {tmp_path}/kmsg}}\n")
    environment = {key: value for key, value in os.environ.items() if key != "LD_LIBRARY_PATH"}
    daemon = subprocess.Popen(
        [sys.executable, "-m", "allocator.app", "--root", str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    )
    path = tmp_path / "run/allocator.sock"
    try:
        deadline = time.monotonic() + 10
        while not path.exists() and time.monotonic() < deadline:
            time.sleep(0.02)
        assert stat.S_IMODE(path.stat().st_mode) == 0o666
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v1/health HTTP/1.0\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(65536), b""))
        health = json.loads(answer.split(b"\r\n\r\n", 1)[1])
        assert (health["state"], f"{tmp_path}/kmsg" in health["kernel_log_problem"]) == ("unavailable", True)
        assert stat.S_IMODE((tmp_path / "lib/allocator/ledger.sqlite").stat().st_mode) == 0o600
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert not path.exists()
    told = [json.loads(line)["event"] for line in log.splitlines()]
    assert (told[-1], told.count("kernel_log.unavailable")) == ("daemon.stopped", 1)


async def test_what_was_cut_short_is_gone_on_with_while_the_daemon_runs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Now and then, whether the last time failed or not; each problem is told once."""

    class Changer:
        def __init__(self) -> None:
            self.outcomes: list[str | None] = ["no driver", "no driver", None, "no driver", "in use", None]
            self.over = asyncio.Event()

        async def resume(self) -> tuple[Entry, ...]:
            problem = self.outcomes.pop(0)
            if not self.outcomes:
                self.over.set()
                await asyncio.sleep(60)
            if problem is not None:
                raise InventoryUnavailable(problem)
            return (Entry(kind=StepKind.CREATE, gpu=DeviceUuid("GPU-1"), who="root", why="finished"),)

    monkeypatch.setattr(app, "_AGAIN_SECONDS", 0)
    changer, caught_up = Changer(), asyncio.Event()
    with structlog.testing.capture_logs() as logs:
        task = asyncio.get_running_loop().create_task(app._finish_mig(changer, caught_up))  # type: ignore[arg-type]  # all that is asked of it
        assert not caught_up.is_set()
        await asyncio.wait_for(changer.over.wait(), 5)
        assert caught_up.is_set()
        task.cancel()
    told = [line.get("problem") or line["event"] for line in logs]
    assert told == ["no driver", "mig_step.finished", "no driver", "in use"]


@pytest.mark.parametrize("hangs", [False, True])
async def test_the_daemon_is_ready_when_mig_devices_were_made_again(
    monkeypatch: pytest.MonkeyPatch, *, hangs: bool
) -> None:
    """Or when that takes too long: what waits for it, dockerd, is not held up for ever."""
    said: list[str] = []
    monkeypatch.setattr(notify, "notify", said.append)
    monkeypatch.setattr(app, "_MOST_READY_SECONDS", 0.05 if hangs else 60)
    caught_up = asyncio.Event()
    telling = asyncio.get_running_loop().create_task(app._tell_ready(caught_up))
    await asyncio.sleep(0)
    assert said == []
    if not hangs:
        caught_up.set()
    await asyncio.wait_for(telling, 5)
    assert said == ["READY=1"]
