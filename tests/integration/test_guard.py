"""The guard under a real dockerd: what is mounted in the end, whoever starts the container and whatever is swapped meanwhile.

Starts are asked of dockerd itself where the proxy's own look would get in the way: restart policies and the boot ask nobody.
DS01_SWAP_ROUNDS sets the length of the race (script/attack: 2,000).
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from host.tree import Tree
from lab import unix_http
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab

if TYPE_CHECKING:
    from collections.abc import Iterator

    from lab.unix_http import Reply

ROUNDS = int(os.environ.get("DS01_SWAP_ROUNDS", "200"))
pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(600 + 2 * ROUNDS)]

CONTROL_ROUNDS = 60
AT_ONCE = 4
# What is mounted in the end: the file that is there, and the kernel's word on what the mount is of.
LOOK = ["sh", "-c", "echo $(cat /d/marker) $(grep ' /d ' /proc/self/mountinfo)"]
SWAPPER = """
import ctypes, random, sys, time
libc, pairs = ctypes.CDLL(None), [(a.encode(), b.encode()) for a, b in zip(sys.argv[1::2], sys.argv[2::2])]
while True:
    for a, b in pairs:
        libc.renameat2(-100, a, -100, b, 2)  # RENAME_EXCHANGE
    until = time.monotonic() + random.choice((0, 0.0002, 0.002, 0.02)) * random.random()
    while time.monotonic() < until:
        pass
"""


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose daemons these tests stop and kill."""
    with running_lab(f"{PREFIX}-gua", f"{PREFIX}-gub", "--gpus", "2xa100-40") as running:
        yield running


@pytest.fixture(autouse=True)
def clean(own: Lab) -> Iterator[None]:
    yield
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    own.clean()


@pytest.fixture
def engine(own: Lab) -> Iterator[Path]:
    """dockerd's own socket, which root has opened for a while."""
    with engine_opened(own, "tests of the guard") as opened:
        yield opened


@pytest.fixture
def field(own: Lab) -> Iterator[Field]:
    made = Field(own)
    yield made
    made.remove()


class Field:
    """Alice's directories, and a secret of root's with the same names in it."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = Path("/home", lab.alice)
        self.parent = self.home / "field"
        self.source = self.parent / "d"
        self.secret = lab.root / "lib" / "proxy" / "secret"  # mode 0700, root's
        for path, word in ((self.source, "mine"), (self.secret / "d", "secret"), (self.secret, "secret")):
            path.mkdir(parents=True, exist_ok=True)
            (path / "marker").write_text(f"{word}\n")
        self.leaf = self.parent / "leaf"
        self.leaf.symlink_to(self.secret)
        self.above = self.home / "above"
        self.above.symlink_to(self.secret)
        subprocess.run(["chown", "-hR", f"{lab.alice}:", self.parent, self.above], check=True)

    def remove(self) -> None:
        subprocess.run(["rm", "-rf", self.parent, self.above, self.secret], check=True)

    @contextlib.contextmanager
    def swapping(self) -> Iterator[None]:
        """Somebody with alice's rights who swaps the source, and its parent, for links to the secret, all the time."""
        pairs = [self.source, self.leaf, self.parent, self.above]
        command = self.lab.command(self.lab.alice, "/usr/bin/python3", "-c", SWAPPER, *map(str, pairs))
        with subprocess.Popen(command) as swapper:
            try:
                yield
            finally:
                swapper.kill()
        # Everything back where it was: the pairs may have ended in any order.
        for a, b in ((self.parent, self.above), (self.source, self.leaf)):
            if a.is_symlink():
                a.unlink()
                b.rename(a)
                b.symlink_to(self.secret)


def call(engine: Path, method: str, target: str, body: Any = None) -> Reply:
    content = None if body is None else json.dumps(body).encode()
    return unix_http.call(engine, method, f"/v1.41{target}", content, timeout_seconds=60)


@dataclass(frozen=True)
class Outcome:
    """What came of many starts: by what was mounted, or by the sentence of the refusal."""

    shown: list[str]
    refused: list[str]


