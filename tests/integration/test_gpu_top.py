"""`ds01 gpu` on a real engine: whose each process is, and MIG split live beside a container that stays."""

from __future__ import annotations

import json
import pwd
import subprocess
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


@pytest.fixture
def clean(own: Lab) -> Iterator[Lab]:
    own.clean()
    yield own
    own.clean()


def told(lab: Lab, user: str, *words: str) -> Any:
    """What `ds01 gpu ... --json` says to a user."""
    done = lab.run(user, "ds01", "gpu", *words, "--json")
    assert done.out, done.err
    return json.loads(done.out)


def processes(lab: Lab, user: str) -> dict[int, dict[str, Any]]:
    return {one["pid"]: one for one in told(lab, user, "top")["processes"]}


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
    with (
        engine_opened(lab, "tests of ds01 gpu top") as engine,
        running(*lab.command(lab.bob, "sleep", "300")) as host,
    ):
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
            foreign = int(subprocess.run(asked, check=True, capture_output=True, text=True).stdout)
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
            subprocess.run([*docker, "rm", "-f", "foreign"], check=True, capture_output=True)


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
