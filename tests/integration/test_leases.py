"""GPUs on a real engine: sizes by label, the states of a lease, the queue across a restart, reservations of the policy."""

from __future__ import annotations

import http.client
import json
import re
import socket
import subprocess
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from lab import unix_http
from tests.integration.conftest import PREFIX, Lab, eventually, running_lab
from tests.integration.holders import devices_of
from tests.integration.test_chaos import _containers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(150)]

_EVIDENCE_SECONDS = 75  # two reports, and what the first took


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """One whole GPU and one in seven parts."""
    with running_lab(f"{PREFIX}-lea", f"{PREFIX}-leb", "--gpus", "a100-40,a100-40:7x1g.5gb") as running:
        _policy(running)
        yield running


def _policy(lab: Lab) -> None:
    """Give both users two GPUs, and the first a group of its own; wait until the proxy has it."""
    text = (
        "version: 1\n"
        f"groups:\n  all: {{members: [{lab.alice}, {lab.bob}], limits: {{gpus: 2, containers: 50}}}}\n"
        f"  course: {{members: [{lab.alice}]}}\n"
    )
    (lab.root / "etc" / "policy.d").mkdir(exist_ok=True)
    _write(lab, lab.root / "etc" / "policy.d" / "leases.yaml", text)


def _write(lab: Lab, path: Path, text: str) -> None:
    before = lab.log("proxy").count("policy.loaded")
    path.write_text(text)
    path.chmod(0o644)
    assert eventually(lambda: lab.log("proxy").count("policy.loaded") > before, seconds=10), lab.log("proxy")[
        -600:
    ]


def _asked(lab: Lab, path: str) -> Any:
    """What the allocator answers root."""
    connection = http.client.HTTPConnection("allocator", timeout=10)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(lab.root / "run" / "allocator.sock"))
    connection.request("GET", path)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    return answer


def _states(lab: Lab) -> list[str]:
    return [lease["state"] for lease in _asked(lab, "/v1/leases")]


@pytest.mark.parametrize(
    ("flags", "device"),
    [
        (["--label", "ds01.gpu.profile=1g.5gb"], "MIG-"),
        (["--gpus", "1", "--label", "ds01.gpu.profile=any"], "MIG-"),
        (["--label", "ds01.gpu.memory=20GiB"], "GPU-"),
        (["--gpus", "all", "--label", "ds01.gpu.profile=full"], "GPU-"),
    ],
)
def test_a_label_says_the_size(clean: Lab, flags: list[str], device: str) -> None:
    """The container has one device of that size, and no label of the wish."""
    name = "sized"
    clean.ok(clean.alice, "create", "--name", name, *flags, "busybox", "true")
    made = json.loads(clean.ok(clean.alice, "inspect", name))[0]
    (request,) = made["HostConfig"]["DeviceRequests"]
    (given,) = request["DeviceIDs"]  # a CDI name where the engine has CDI
    assert given.removeprefix("nvidia.com/gpu=").startswith(device)
    assert not [label for label in made["Config"]["Labels"] or {} if label.startswith("ds01.gpu.")]


