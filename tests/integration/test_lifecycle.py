"""Time limits on a real engine: warned on a real terminal, stopped with its own signal, kept; and what dies in between changes nothing."""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import signal
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import unix_http
from tests.integration.conftest import PREFIX, Lab, eventually, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(150)]

_POLITE = 'trap "echo saved; exit 7" TERM; while :; do sleep 0.1; done'
_WARNED, _STOPPED = "lease.warned", "container.stopped"
_LEDGER_SECONDS = 100  # three reports of the proxy: it has stopped, a grace, its time is over
_TIMING = "lifecycle: {look_seconds: 1, warn_seconds: [6, 3]}\n"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose lifecycle looks every second, and warns seconds before."""
    root = Path(tempfile.mkdtemp(prefix="ds01-"))
    (root / "etc").mkdir(mode=0o755)
    (root / "etc" / "daemon.yaml").write_text(_TIMING)
    with running_lab(f"{PREFIX}-lia", f"{PREFIX}-lib", "--gpus", "4xa100-40", root=root) as running:
        _policy(running, "stop")
        yield running


def _policy(lab: Lab, time_over: str) -> None:
    """Give both users all GPUs and this word; wait until proxy and lifecycle have it."""
    before = {daemon: lab.log(daemon).count("policy.loaded") for daemon in ("proxy", "lifecycle")}
    path = lab.root / "etc" / "policy.d" / "lifecycle.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        f"version: 1\ngroups:\n  all: {{members: [{lab.alice}, {lab.bob}], "
        f"limits: {{gpus: 4, containers: 50}}, gpu: {{time_over: {time_over}}}}}\n"
    )
    path.chmod(0o644)
    assert eventually(
        lambda: all(lab.log(daemon).count("policy.loaded") > count for daemon, count in before.items()),
        seconds=10,
    )


def _run(lab: Lab, user: str, name: str, *flags: str) -> str:
    return lab.ok(user, "run", "-d", "--name", name, "--gpus", "1", *flags, "busybox", "sh", "-c", _POLITE)


def _timed(lab: Lab, user: str, name: str, seconds: int) -> str:
    return _run(lab, user, name, "--label", f"ds01.gpu.time={seconds}s")


def _state(lab: Lab, user: str, name: str) -> str:
    return lab.ok(user, "inspect", "-f", "{{.State.Status}} {{.State.ExitCode}}", name)


def _events(lab: Lab, container: str) -> list[str]:
    """What lifecycle logged of a container."""
    lines = [json.loads(line) for line in lab.log("lifecycle").splitlines() if line.startswith("{")]
    return [line["event"] for line in lines if line.get("container") == container]


def _audited(lab: Lab, container: str) -> list[dict[str, Any]]:
    lines = (lab.root / "log" / "audit.jsonl").read_text().splitlines()
    return [record for record in map(json.loads, lines) if container in json.dumps(record)]


def _leases(lab: Lab) -> dict[str, str]:
    """States by container."""
    reply = unix_http.call(lab.root / "run" / "allocator.sock", "GET", "/v1/leases")
    return {lease["container_id"]: lease["state"] for lease in json.loads(reply.body)}


@contextlib.contextmanager
def _terminal(user: str) -> Iterator[int]:
    """The far end of a terminal that `user` has open."""
    ours, theirs = os.openpty()
    try:
        os.fchown(theirs, pwd.getpwnam(user).pw_uid, -1)
        os.fchmod(theirs, 0o620)
        os.set_blocking(ours, False)
        yield ours
    finally:
        os.close(theirs)
        os.close(ours)


def _heard(end: int) -> str:
    with contextlib.suppress(BlockingIOError):
        return os.read(end, 4096).decode()
    return ""


def test_a_container_is_warned_of_stopped_and_kept(clean: Lab) -> None:
    """With its own signal, on record twice; another's, and one without end, go on; its lease ends, and it does not start again."""
    with _terminal(clean.alice) as alice, _terminal(clean.bob) as bob:
        timed = _timed(clean, clean.alice, "timed", 12)
        endless = _run(clean, clean.alice, "endless")
        longer = _timed(clean, clean.bob, "longer", 3600)
        assert eventually(lambda: _state(clean, clean.alice, "timed") == "exited 7", seconds=30)
        assert _heard(alice).count("your container timed is stopped in") == 2
        assert _heard(bob) == ""
    assert clean.ok(clean.alice, "logs", "timed") == "saved"
    assert eventually(lambda: _events(clean, timed) == [_WARNED, _WARNED, _STOPPED], seconds=5)
    own, by_proxy = (record for record in _audited(clean, timed) if _is_stop(record))
    assert (own["event"], own["owner"], own["by"]) == ("container.stopping", clean.alice, "ds01-lifecycle")
    assert (by_proxy["uid"], by_proxy["door"], by_proxy["decision"]) == (0, "admin", "allow")
    assert eventually(lambda: timed not in _leases(clean), seconds=_LEDGER_SECONDS, pause_seconds=1)
    assert _leases(clean) == {endless: "active", longer: "active"}
    assert clean.docker(clean.alice, "start", "timed").status != 0
    assert _state(clean, clean.alice, "endless") == "running 0"
    assert _state(clean, clean.bob, "longer") == "running 0"


