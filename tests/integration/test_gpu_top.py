"""`ds01 gpu` on a real engine: whose each process is, and MIG split live beside a container that stays."""

from __future__ import annotations

import json
import pwd
import subprocess
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from lab import simulate
from tests.fakes.waiting import running
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(240)]
_SECONDS = 40


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """Two whole GPUs and one that is split; a policy that says how it is to be split."""
    spec = "2xa100-40,a100-40:3g.20gb+1g.5gb"
    with running_lab(f"{PREFIX}-gta", f"{PREFIX}-gtb", "--gpus", spec) as lab:
        yield lab


def told(lab: Lab, user: str, *words: str) -> Any:
    """What `ds01 gpu ... --json` says to a user."""
    done = lab.run(user, "ds01", "gpu", *words, "--json")
    assert done.out, done.err
    return json.loads(done.out)


def processes(lab: Lab, user: str) -> dict[int, dict[str, Any]]:
    return {one["pid"]: one for one in told(lab, user, "top")["processes"] or ()}


@contextmanager
def foreign_container(lab: Lab) -> Iterator[int]:
    """The pid of a container that root starts past ds01."""
    with engine_opened(lab, "tests of ds01 gpu top") as engine:
        docker = ("docker", "-H", f"unix://{engine}")
        made = (
            "run",
            "-d",
            "--runtime",
            "runc",
            "--network",
            "none",
            "--name",
            "foreign",
            "busybox",
            "sleep",
            "301",
        )
        subprocess.run([*docker, *made], check=True, capture_output=True)
        try:
            asked = (*docker, "inspect", "-f", "{{.State.Pid}}", "foreign")
            yield int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
        finally:
            subprocess.run([*docker, "rm", "-f", "foreign"], check=True, capture_output=True)


def test_each_process_is_told_by_whose_it_is(clean: Lab) -> None:
    """In a container, on the host, in a container that ds01 did not make, and just ended; users see their own."""
    lab, state = clean, clean.root / "lib" / "nvml"
    alice, bob = (pwd.getpwnam(user).pw_uid for user in (lab.alice, lab.bob))
    gpu = simulate.gpu_uuid(1)
    lab.ok(
        lab.alice, "run", "-d", "--name", "train", "--gpus", "1", "busybox", "/run/ds01-sim/job", "-m", "3000"
    )
    lab.ok(
        lab.bob,
        "run",
        "-d",
        "--name",
        "short",
        "--label",
        "ds01.gpu.profile=1g.5gb",
        "busybox",
        "/run/ds01-sim/job",
    )
    with foreign_container(lab) as foreign, running(*lab.command(lab.bob, "sleep", "300")) as host:
        try:
            simulate.add_process(state, foreign, gpu)
            simulate.add_process(state, host.pid, gpu)
            assert eventually(lambda: {foreign, host.pid} <= processes(lab, "root").keys(), seconds=_SECONDS)
            assert eventually(
                lambda: processes(lab, "root")[foreign]["container"] == "foreign", seconds=_SECONDS
            )
            found = processes(lab, "root")
            (train,) = (one for one in found.values() if one["container"] == "train")
            (short,) = (one for one in found.values() if one["container"] == "short")
            assert (train["kind"], train["owner_uid"], train["memory_mib"]) == ("container", alice, 3000)
            assert (short["owner_uid"], short["proof"]) == (bob, "container")
            assert (found[foreign]["kind"], found[foreign]["owner_uid"]) == ("container", None)
            assert (found[host.pid]["kind"], found[host.pid]["owner_uid"]) == ("user", bob)
            assert processes(lab, lab.alice).keys() == {train["pid"]}
            lab.ok(lab.bob, "rm", "-f", "short")
            assert eventually(
                lambda: bool(processes(lab, lab.bob)[short["pid"]]["ended_at"]), seconds=_SECONDS
            )
            ended = processes(lab, lab.bob)[short["pid"]]
            assert (ended["container"], ended["owner_uid"]) == ("short", bob)
            assert {one["pid"] for one in processes(lab, lab.alice).values()} == {train["pid"]}
        finally:
            for pid in (foreign, host.pid):
                simulate.remove_process(state, pid)


