"""A container that root makes past ds01 on a real engine: nobody is leased what it has, until it is gone or an admin gives it to
its owner.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import simulate
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def docker(engine: Path, *words: str, check: bool = True) -> str:
    """Root's docker CLI on dockerd's own socket."""
    command = ("docker", "-H", f"unix://{engine}", *words)
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=60).stdout.strip()


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


def test_a_new_allocator_leases_nothing_that_it_does_not_know_of(own: Lab, engine: Path) -> None:
    """The first create after a crash is told no, and is not merely early: a device that is free is given at once."""
    device = f'"device={simulate.gpu_uuid(0)}"'
    docker(engine, "run", "-d", *_OURS, "--gpus", device, "busybox", "sleep", "300")
    assert eventually(lambda: names(own) == [_NAME, None], seconds=_SECONDS)
    for number in range(3):
        before = own.pid("allocator")
        own.kill("allocator")
        assert eventually(lambda: own.pid("allocator") != before, seconds=_SECONDS)  # noqa: B023  called in this round
        taken = own.docker(own.alice, "create", "--gpus", "device=0", "busybox", "true")
        assert taken.status != 0
        free = ("create", "--name", f"free{number}", "--gpus", "device=1", "busybox", "true")
        assert eventually(lambda: own.docker(own.bob, *free).status == 0, seconds=10)  # noqa: B023  as above
        own.ok(own.bob, "rm", f"free{number}")
        # A crash before the allocator has heard of this would be another test: the evidence of the next half minute ends it.
        assert eventually(lambda: not any(one["held"] for one in devices(own, own.bob)), seconds=_SECONDS)


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


def ds01(lab: Lab, *words: str) -> str:
    """As root, by the front door."""
    done = lab.run("root", "ds01", *words, host=lab.front_door)
    assert done.status == 0, done.err
    return done.out


def denied(lab: Lab, user: str, *words: str) -> None:
    """By the rule, in words that say how to go on."""
    done = lab.docker(user, *words)
    assert done.status != 0, words
    # Of a refused upgrade the CLI shows the status alone.
    said = ("received 403",) if words[0] == "attach" else ("(rule adopted)", "docker commit")
    assert all(part in done.err for part in said), (words, done.err)


def test_an_adopted_container_is_its_owners(own: Lab, engine: Path) -> None:
    """Seen, entered, saved, stopped and removed by its plain name, with its GPU counted as the owner's until then."""
    device = f'"device={simulate.gpu_uuid(0)}"'
    docker(
        engine,
        "run",
        "-d",
        *_OURS,
        "--label",
        f"aime.mlc={own.alice}",
        "--gpus",
        device,
        "busybox",
        "sleep",
        "300",
    )
    assert eventually(lambda: f"adopt {_NAME} --owner {own.alice}" in ds01(own, "adopt"), seconds=_SECONDS)
    assert own.run(own.alice, "ds01", "adopt", _NAME, "--owner", own.alice).status != 0
    assert _NAME not in own.ok(own.alice, "ps", "-a")
    said = ds01(own, "adopt", _NAME, "--owner", own.alice)
    assert f"{_NAME} is {own.alice}'s" in said
    assert "no program" not in said
    assert own.ok(own.alice, "ps", "--format", "{{.Names}}") == _NAME
    assert _NAME not in own.ok(own.bob, "ps", "-a")
    assert own.docker(own.bob, "logs", _NAME).err.strip().endswith(f"No such container: {_NAME}")
    assert own.ok(own.alice, "exec", _NAME, "echo", "inside") == "inside"
    for words in (
        ("restart", _NAME),
        ("start", _NAME),
        ("cp", f"{_NAME}:/etc/passwd", "-"),
        ("update", "--cpus", "1", _NAME),
        ("run", "--rm", "--pid", f"container:{_NAME}", "busybox", "true"),
        ("run", "--rm", "--volumes-from", _NAME, "busybox", "true"),
    ):
        denied(own, own.alice, *words)
    assert [(one["holder"], one["held"]) for one in devices(own, own.alice)] == [
        (own.alice, True),
        (None, False),
    ]
    own.ok(own.alice, "commit", _NAME, "saved")
    own.ok(own.alice, "stop", "-t", "0", _NAME)
    own.ok(own.alice, "rm", _NAME)
    given = ("create", "--gpus", "device=0", "busybox", "true")
    assert eventually(lambda: own.docker(own.bob, *given).status == 0, seconds=_SECONDS)
    assert own.ok(own.alice, "run", "--rm", "--network", "none", "saved", "echo", "again") == "again"


