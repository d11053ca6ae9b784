"""The daemon as a process: settings, its socket, and the end it is asked for."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from typing import TYPE_CHECKING

from allocator.app import clock, new_id

if TYPE_CHECKING:
    from pathlib import Path


def test_ids_are_new_and_moments_are_of_this_boot() -> None:
    """Two ids differ; two moments of one boot follow each other."""
    now = clock()
    assert new_id() != new_id()
    earlier = now()
    assert 0 <= now().seconds_since(earlier) < 5
    assert now().utc.endswith("Z")


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
