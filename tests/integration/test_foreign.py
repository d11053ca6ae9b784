"""A container that root makes past ds01 on a real engine: nobody is leased what it has, until it is gone."""

from __future__ import annotations

import json
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from lab import simulate
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(240)]
_SECONDS = 40
_NAME = "roots-own"
_OURS = ("--runtime", "runc", "--network", "none", "--name", _NAME)


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """Two whole GPUs."""
    with running_lab(f"{PREFIX}-fra", f"{PREFIX}-frb", "--gpus", "2xa100-40") as lab:
        yield lab


@pytest.fixture
def engine(own: Lab) -> Iterator[Path]:
    own.clean()
    with engine_opened(own, "tests of foreign containers") as socket:
        yield socket
        docker(socket, "rm", "-f", _NAME, check=False)
    own.clean()


def docker(engine: Path, *words: str, check: bool = True) -> None:
    """Root's docker CLI on dockerd's own socket."""
    command = ("docker", "-H", f"unix://{engine}", *words)
    subprocess.run(command, check=check, capture_output=True, timeout=60)


def devices(lab: Lab, user: str) -> list[dict[str, Any]]:
    """What `ds01 gpu --json` tells a user, by index."""
    done = lab.run(user, "ds01", "gpu", "--json")
    assert done.out, done.err
    return sorted(json.loads(done.out)["devices"], key=lambda device: str(device["index"]))


def names(lab: Lab) -> list[str | None]:
    return [device["foreign"] for device in devices(lab, "root")]


def test_what_a_foreign_container_has_is_leased_to_nobody(own: Lab, engine: Path) -> None:
    """Refused by name, passed over by number, and given once the container is gone."""
    device = f'"device={simulate.gpu_uuid(0)}"'
    # No process of it uses the GPU: by NVML alone it would be free.
    foreign = (*_OURS, "--label", f"aime.mlc={own.alice}", "--gpus", device)
    docker(engine, "run", "-d", *foreign, "busybox", "sleep", "300")
    assert eventually(lambda: names(own) == [_NAME, None], seconds=_SECONDS)
    refused = own.docker(own.alice, "create", "--gpus", "device=0", "busybox", "true")
    assert refused.status != 0
    assert "GPU 0 is used by a container that ds01 did not make" in refused.err
    assert _NAME not in refused.err
    table = own.run(own.bob, "ds01", "gpu").out
    assert "in use" in table
    assert _NAME not in table
    said = f"container {_NAME}: ds01 did not make it; probably {own.alice}'s, by label aime.mlc={own.alice}"
    assert eventually(lambda: said in own.run("root", "ds01", "gpu").out, seconds=_SECONDS)
    own.ok(own.bob, "create", "--gpus", "1", "busybox", "true")
    assert [device["held"] for device in devices(own, own.bob)] == [False, True]
    docker(engine, "rm", "-f", _NAME)
    assert eventually(lambda: names(own) == [None, None], seconds=_SECONDS)
    own.ok(own.alice, "create", "--gpus", "device=0", "busybox", "true")


def test_a_stopped_one_takes_its_device_when_it_starts(own: Lab, engine: Path) -> None:
    """Not before; what was leased meanwhile stays leased."""
    device = f'"device={simulate.gpu_uuid(1)}"'
    docker(engine, "create", *_OURS, "--gpus", device, "busybox", "sleep", "300")
    own.ok(own.alice, "create", "--name", "first", "--gpus", "device=1", "busybox", "true")
    own.ok(own.alice, "rm", "first")
    docker(engine, "start", _NAME)
    assert eventually(lambda: names(own) == [None, _NAME], seconds=_SECONDS)
    refused = own.docker(own.alice, "create", "--gpus", "device=1", "busybox", "true")
    assert "a container that ds01 did not make" in refused.err
    docker(engine, "stop", "-t", "0", _NAME)
    assert eventually(lambda: names(own) == [None, None], seconds=_SECONDS)
    own.ok(own.alice, "create", "--gpus", "device=1", "busybox", "true")