def test_it_is_its_owners_after_a_restart_and_nobodys_when_taken_back(own: Lab, engine: Path) -> None:
    """What its owner reads meanwhile ends, and its GPU stays taken: it runs on."""
    device = f'"device={simulate.gpu_uuid(1)}"'
    loop = "while true; do echo tick; sleep 0.2; done"
    docker(engine, "run", "-d", *_OURS, "--restart", "always", "--gpus", device, "busybox", "sh", "-c", loop)
    assert eventually(lambda: names(own) == [None, _NAME], seconds=_SECONDS)
    ds01(own, "adopt", _NAME, "--owner", own.alice)
    own.kill("proxy")
    assert eventually(lambda: _NAME in own.docker(own.alice, "ps").out, seconds=_SECONDS)
    with subprocess.Popen(
        own.command(own.alice, "docker", "logs", "-f", _NAME),
        env=own.environment(own.alice),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as reading:
        assert reading.stdout is not None
        assert reading.stdout.readline() == b"tick\n"
        ds01(own, "unadopt", _NAME)
        reading.communicate(timeout=20)
    assert _NAME not in own.ok(own.alice, "ps", "-a")
    assert own.docker(own.alice, "rm", "-f", _NAME).err.strip().endswith(f"No such container: {_NAME}")
    assert eventually(lambda: names(own) == [None, _NAME], seconds=_SECONDS)
    refused = own.docker(own.alice, "create", "--gpus", "device=1", "busybox", "true")
    assert "a container that ds01 did not make" in refused.err


def test_what_mounts_its_owners_paths_is_entered_in_one_run_alone(own: Lab, engine: Path) -> None:
    """A later start would follow whatever link is there by then; so where a restart policy would start it, not at all."""
    work = Path("/home") / own.alice / "work"
    own.run(own.alice, "mkdir", str(work))
    policy = own.root / "etc" / "policy.d" / "homes.yaml"
    policy.parent.mkdir(exist_ok=True)
    policy.write_text('defaults: {allow: {binds: [{path: "~", setuid_ok: true}]}}\n')
    policy.chmod(0o644)
    mounting = (*_OURS, "-v", f"{work}:/mine")
    try:
        docker(engine, "run", "-d", *mounting, "--restart", "always", "busybox", "sleep", "300")
        assert eventually(lambda: _NAME in ds01(own, "adopt"), seconds=_SECONDS)
        assert eventually(lambda: "restart policy" in _adopted_anew(own), seconds=_SECONDS)
        denied(own, own.alice, "exec", _NAME, "ls", "/mine")
        own.ok(own.alice, "rm", "-f", _NAME)

        docker(engine, "run", "-d", *mounting, "busybox", "sleep", "300")
        assert eventually(lambda: "no program" not in _adopted_anew(own), seconds=_SECONDS)
        assert own.ok(own.alice, "exec", _NAME, "ls", "/mine") == ""
        own.run(own.alice, "rmdir", str(work))
        own.run(own.alice, "ln", "-s", "/etc", str(work))
        docker(engine, "restart", "-t", "0", _NAME)  # root, past ds01
        for _ in range(3):
            refused = own.docker(own.alice, "exec", _NAME, "cat", "/mine/shadow")
            assert "(rule adopted)" in refused.err
            assert "root:" not in refused.out
        assert "no program" in _adopted_anew(own)
    finally:
        policy.unlink()
        own.run(own.alice, "rm", "-rf", str(work))


def _adopted_anew(lab: Lab) -> str:
    """What is said of it now."""
    lab.run("root", "ds01", "unadopt", _NAME, host=lab.front_door)
    return ds01(lab, "adopt", _NAME, "--owner", lab.alice)


def test_a_container_that_its_owner_could_not_have_is_closed(own: Lab, engine: Path) -> None:
    """It mounts what is not the owner's: they see and stop it, and run nothing in it."""
    docker(engine, "run", "-d", *_OURS, "-v", "/etc:/host", "--pid", "host", "busybox", "sleep", "300")
    assert eventually(lambda: _NAME in ds01(own, "adopt"), seconds=_SECONDS)
    said = ds01(own, "adopt", _NAME, "--owner", own.alice)
    assert "HostConfig.PidMode=host (rule namespaces)" in said
    assert "HostConfig.Mounts=/etc (rule mounts)" in said
    for words in (
        ("exec", _NAME, "cat", "/host/shadow"),
        ("attach", _NAME),
        ("cp", f"{_NAME}:/host/shadow", "-"),
    ):
        denied(own, own.alice, *words)
    assert "/host/shadow" not in own.ok(own.alice, "diff", _NAME)
    own.ok(own.alice, "rm", "-f", _NAME)


@pytest.fixture
def policy(own: Lab) -> Iterator[Path]:
    """The policy in force; as it was, afterwards."""
    path = own.root / "etc" / "policy.yaml"
    before = path.read_text()
    yield path
    path.write_text(before)


def test_a_monitor_that_policy_names_takes_none(own: Lab, engine: Path, policy: Path) -> None:
    """With all GPUs, by its name and its image's id; what it computes on is busy, and a user's of that name is another's."""
    docker(engine, "run", "-d", *_OURS, "--gpus", "all", "busybox", "sleep", "300")
    assert eventually(lambda: names(own) == [_NAME, _NAME], seconds=_SECONDS)
    pid = int(docker(engine, "inspect", "-f", "{{.State.Pid}}", _NAME))
    admin = f"unix://{own.root}/run/admin.sock"
    image = own.docker("root", "inspect", "-f", "{{.Image}}", _NAME, host=admin).out.strip()
    named = f'  monitors: [{{container: {_NAME}, image: "{image}"}}]'
    policy.write_text(policy.read_text().replace("  monitors: []", named))
    shown = own.run("root", "ds01", "policy", "check")
    assert f"monitor {_NAME}" in shown.out, shown.err
    assert eventually(lambda: names(own) == [None, None], seconds=_SECONDS)
    assert f"container {_NAME}: ds01 did not make it; it takes no GPU" in own.run("root", "ds01", "gpu").out
    state = own.root / "lib" / "nvml"
    simulate.add_process(state, pid, simulate.gpu_uuid(0))
    try:
        assert eventually(lambda: devices(own, own.bob)[0]["in_use"] is True, seconds=_SECONDS)
        top = ("root", "ds01", "gpu", "top", "--json")
        assert eventually(lambda: f'"pid": {pid}' in own.run(*top).out, seconds=_SECONDS)
        refused = own.docker(own.bob, "create", "--gpus", "device=0", "busybox", "true")
        assert f"used by process {pid}" in refused.err
    finally:
        simulate.remove_process(state, pid)
    assert eventually(lambda: devices(own, own.bob)[0]["in_use"] is False, seconds=_SECONDS)
    own.ok(own.alice, "create", "--name", _NAME, "--gpus", "device=1", "busybox", "true")
    assert [device["held"] for device in devices(own, own.bob)] == [False, True]
    docker(engine, "rename", _NAME, "other")
    docker(engine, "restart", "-t", "0", "other")
    assert eventually(lambda: names(own) == ["other", "other"], seconds=_SECONDS)
    docker(engine, "rm", "-f", "other")