def _is_stop(record: dict[str, Any]) -> bool:
    return record["event"] == "container.stopping" or record.get("operation") == "ContainerStop"


def test_killed_in_between_it_warns_once_and_stops_all_the_same(clean: Lab) -> None:
    """SIGKILL between the two warnings, and again before the stop."""
    container = _timed(clean, clean.alice, "timed", 12)
    for warnings in (1, 2):
        assert eventually(lambda w=warnings: _events(clean, container) == [_WARNED] * w, seconds=20)  # type: ignore[misc]  # bound in the loop
        before = clean.pid("lifecycle")
        clean.kill("lifecycle")
        assert eventually(lambda b=before: clean.pid("lifecycle") != b, seconds=10)  # type: ignore[misc]  # as above
    assert eventually(lambda: _state(clean, clean.alice, "timed") == "exited 7", seconds=20)
    assert eventually(lambda: _events(clean, container) == [_WARNED, _WARNED, _STOPPED], seconds=5)


def test_a_silent_allocator_stops_nobody(clean: Lab) -> None:
    """While it hangs, what is over goes on; killed and back again, it is stopped."""
    container = _timed(clean, clean.alice, "timed", 12)
    assert eventually(lambda: _events(clean, container) == [_WARNED, _WARNED], seconds=20)
    hung = clean.pid("allocator")
    os.kill(hung, signal.SIGSTOP)
    try:
        assert eventually(lambda: "upstream.lost" in clean.log("lifecycle"), seconds=20)
        time.sleep(3)
        assert _state(clean, clean.alice, "timed") == "running 0"
    finally:
        os.kill(hung, signal.SIGKILL)
    assert eventually(lambda: _state(clean, clean.alice, "timed") == "exited 7", seconds=40)
    assert "upstream.recovered" in clean.log("lifecycle")


def test_a_paused_container_gets_its_signal(clean: Lab) -> None:
    """It is thawed for it: what it wants to save is saved."""
    _timed(clean, clean.alice, "timed", 10)
    clean.ok(clean.alice, "pause", "timed")
    assert eventually(lambda: _state(clean, clean.alice, "timed") == "exited 7", seconds=30)
    assert clean.ok(clean.alice, "logs", "timed") == "saved"


def test_under_report_it_goes_on(clean: Lab) -> None:
    """Logged once as overdue; when the policy says stop, it is warned of first."""
    _policy(clean, "report")
    try:
        container = _timed(clean, clean.alice, "timed", 5)
        assert eventually(lambda: _events(clean, container) == ["lease.overdue"], seconds=20)
        time.sleep(3)
        assert _state(clean, clean.alice, "timed") == "running 0"
        assert _events(clean, container) == ["lease.overdue"]
    finally:
        _policy(clean, "stop")
    assert eventually(lambda: _state(clean, clean.alice, "timed") == "exited 7", seconds=20)
    assert _events(clean, container)[1] == _WARNED


def test_status_says_that_it_is_at_work(clean: Lab) -> None:
    """For everybody, and for scripts."""
    found = clean.run(clean.alice, "ds01", "status", "--json")
    assert found.status == 0, found.err
    assert json.loads(found.out)["lifecycle"] == {"state": "ok", "problem": None}