# How each is spelled, and what it is to be: a number of devices, or their indices. {…} is the UUID of an index.
SPELLINGS: dict[str, int | set[str]] = {
    "": 0,
    "-e NVIDIA_VISIBLE_DEVICES=all": 0,
    "--gpus 1": 1,
    "--gpus 2": 2,
    "--gpus all": 1,
    "--gpus device=0": {"0"},
    "--gpus device={0}": {"0"},
    """--gpus "device=1:0,1:3\"""": {"1:0", "1:3"},
    "--gpus device={1:5}": {"1:5"},
    "--runtime nvidia": 1,
    "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=all": 1,
    "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=void": 0,
    "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES=1:1,1:2": {"1:1", "1:2"},
    "--runtime nvidia -e NVIDIA_VISIBLE_DEVICES={0}": {"0"},
    "--device /dev/nvidia0": {"0"},
    "--device nvidia.com/gpu=0": {"0"},
    "--device nvidia.com/gpu=1:6": {"1:6"},
    "--device nvidia.com/gpu={1:2}": {"1:2"},
    "--device nvidia.com/gpu=all": 1,
    "--label ds01.gpu.profile=1g.5gb": 1,
}


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_exactly_the_leased_devices_are_inside(clean: Lab, spelling: str) -> None:
    """Those of the lease by UUID, and no other, whatever the spelling; the engine was told the same."""
    uuids = {one["index"]: one["uuid"] for one in _asked(clean, "/v1/inventory")["devices"]}
    flags = re.sub(r"\{(.+?)\}", lambda found: uuids[found[1]], spelling).split()
    clean.ok(clean.bob, "run", "-d", "--name", "beside", "--gpus", "device=1:4", "busybox", "sleep", "600")
    box = clean.ok(clean.alice, "run", "-d", "--name", "has", *flags, "busybox", "sleep", "600")
    leased = {
        device
        for lease in _asked(clean, "/v1/leases")
        if lease["container_id"] == box
        for device in lease["devices"]
    }
    wanted = SPELLINGS[spelling]
    assert len(leased) == wanted if isinstance(wanted, int) else leased == {uuids[index] for index in wanted}
    seen = (
        "cat /run/ds01-sim/visible 2>/dev/null; ls /dev | grep '^nvidia[0-9]'; echo $NVIDIA_VISIBLE_DEVICES"
    )
    *inside, setting = clean.ok(clean.alice, "exec", "has", "sh", "-c", seen).split()
    index_of = {uuid: index for index, uuid in uuids.items()}
    nodes = {f"nvidia{index_of[uuid].partition(':')[0]}" for uuid in leased}
    assert sorted(inside) == sorted(leased | nodes)
    (made,) = (one for one in _containers(clean) if one["Id"] == box)
    assert set(devices_of(made)) == leased
    assert set(setting.split(",")) in ([{"void"}, leased] if leased else [{"void"}])


def test_a_lease_follows_its_container(clean: Lab) -> None:
    """Bound when created, active from its start on, held once it has stopped, and gone with it."""
    clean.ok(clean.alice, "create", "--name", "state", "--gpus", "1", "busybox", "sleep", "60")
    assert _states(clean) == ["bound"]
    clean.ok(clean.alice, "start", "state")
    assert _states(clean) == ["active"]
    clean.ok(clean.alice, "kill", "state")
    assert eventually(lambda: _states(clean) == ["held"], seconds=_EVIDENCE_SECONDS)
    clean.ok(clean.alice, "start", "state")
    assert _states(clean) == ["active"]
    clean.ok(clean.alice, "rm", "-f", "state")
    assert eventually(lambda: _states(clean) == [], seconds=10)


def test_who_waits_in_vain_is_told_why(clean: Lab) -> None:
    """Who holds what, whether it ends, the position, and what helps."""
    clean.ok(clean.alice, "create", "--gpus", "device=0", "busybox", "true")
    refused = clean.docker(
        clean.bob, "create", "--label", "ds01.gpu.profile=full", "--label", "ds01.wait=1s", "busybox", "true"
    )
    assert refused.status != 0
    assert f"held by {clean.alice} (1 GPU); none of it has a time limit" in refused.err
    assert "see ds01 gpu queue" in refused.err
    assert "at position 1 of 1" in refused.err