def test_a_container_off_its_lease_is_told_and_its_process_ended(clean: Lab) -> None:
    """Root reads whose it is, the holder of a MIG device that somebody is there; a free GPU counts as well. Policy ends that process alone."""
    lab, state = clean, clean.root / "lib" / "nvml"
    gpus = simulate.read_state(state)["gpus"]
    instance = gpus[2]["gis"][1]
    place = {"gi": instance["id"], "ci": instance["cis"][0]["id"]}
    part = simulate.mig_uuid(gpus[2]["uuid"], place["gi"], place["ci"])
    hold = ("run", "-d", "--name")
    lab.ok(lab.alice, *hold, "part", "--gpus", f"device={part}", "busybox", "sleep", "300")
    busy = "sleep 300 & wait; sleep 301"
    lab.ok(lab.bob, *hold, "intruder", "--gpus", "device=1", "busybox", "sh", "-c", busy)
    listed = (line.split() for line in lab.ok(lab.bob, "top", "intruder", "-eo", "pid,args").splitlines())
    (pid,) = (int(words[0]) for words in listed if words[1:] == ["sleep", "300"])
    policy = lab.root / "etc" / "policy.yaml"
    text = policy.read_text()
    try:
        simulate.add_process(state, pid, gpus[0]["uuid"])
        simulate.add_process(state, pid, gpus[2]["uuid"], **place)
        simulate.add_process(state, pid, gpus[1]["uuid"])
        assert eventually(lambda: len(_reported(lab, pid)) == 2, seconds=_SECONDS)
        lines = {line["device"]: line for line in _reported(lab, pid)}
        assert lines.keys() == {gpus[0]["uuid"], part}
        alice, bob = (pwd.getpwnam(user).pw_uid for user in (lab.alice, lab.bob))
        assert {line["uid"] for line in lines.values()} == {bob}
        assert (lines[part]["holder_uid"], lines[gpus[0]["uuid"]]["holder_uid"]) == (alice, None)
        for user in ("root", lab.bob):
            shown = [one for one in told(lab, user, "top")["processes"] if one["pid"] == pid]
            marks = {one["device"]: one["leased"] for one in shown}
            assert marks == {gpus[0]["uuid"]: False, part: False, gpus[1]["uuid"]: True}
        assert "NOT LEASED" in lab.run("root", "ds01", "gpu", "top").out
        assert pid not in processes(lab, lab.alice)
        table = lab.run(lab.alice, "ds01", "gpu").out
        assert "not yours was seen on MIG device 2:1" in table
        assert lab.bob not in table
        assert "not yours" not in lab.run(lab.bob, "ds01", "gpu").out
        assert text.count("  unleased: report\n  grace: 10m\n") == 1
        policy.write_text(
            text.replace("  unleased: report\n  grace: 10m\n", "  unleased: stop\n  grace: 1s\n")
        )
        assert eventually(lambda: not Path(f"/proc/{pid}").exists(), seconds=90)
        assert lab.ok(lab.bob, "ps", "--format", "{{.Names}}").split() == ["intruder"]
    finally:
        policy.write_text(text)
        simulate.remove_process(state, pid)


def test_what_ds01_did_not_make_is_told_on_anothers_device(clean: Lab) -> None:
    """Not on a free one, which it takes; it is nobody's, and the holder reads that somebody is there."""
    lab, state = clean, clean.root / "lib" / "nvml"
    lab.ok(lab.alice, "run", "-d", "--gpus", "device=0", "busybox", "sleep", "300")
    leased, free = simulate.gpu_uuid(0), simulate.gpu_uuid(1)
    with foreign_container(lab) as pid:
        try:
            simulate.add_process(state, pid, leased)
            simulate.add_process(state, pid, free)
            assert eventually(lambda: bool(_reported(lab, pid)), seconds=_SECONDS)
            (line,) = _reported(lab, pid)
            alice = pwd.getpwnam(lab.alice).pw_uid
            assert (line["device"], line["uid"], line["holder_uid"]) == (leased, None, alice)
            shown = [one for one in told(lab, "root", "top")["processes"] if one["pid"] == pid]
            assert {one["device"]: one["leased"] for one in shown} == {leased: False, free: None}
            assert "not yours was seen on GPU 0" in lab.run(lab.alice, "ds01", "gpu").out
        finally:
            simulate.remove_process(state, pid)


