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

import pytest

from allocator.app import clock, new_id, parse_settings

if TYPE_CHECKING:
    from pathlib import Path


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    """Root is always trusted; what a flag says replaces what the file says."""
    root = ["--root", str(tmp_path)]
    assert parse_settings(root).trusted_uids == {0}
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text(
        "allocator: {trusted_uids: [7], nvml_deadline_seconds: 3}\nproxy: {}\n"
    )
    assert parse_settings(root).trusted_uids == {0, 7}
    settings = parse_settings([*root, "--trusted-uid", "9", "--run", "/x"])
    assert settings.trusted_uids == {0, 9}
    assert settings.nvml_deadline_seconds == 3
    assert str(settings.tree.allocator_socket) == "/x/allocator.sock"


def test_times_are_local_unless_the_file_says_otherwise(tmp_path: Path) -> None:
    """A zone by its name, the half-life of usage in hours, and after how many days leases are put away."""
    root = ["--root", str(tmp_path)]
    (tmp_path / "etc").mkdir()
    assert parse_settings(root).zone is not None
    (tmp_path / "etc/daemon.yaml").write_text(
        "allocator: {time_zone: Europe/Berlin, half_life_hours: 24, archive_days: 90}\n"
    )
    settings = parse_settings(root)
    assert str(settings.zone) == "Europe/Berlin"
    assert (settings.timing.half_life_seconds, settings.timing.archive_days) == (86400, 90)


@pytest.mark.parametrize(
    "text",
    [
        "allocator: {trusted_uid: [7]}",
        "allocator: {half_life_hours: 0}",
        "allocator: {archive_days: x}",
        "allocator: {time_zone: Mars/Phobos}",
        "allocator: {trusted_uids: [true]}",
        "allocator: {trusted_uids: 7}",
        "allocator: {nvml_deadline_seconds: 0.0001e-9999}",
        "allocator: {nvml_deadline_seconds: x}",
        "allocator: [1]",
        "[]x: {",
    ],
)
def test_a_mistake_in_the_file_stops_the_start(
    tmp_path: Path, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Unknown keys and wrong types are named with the file, and nothing starts."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/daemon.yaml").write_text(text)
    with pytest.raises(SystemExit):
        parse_settings(["--root", str(tmp_path)])
    assert "daemon.yaml" in capsys.readouterr().err


def test_ids_are_new_and_moments_are_of_this_boot() -> None:
    """Two ids differ; two moments of one boot follow each other."""
    now = clock()
    assert new_id() != new_id()
    earlier = now()
    assert 0 <= now().seconds_since(earlier) < 5
    assert now().utc.endswith("Z")


def test_the_daemon_serves_and_ends_cleanly(tmp_path: Path) -> None:
    """It starts without a GPU, answers, keeps its ledger private, and takes its socket away on SIGTERM."""
    (tmp_path / "run").mkdir()
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
        assert json.loads(answer.split(b"\r\n\r\n", 1)[1])["state"] == "unavailable"
        assert stat.S_IMODE((tmp_path / "lib/allocator/ledger.sqlite").stat().st_mode) == 0o600
    finally:
        daemon.send_signal(signal.SIGTERM)
        _, log = daemon.communicate(timeout=10)
    assert daemon.returncode == 0
    assert not path.exists()
    assert [json.loads(line)["event"] for line in log.splitlines()][-1] == "daemon.stopped"