def race(engine: Path, containers: list[str], rounds: int) -> Outcome:
    """Start each container again and again. Returns: what each start showed."""
    refused: list[str] = []

    def run(container: str) -> None:
        for _ in range(rounds // len(containers)):
            started = call(engine, "POST", f"/containers/{container}/start")
            if started.status == 204:
                call(engine, "POST", f"/containers/{container}/wait")
            else:
                refused.append(json.loads(started.body)["message"])

    with ThreadPoolExecutor(len(containers)) as threads:
        list(threads.map(run, containers))
    logs = [call(engine, "GET", f"/containers/{each}/logs?stdout=1&stderr=1").body for each in containers]
    lines = [line.decode(errors="replace") for log in logs for line in log.splitlines()]
    return Outcome(shown=lines, refused=refused)


def leaks(outcome: Outcome) -> list[str]:
    return [line for line in outcome.shown if "secret" in line]


def test_a_source_that_is_swapped_all_the_time_is_never_another(own: Lab, engine: Path, field: Field) -> None:
    """Alice swaps her directory, and the one above it, for links to root's while her containers start."""
    made = [own.ok(own.alice, "create", "-v", f"{field.source}:/d", "busybox", *LOOK) for _ in range(AT_ONCE)]
    with field.swapping():
        outcome = race(engine, made, ROUNDS)
    assert leaks(outcome) == []
    # The race was one: some starts were in time, some were not, and each of those says so.
    mine = [line for line in outcome.shown if "mine" in line]
    assert mine
    assert all(re.search(r"/(field|above)/(d|leaf) /d ", line) for line in mine), mine[0]
    assert outcome.refused
    assert all("ds01: " in each or "no such file" in each.lower() for each in outcome.refused)
    assert any(
        "leads elsewhere now: there is a symbolic link in it (rule bind_mounts)" in each
        for each in outcome.refused
    )
    print(f"{len(mine)} mounted alice's own, {len(outcome.refused)} refused, 0 leaked")


def test_the_same_race_under_plain_runc_leaks(own: Lab, engine: Path, field: Field) -> None:
    """The control: the swap is quick enough, so that the test above could fail."""
    body = {
        "Image": "busybox",
        "Cmd": LOOK,
        "HostConfig": {"Binds": [f"{field.source}:/d"], "Runtime": "runc", "NetworkMode": "none"},
    }
    made = [
        str(json.loads(call(engine, "POST", "/containers/create", body).body)["Id"]) for _ in range(AT_ONCE)
    ]
    try:
        with field.swapping():
            outcome = race(engine, made, CONTROL_ROUNDS)
    finally:
        for container in made:
            call(engine, "DELETE", f"/containers/{container}?force=1")
    assert leaks(outcome)
    print(f"{len(leaks(outcome))} of {CONTROL_ROUNDS} leaked under plain runc")


def test_inspect_shows_the_users_own_path(own: Lab, field: Field) -> None:
    """Nothing of the pin is seen, not even while the container runs, and nothing of it stays."""
    own.ok(own.alice, "run", "-d", "--name", "box", "-v", f"{field.source}:/d", "busybox", "sleep", "600")
    shown = json.loads(own.ok(own.alice, "inspect", "box"))[0]
    assert shown["HostConfig"]["Binds"] == [f"{field.source}:/d"]
    assert [mount["Source"] for mount in shown["Mounts"]] == [str(field.source)]
    assert "pins" not in json.dumps(shown)
    assert eventually(lambda: pins(own) == [], seconds=5)
    assert own.ok(own.alice, "exec", "box", "cat", "/d/marker") == "mine"


def pins(lab: Lab) -> list[str]:
    """What is pinned now, as dockerd's namespace has it."""
    board = Tree.under(lab.root).pins
    done = subprocess.run(
        [
            "nsenter",
            "-t",
            str(lab.pid("dockerd")),
            "-m",
            "find",
            str(board),
            "-mindepth",
            "1",
            "-maxdepth",
            "1",
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.split()


def test_a_directory_made_anew_is_mounted(own: Lab, field: Field) -> None:
    """`rm -r build; mkdir build` between create and start, and an editor's new file: tools do that all the time."""
    source = field.parent / "build"
    own.run(own.alice, "sh", "-c", f"mkdir {source}; echo 1 > {source}/conf")
    words = ["-v", f"{source}:/b", "-v", f"{source}/conf:/conf", "busybox", "sh", "-c", "cat /b/conf /conf"]
    own.ok(own.alice, "create", "--name", "box", *words)
    own.run(own.alice, "sh", "-c", f"rm -r {source}; mkdir {source}; echo 2 > {source}/conf")
    assert own.ok(own.alice, "start", "-a", "box") == "2\n2"
    own.run(own.alice, "rm", "-r", str(source))
    own.ok(own.alice, "create", "--name", "dir", "-v", f"{source}:/b", "busybox", "ls", "-ldn", "/b")
    own.run(own.alice, "rmdir", str(source))
    own.ok(own.alice, "start", "-a", "dir")
    assert source.owner() == own.alice


def state(lab: Lab, name: str) -> dict[str, Any]:
    shown: dict[str, Any] = json.loads(lab.ok(lab.alice, "inspect", name))[0]["State"]
    return shown


def test_a_restart_by_policy_looks_again(own: Lab, field: Field) -> None:
    """dockerd restarts by itself and asks nobody but the runtime: the swapped source is not mounted, and the user is told."""
    own.ok(
        own.alice, "run", "-d", "--name", "box", "--restart", "on-failure:5", "-v", f"{field.source}:/d",
        "busybox", "sh", "-c", "cat /d/marker; while [ ! -e /d/go ]; do sleep 0.1; done; exit 1",
    )  # fmt: skip
    assert eventually(lambda: own.ok(own.alice, "logs", "box") == "mine", seconds=10)
    own.run(own.alice, "sh", "-c", f"mv {field.source} {field.parent}/e && mv {field.leaf} {field.source}")
    (field.parent / "e" / "go").touch()
    assert eventually(lambda: "leads elsewhere now" in state(own, "box")["Error"], seconds=20), state(
        own, "box"
    )
    assert own.ok(own.alice, "logs", "box") == "mine"
    own.run(own.alice, "sh", "-c", f"mv {field.source} {field.leaf} && mv {field.parent}/e {field.source}")


def test_a_restart_of_the_engine_looks_again(own: Lab, field: Field) -> None:
    """At the boot every container that starts again is looked at, in the new dockerd's namespace."""
    swapped = field.parent / "swapped"
    own.run(own.alice, "mkdir", str(swapped))
    script = "cat /d/marker; exec sleep 600"
    for name, source in (("kept", field.source), ("lost", swapped)):
        own.ok(
            own.alice, "run", "-d", "--name", name, "--restart", "on-failure:9", "-v", f"{source}:/d",
            "busybox", "sh", "-c", script,
        )  # fmt: skip
    swapped.rmdir()
    swapped.symlink_to(field.secret)
    before = own.pid("dockerd")
    own.kill("dockerd")
    assert eventually(lambda: own.pid("dockerd") != before, seconds=30)
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=60)
    assert eventually(lambda: own.ok(own.alice, "logs", "kept").split() == ["mine", "mine"], seconds=30)
    assert "secret" not in own.docker(own.alice, "logs", "lost").out
    assert not state(own, "lost")["Running"]


def test_a_guard_that_was_killed_comes_back(own: Lab, field: Field) -> None:
    """Who asks meanwhile waits in the backlog, and running containers notice nothing."""
    own.ok(own.alice, "run", "-d", "--name", "box", "-v", f"{field.source}:/d", "busybox", "sleep", "600")
    for _ in range(3):
        own.kill("guard")
        assert (
            own.ok(own.alice, "run", "--rm", "-v", f"{field.source}:/d", "busybox", "cat", "/d/marker")
            == "mine"
        )
    assert own.ok(own.alice, "exec", "box", "cat", "/d/marker") == "mine"


def test_without_the_guard_nothing_starts(own: Lab, field: Field) -> None:
    """It hangs: the start is refused with a sentence; it is back: the same container starts."""
    own.ok(own.alice, "create", "--name", "box", "-v", f"{field.source}:/d", "busybox", "cat", "/d/marker")
    guard = own.pid("guard")
    os.kill(guard, signal.SIGSTOP)
    try:
        started = own.run(own.alice, "docker", "start", "-a", "box")
    finally:
        os.kill(guard, signal.SIGCONT)
    assert started.status != 0
    assert "the guard of container starts (ds01-guard) did not answer in time (rule start)" in started.err
    assert own.ok(own.alice, "start", "-a", "box") == "mine"


def test_a_guard_that_ends_in_the_middle_starts_nothing(own: Lab, engine: Path, field: Field) -> None:
    """Killed again and again while containers start: each start is whole, or refused with a sentence."""
    made = [own.ok(own.alice, "create", "-v", f"{field.source}:/d", "busybox", *LOOK) for _ in range(AT_ONCE)]
    with ThreadPoolExecutor(1) as threads:
        racing = threads.submit(race, engine, made, 40)
        while not racing.done():
            own.kill("guard")
            time.sleep(3)
        outcome = racing.result()
    assert len(outcome.shown) + len(outcome.refused) == 40
    assert all("mine" in line for line in outcome.shown)
    assert outcome.shown
    assert all("ds01: " in each or "pins" in each for each in outcome.refused), outcome.refused


def test_without_the_allocator_only_those_with_a_lease_wait(own: Lab) -> None:
    """A dead allocator stops no container that has no GPU, not even at the guard."""
    own.ok(own.alice, "create", "--name", "gpu", "--gpus", "1", "busybox", "true")
    allocator = own.pid("allocator")
    os.kill(allocator, signal.SIGSTOP)
    try:
        assert own.ok(own.alice, "run", "--rm", "busybox", "echo", "on") == "on"
        refused = own.docker(own.alice, "start", "-a", "gpu")
        assert refused.status != 0
        assert "cannot be checked" in refused.err
    finally:
        os.kill(allocator, signal.SIGCONT)
    own.ok(own.alice, "start", "-a", "gpu")


def test_a_released_lease_starts_nothing(own: Lab, engine: Path) -> None:
    """Its devices are somebody else's by now, and dockerd would hand them out again at each start."""
    made = own.ok(
        own.alice, "create", "--name", "gpu", "--gpus", "1", "busybox", "sh", "-c", "ls /dev | grep nvidia0"
    )
    assert call(engine, "POST", f"/containers/{made}/start").status == 204
    call(engine, "POST", f"/containers/{made}/wait")
    lease = json.loads(own.ok(own.alice, "inspect", "gpu"))[0]["Config"]["Labels"]["ds01.lease"]
    reply = unix_http.call(
        own.root / "run" / "allocator.sock", "POST", f"/v1/leases/{lease}/release", b'{"reason": "test"}'
    )
    assert reply.status == 200
    started = call(engine, "POST", f"/containers/{made}/start")
    assert started.status != 204
    told = json.loads(started.body)["message"]
    assert (
        f"the GPU lease {lease} of this container has ended (rule gpu_lease); create the container again"
        in told
    )


# What somebody could ask dockerd for if the proxy and the plugin could be passed.
DIRECT: list[tuple[str, dict[str, Any], str]] = [
    ("bind", {"Binds": ["/etc:/x"]}, "no record that this container may have /etc at /x"),
    ("mount", {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]}, "may have /etc at /x"),
    ("privileged", {"Privileged": True}, "privileged"),
    ("capability", {"CapAdd": ["SYS_ADMIN"]}, "CAP_SYS_ADMIN"),
    ("device", {"Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse", "CgroupPermissions": "rwm"}]}, "the device /dev/fuse"),
    ("device rule", {"DeviceCgroupRules": ["a *:* rwm"]}, "the device rule"),
    ("pid", {"PidMode": "host"}, "the host's pid namespace"),
    ("ipc", {"IpcMode": "host"}, "the host's ipc namespace"),
    ("uts", {"UTSMode": "host"}, "the host's uts namespace"),
    ("network", {"NetworkMode": "host"}, "network namespace"),
    ("unmasked", {"MaskedPaths": [], "ReadonlyPaths": []}, "not masked"),
    ("gpu", {"DeviceRequests": [{"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}]}, "the hook"),
    ("cgroup", {"CgroupParent": "/docker"}, "not its owner's"),
    ("default cgroup", {"CgroupParent": ""}, "not its owner's"),
    ("cgroup above", {"CgroupParent": "/ds01/../x"}, "not its owner's"),
]  # fmt: skip


@pytest.mark.parametrize(("host", "words"), [case[1:] for case in DIRECT], ids=[case[0] for case in DIRECT])
def test_what_did_not_come_through_ds01_has_nothing_of_the_host(
    engine: Path, host: dict[str, Any], words: str
) -> None:
    """The second wall: even dockerd itself, asked directly, gives it nothing."""
    asked = {"CgroupParent": "/ds01/1234", "NetworkMode": "none"} | host
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": asked}
    made = json.loads(call(engine, "POST", "/containers/create", body).body)["Id"]
    try:
        started = call(engine, "POST", f"/containers/{made}/start")
        assert started.status != 204
        assert words in json.loads(started.body)["message"]
    finally:
        call(engine, "DELETE", f"/containers/{made}?force=1")


def test_a_plain_container_needs_no_approval(engine: Path) -> None:
    """The control: in a user's group, and with nothing of the host, it starts."""
    host = {"CgroupParent": "/ds01/1234", "NetworkMode": "none"}
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    made = json.loads(call(engine, "POST", "/containers/create", body).body)["Id"]
    assert call(engine, "POST", f"/containers/{made}/start").status == 204
    call(engine, "DELETE", f"/containers/{made}?force=1")


def test_an_approval_that_was_lost_starts_nothing_of_the_host(own: Lab, field: Field) -> None:
    """A crash between dockerd's answer and the file: the user is told what to do."""
    words = ["-v", f"{field.source}:/d", "busybox", "cat", "/d/marker"]
    made = own.ok(own.alice, "create", "--name", "box", *words)
    (Tree.under(own.root).approvals / made).unlink()
    refused = own.docker(own.alice, "start", "-a", "box")
    assert refused.status != 0
    assert (
        f"no record that this container may have {field.source} at /d (rule start); create it again"
        in refused.err
    )


def test_approvals_go_with_their_containers(own: Lab, field: Field) -> None:
    """By rm, by --rm, and for what was removed while the proxy was away."""
    own.ok(own.alice, "run", "--rm", "-v", f"{field.source}:/d", "busybox", "true")
    made = own.ok(own.alice, "create", "--name", "box", "busybox", "true")
    approvals = Tree.under(own.root).approvals
    assert eventually(lambda: [path.name for path in approvals.iterdir()] == [made], seconds=10)
    stale = approvals / ("f" * 64)
    stale.touch()
    own.kill("proxy")
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    assert eventually(lambda: not stale.exists(), seconds=10)
    own.ok(own.alice, "rm", "box")
    assert list(approvals.iterdir()) == []


def test_everything_a_container_may_have_starts(own: Lab, field: Field) -> None:
    """Volumes, tmpfs, init, the own socket, mounts and namespaces of other own containers, a GPU, a build's steps."""
    run = ["run", "--rm"]
    own.ok(own.alice, "run", "-d", "--name", "first", "--ipc", "shareable", "-v", f"{field.source}:/d", "-v", "vol:/v", "busybox", "sleep", "600")  # fmt: skip
    assert own.ok(own.alice, *run, "--volumes-from", "first:ro", "busybox", "cat", "/d/marker") == "mine"
    shared = own.ok(own.alice, *run, "--network", "container:first", "--ipc", "container:first", "--pid", "container:first", "busybox", "hostname")  # fmt: skip
    assert shared == own.ok(own.alice, "exec", "first", "hostname")
    words = [
        "--init",
        "--tmpfs",
        "/t",
        "-v",
        "/anon",
        "-v",
        "vol:/v:ro",
        "-v",
        "/var/run/docker.sock:/var/run/docker.sock",
    ]
    own.ok(own.alice, *run, *words, "busybox", "test", "-S", "/var/run/docker.sock")
    mount = f"type=bind,src={field.source},dst=/m,readonly"
    assert own.ok(own.alice, *run, "--mount", mount, "busybox", "cat", "/m/marker") == "mine"
    assert own.ok(own.alice, *run, "--gpus", "1", "busybox", "sh", "-c", "ls /dev | grep -c nvidia0") == "1"
    file = "FROM busybox\nENV NVIDIA_VISIBLE_DEVICES=all\nVOLUME /v\nRUN test $NVIDIA_VISIBLE_DEVICES = void && touch /v/x /y\n"
    own.ok(own.alice, "build", "-q", "-t", "guarded", "-", stdin=file)
    own.ok(own.alice, "restart", "-t", "0", "first")
    assert own.ok(own.alice, "exec", "first", "cat", "/d/marker") == "mine"
    assert json.loads(own.ok(own.alice, "inspect", "first"))[0]["HostConfig"]["Runtime"] == "ds01"