def _reported(lab: Lab, pid: int) -> list[dict[str, Any]]:
    """What the allocator's log has of a process that is where its container has no lease."""
    lines = (json.loads(line) for line in (lab.root / "log" / "allocator.log").read_text().splitlines())
    return [line for line in lines if line["event"] == "unleased_process.reported" and line["pid"] == pid]


def test_the_table_says_who_has_what_to_whom_it_may(clean: Lab) -> None:
    """The holder sees the device as its own, another that it is in use, root by whom."""
    lab = clean
    lab.ok(lab.alice, "run", "-d", "--gpus", "1", "busybox", "/run/ds01-sim/job")

    def held(user: str) -> list[str | None]:
        return [device["holder"] for device in told(lab, user)["devices"] if device["held"]]

    assert eventually(lambda: held("root") == [lab.alice], seconds=_SECONDS)
    assert held(lab.alice) == [lab.alice]
    assert held(lab.bob) == [None]
    shown = lab.run(lab.bob, "ds01", "gpu").out
    assert lab.alice not in shown
    assert "in use" in shown


def test_a_gpu_is_split_beside_a_container_that_keeps_its_part(clean: Lab) -> None:
    """Neither a running nor a stopped container loses its device; what is new can be had at once."""
    lab = clean
    policy = lab.root / "etc" / "policy.yaml"
    text = policy.read_text()
    layout = "[{gpus: [2], profiles: {3g.20gb: 1, 1g.5gb: 3}}]"
    policy.write_text(text.replace("  mig: []", f"  mig: {layout}"))
    assert "mig: [{" in policy.read_text()
    try:
        lab.ok(
            lab.alice,
            "run",
            "-d",
            "--name",
            "kept",
            "--label",
            "ds01.gpu.profile=1g.5gb",
            "busybox",
            "sleep",
            "300",
        )
        (mine,) = _visible(lab, "kept")
        lab.ok(lab.alice, "stop", "-t", "0", "kept")
        plan = told(lab, "root", "mig", "plan")["plans"][0]
        assert [step["do"] for step in plan["steps"]] == ["create", "create"]
        outcome = told(lab, "root", "mig", "apply")["outcomes"][0]
        assert (outcome["done"], outcome["problem"]) == (2, None)
        refused = lab.run(lab.bob, "ds01", "gpu", "mig", "apply")
        assert refused.status == 1, refused
        assert eventually(lambda: _profiles(lab).count("1g.5gb") == 3, seconds=_SECONDS)
        out = lab.ok(
            lab.bob,
            "run",
            "--rm",
            "--label",
            "ds01.gpu.profile=1g.5gb",
            "busybox",
            "cat",
            "/run/ds01-sim/visible",
        )
        assert out.startswith("MIG-")
        assert out != mine
        lab.ok(lab.alice, "start", "kept")
        assert _visible(lab, "kept") == [mine]
        # The other way round: nothing of the layout, and the part that is held stays.
        policy.write_text(text.replace("  mig: []", "  mig: [{gpus: [2], profiles: {}}]"))
        outcome = told(lab, "root", "mig", "apply")["outcomes"][0]
        assert outcome["done"] == 3
        assert f"of {lab.alice}" in outcome["plan"]["kept"][0]
        assert eventually(lambda: _profiles(lab).count("1g.5gb") == 1, seconds=_SECONDS)
    finally:
        policy.write_text(text)


def _visible(lab: Lab, container: str) -> list[str]:
    return lab.ok(lab.alice, "exec", container, "cat", "/run/ds01-sim/visible").split()


def _profiles(lab: Lab) -> list[str]:
    return [device["profile"] for device in told(lab, "root")["devices"] if device["kind"] == "mig"]