def test_a_wait_outlives_the_allocator(clean: Lab) -> None:
    """A create that waits gets the GPU when its holder is gone, though the allocator was killed meanwhile."""
    clean.ok(clean.alice, "create", "--name", "holder", "--gpus", "device=0", "busybox", "true")
    flags = ["--label", "ds01.gpu.profile=full", "--label", "ds01.wait=90s"]
    waiting = subprocess.Popen(
        clean.command(clean.bob, "docker", "create", *flags, "busybox", "true"),
        env=clean.environment(clean.bob),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert eventually(lambda: len(_asked(clean, "/v1/queue")["waiting"]) == 1, seconds=20)
    before = clean.pid("allocator")
    clean.kill("allocator")
    assert eventually(lambda: clean.pid("allocator") != before, seconds=20)

    def waits_again() -> bool:
        try:
            return len(_asked(clean, "/v1/queue").get("waiting", ())) == 1
        except OSError:
            return False

    assert eventually(waits_again, seconds=20)
    clean.ok(clean.alice, "rm", "holder")
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert len(out.strip()) == 64


def test_a_reservation_of_the_policy_is_honoured(clean: Lab) -> None:
    """Its group gets the GPU, others learn that it is kept; a container that ends before would have fitted."""
    path = clean.root / "etc" / "policy.yaml"
    plain = path.read_text()
    reserved = 'reservations: [{for: course, gpus: 1, when: "daily 00:00-24:00"}]'
    _write(clean, path, plain.replace("reservations: []", reserved))
    try:
        assert eventually(lambda: _asked(clean, "/v1/reservations")["reservations"] != [], seconds=40)
        refused = clean.docker(clean.bob, "create", "--label", "ds01.gpu.profile=full", "busybox", "true")
        assert refused.status != 0
        assert "kept for a reservation" in refused.err
        assert _asked(clean, "/v1/queue")["reservations"][0]["running"]
        clean.ok(clean.bob, "create", "--label", "ds01.gpu.profile=1g.5gb", "busybox", "true")
        clean.ok(clean.alice, "create", "--label", "ds01.gpu.profile=full", "busybox", "true")
    finally:
        _write(clean, path, plain)


def test_what_runs_keeps_its_gpu_when_the_ledger_is_lost(clean: Lab) -> None:
    """A ledger that cannot be read is set aside; what runs on its leases is nobody else's until it has stopped.

    The steps are those of docs/operating.md.
    """
    clean.ok(clean.alice, "run", "-d", "--name", "runs", "--gpus", "device=0", "busybox", "sleep", "600")
    ledger = clean.root / "lib" / "allocator" / "ledger.sqlite"
    failed = clean.log("allocator").count("daemon.failed")
    clean.kill("allocator")
    for part in (ledger, ledger.with_name(f"{ledger.name}-wal")):
        part.write_bytes(b"no ledger " * 1000)
    assert eventually(lambda: clean.log("allocator").count("daemon.failed") > failed + 1, seconds=30)
    aside = ledger.parent.with_name("ledger-aside")
    aside.mkdir()
    for part in ledger.parent.glob(f"{ledger.name}*"):
        part.rename(aside / part.name)
    clean.kill("proxy")

    def is_foreign() -> bool:
        try:
            told = _asked(clean, "/v1/foreign")["containers"]
        except (OSError, KeyError, ValueError):
            return False
        return [one["container"] for one in told] == ["runs"]

    assert eventually(is_foreign, seconds=45), clean.log("allocator")[-600:]
    assert _states(clean) == []
    refused = clean.docker(clean.bob, "create", "--gpus", "device=0", "busybox", "true")
    assert "GPU 0 is used by a container" in refused.err
    assert "does not have" in clean.log("allocator")
    assert clean.ok(clean.alice, "inspect", "-f", "{{.State.Running}}", "runs") == "true"
    again = clean.docker(clean.alice, "restart", "-t", "0", "runs")
    assert "GPU lease" in again.err
    clean.ok(clean.alice, "rm", "-f", "runs")

    def is_free() -> bool:
        return clean.docker(clean.bob, "create", "--gpus", "device=0", "busybox", "true").status == 0

    assert eventually(is_free, seconds=45)


def test_labels_of_a_removed_container_bring_nothing_back(clean: Lab) -> None:
    """Given to a step of a build by LABEL: the step is nobody's, and the lease stays over."""
    container = clean.ok(clean.alice, "create", "--gpus", "1", "busybox", "true")
    labels = json.loads(clean.ok(clean.alice, "inspect", "-f", "{{json .Config.Labels}}", container))
    assert labels["ds01.seal"]
    clean.ok(clean.alice, "rm", container)
    assert _states(clean) == []
    lines = [f"LABEL {name}={json.dumps(text)}" for name, text in sorted(labels.items())]
    dockerfile = "\n".join(["FROM busybox", *lines, "RUN sleep 35", ""])
    with ThreadPoolExecutor() as pool:
        building = pool.submit(clean.docker, clean.alice, "build", "--rm=false", "-", stdin=dockerfile)
        admin = clean.root / "run" / "admin.sock"

        def steps() -> list[Any]:
            return list(json.loads(unix_http.call(admin, "GET", "/containers/json").body))

        assert eventually(lambda: len(steps()) == 1 or building.done(), seconds=20)
        assert not building.done(), building.result()
        assert steps()[0]["Labels"]["ds01.seal"] == labels["ds01.seal"]
        assert clean.ok(clean.alice, "ps", "-aq") == ""
        assert "No such container" in clean.docker(clean.alice, "exec", steps()[0]["Id"], "true").err
        built = building.result()  # evidence comes every 30 s
    assert built.status == 0, built
    assert _states(clean) == []
    assert json.loads(unix_http.call(admin, "GET", "/containers/json?all=1").body) == []
