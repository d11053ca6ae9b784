"""MIG devices that change by hand under containers, on a real engine: who has what afterwards, and what starts."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from lab import unix_http
from tests.integration.conftest import PREFIX, Lab, eventually, running_lab, server

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(200)]

_LOOK_SECONDS = 30
_EVIDENCE_SECONDS = 100  # a grace and two reports
_HALF = "3g.20gb"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """Two GPUs in two halves each; a scenario plays on the first that is split."""
    halves = f"2xa100-40:{_HALF}+{_HALF}"
    with running_lab(f"{PREFIX}-loa", f"{PREFIX}-lob", "--gpus", halves) as running:
        yield running


def _devices(lab: Lab) -> dict[str, Any]:
    answer = unix_http.call(lab.root / "run" / "allocator.sock", "GET", "/v1/inventory")
    return {device["index"]: device for device in json.loads(answer.body)["devices"]}


def _split(lab: Lab) -> str:
    """The index of the first GPU that is split."""
    return min(index.split(":")[0] for index in _devices(lab) if ":" in index)


def _play(lab: Lab, scenario: str) -> None:
    done = server("gpu", "scenario", scenario, "--root", str(lab.root))
    assert done.returncode == 0, done.stderr


def _named(lab: Lab, user: str, verb: str, index: str, *words: str) -> Any:
    return lab.docker(user, verb, "--gpus", f"device={index}", *words)


def test_a_gpu_is_not_leased_while_somebody_has_its_file(clean: Lab) -> None:
    """MIG mode was switched off under a running container; once it has stopped, the GPU is anybody's, and it stays stopped."""
    gpu = _split(clean)
    made = _named(clean, clean.alice, "run", f"{gpu}:1", "-d", "--name", "holder", "busybox", "sleep", "600")
    assert made.status == 0, made.err
    assert f"nvidia{gpu}" in clean.ok(clean.alice, "exec", "holder", "ls", "/dev").split()
    _play(clean, "mig_switched_off")
    assert eventually(lambda: _devices(clean)[gpu]["state"] == "ok", seconds=_LOOK_SECONDS)
    assert _devices(clean)[gpu]["holder"] == clean.alice
    refused = _named(clean, clean.bob, "create", gpu, "busybox", "true")
    assert refused.status != 0
    assert f"GPU {gpu} is held by {clean.alice}" in refused.err
    clean.ok(clean.alice, "kill", "holder")
    assert eventually(lambda: not _devices(clean)[gpu]["held"], seconds=_EVIDENCE_SECONDS, pause_seconds=1)
    taken = _named(clean, clean.bob, "create", gpu, "busybox", "true")
    assert taken.status == 0, taken.err
    again = clean.docker(clean.alice, "start", "holder")
    assert again.status != 0
    assert "has ended (rule gpu_lease); create the container again" in again.err


def test_a_mig_device_that_was_made_anew_starts_nobody(clean: Lab) -> None:
    """It has the same UUID and another profile; dockerd would hand it out. Who has no lease starts as ever."""
    gpu = _split(clean)
    made = _named(clean, clean.alice, "create", f"{gpu}:0", "--name", "old", "busybox", "true")
    assert made.status == 0, made.err
    clean.ok(clean.alice, "start", "-a", "old")
    uuid = _devices(clean)[f"{gpu}:0"]["uuid"]
    _play(clean, "another_profile_at_the_same_place")
    assert eventually(lambda: _devices(clean)[f"{gpu}:0"]["profile"] != _HALF, seconds=_LOOK_SECONDS)
    assert _devices(clean)[f"{gpu}:0"]["uuid"] == uuid
    started = clean.docker(clean.alice, "start", "old")
    assert started.status != 0
    assert "of this container has lost a device (rule gpu_lease); create the container again" in started.err
    clean.ok(clean.alice, "run", "--rm", "busybox", "true")
