"""The docker CLI, unmodified, through a user's own socket: everyday work."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import Lab, eventually

pytestmark = pytest.mark.dockerd

# CPUs that the cgroup of a container gives it, as the container sees them.
CPU_SHARE = """
if [ -e /sys/fs/cgroup/cpu.max ]; then read quota period < /sys/fs/cgroup/cpu.max
else quota=$(cat /sys/fs/cgroup/cpu/cpu.cfs_quota_us) period=$(cat /sys/fs/cgroup/cpu/cpu.cfs_period_us); fi
awk "BEGIN { print $quota / $period }"
"""


@pytest.fixture
def home(clean_lab: Lab) -> Iterator[Path]:
    """A directory in alice's home, hers."""
    directory = Path("/home", clean_lab.alice, "work")
    directory.mkdir()
    shutil.chown(directory, clean_lab.alice, clean_lab.alice)
    yield directory
    shutil.rmtree(directory)


def write(lab: Lab, path: Path, content: str) -> None:
    path.write_text(content)
    shutil.chown(path, lab.alice, lab.alice)


def test_run_gives_output_and_exit_code(clean_lab: Lab) -> None:
    """Output, both streams apart, and the exit code of the container."""
    result = clean_lab.docker(
        clean_lab.alice, "run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7"
    )
    assert (result.status, result.out, result.err) == (7, "out\n", "err\n")


def test_a_container_lives_its_life(clean_lab: Lab) -> None:
    """Every verb on one container, by name, by id and by prefix."""
    lab, user = clean_lab, clean_lab.alice
    container = lab.ok(user, "run", "-d", "--name", "life", "busybox", "sh", "-c", "echo up; sleep 600")
    assert lab.ok(user, "ps", "--format", "{{.Names}} {{.State}}") == "life running"
    assert lab.ok(user, "exec", container[:7], "cat", "/etc/hostname") == container[:12]
    assert lab.docker(user, "exec", "life", "sh", "-c", "exit 9").status == 9
    assert "sleep 600" in lab.ok(user, "top", "life")
    assert lab.ok(user, "logs", "life") == "up"
    assert "life" in lab.ok(user, "stats", "--no-stream", "life")
    lab.ok(user, "exec", "life", "touch", "/tmp/new")
    assert "A /tmp/new" in lab.ok(user, "diff", "life")
    lab.ok(user, "pause", "life")
    assert lab.ok(user, "inspect", "-f", "{{.State.Status}}", "life") == "paused"
    lab.ok(user, "unpause", "life")
    lab.ok(user, "rename", "life", "second")
    lab.ok(user, "update", "--memory", "64m", "--memory-swap", "64m", "second")
    assert lab.ok(user, "inspect", "-f", "{{.HostConfig.Memory}}", "second") == str(64 * 1024 * 1024)
    lab.ok(user, "restart", "-t", "0", "second")
    lab.ok(user, "kill", "second")
    assert lab.ok(user, "wait", "second") == "137"
    lab.ok(user, "start", "second")
    lab.ok(user, "stop", "-t", "0", "second")
    lab.ok(user, "rm", "second")
    assert lab.docker(user, "inspect", "second").err.strip() == "Error: No such object: second"


def test_the_rewrite_bounds_what_was_not_asked(clean_lab: Lab) -> None:
    """Limits, cgroup parent, labels and a void GPU setting stand on every container; smaller wishes are kept."""
    lab, user = clean_lab, clean_lab.alice
    uid = lab.run(user, "id", "-u").out.strip()
    lab.ok(user, "create", "--name", "plain", "busybox", "true")
    lab.ok(user, "create", "--name", "small", "--memory", "32m", "--pids-limit", "17", "busybox", "true")
    plain, small = json.loads(lab.ok(user, "inspect", "plain", "small"))
    host = plain["HostConfig"]
    assert host["CgroupParent"] in {f"/ds01/{uid}", f"ds01-{uid}.slice"}
    assert host["Memory"] == 16 * 1024**3
    assert host["PidsLimit"] == 4096
    assert host["ShmSize"] == 8 * 1024**3
    assert "NVIDIA_VISIBLE_DEVICES=void" in plain["Config"]["Env"]
    assert plain["Config"]["Labels"]["ds01.owner"] == user
    assert plain["Config"]["Labels"]["ds01.seal"]
    assert small["HostConfig"]["Memory"] == 32 * 1024**2
    assert small["HostConfig"]["PidsLimit"] == 17
    large = lab.docker(user, "create", "--memory", "900g", "busybox", "true")
    assert large.status == 0
    assert "ds01:" in large.err, "the user is told that the wish was lowered"


@pytest.mark.parametrize(
    ("made", "update", "expected"),
    [
        ([], ["--cpus", "0.5"], {"NanoCpus": 500_000_000}),
        (["--cpus", "0.25"], ["--cpus", "0.5"], {"NanoCpus": 500_000_000}),
        (["--cpu-quota", "25000"], ["--cpus", "0.5"], {"NanoCpus": 500_000_000, "CpuQuota": 50_000}),
        ([], ["--cpu-quota", "50000"], {"NanoCpus": 500_000_000, "CpuQuota": 50_000}),
        (["--cpus", "0.25"], ["--cpu-period", "20000", "--cpu-quota", "10000"], {"NanoCpus": 500_000_000}),
    ],
    ids=["cpus", "cpus-cpus", "quota-cpus", "quota", "cpus-quota"],
)
def test_cpus_are_updated(
    clean_lab: Lab, made: list[str], update: list[str], expected: dict[str, int]
) -> None:
    """However the limit was given before: the running container has it, inspect shows it, and a create from that is accepted."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "run", "-d", "--name", "box", *made, "busybox", "sleep", "600")
    lab.ok(user, "update", *update, "box")
    (shown,) = json.loads(lab.ok(user, "inspect", "box"))
    assert {name: shown["HostConfig"][name] for name in expected} == expected
    assert lab.ok(user, "exec", "box", "sh", "-c", CPU_SHARE) == "0.5"
    again = lab.docker(user, "update", "--cpus", "1", "box")
    assert again.status == 0, again.err
    assert lab.ok(user, "exec", "box", "sh", "-c", CPU_SHARE) == "1"


def test_an_update_stays_within_the_limit(clean_lab: Lab) -> None:
    """More CPUs than policy gives become what it gives, in the form that the container has."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "run", "-d", "--name", "box", "busybox", "sleep", "600")
    before = json.loads(lab.ok(user, "inspect", "-f", "{{json .HostConfig.NanoCpus}}", "box"))
    lab.ok(user, "update", "--cpus", "0.5", "box")
    assert "ds01: CPUs lowered" in lab.ok(user, "update", "--cpus", "900", "box")
    assert json.loads(lab.ok(user, "inspect", "-f", "{{json .HostConfig.NanoCpus}}", "box")) == before > 0


def test_an_update_says_what_became_of_it(clean_lab: Lab) -> None:
    """A container with a GPU is not restarted by a policy, and whoever asks for that is told."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "create", "--gpus", "1", "--name", "leased", "busybox", "true")
    told = lab.ok(user, "update", "--restart", "always", "leased")
    assert "ds01: RestartPolicy set to no: containers with GPUs start only when asked" in told
    assert lab.ok(user, "inspect", "-f", "{{.HostConfig.RestartPolicy.Name}}", "leased") == "no"


def test_files_are_copied_both_ways(clean_lab: Lab, home: Path) -> None:
    """A file, a directory, and a tar on standard input and output."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "create", "--name", "box", "busybox", "true")
    write(lab, home / "note", "text\n")
    lab.ok(user, "cp", str(home / "note"), "box:/tmp/note")
    lab.ok(user, "cp", "box:/tmp/note", str(home / "back"))
    assert (home / "back").read_text() == "text\n"
    lab.ok(user, "cp", str(home), "box:/tmp/dir")
    lab.ok(user, "cp", "box:/tmp/dir", str(home / "copy"))
    assert (home / "copy" / "note").read_text() == "text\n"
    streamed = lab.run(user, "sh", "-c", "docker cp box:/tmp/note - | tar -xO note")
    assert streamed.out == "text\n"


def test_an_image_is_built_used_and_removed(clean_lab: Lab, home: Path) -> None:
    """The classic builder with a large context, an argument, ignored files and a failing step."""
    lab, user = clean_lab, clean_lab.alice
    write(
        lab,
        home / "Dockerfile",
        "FROM busybox\nARG WORD=none\nCOPY . /ctx\nRUN echo $WORD > /word && ls /ctx > /ls\n",
    )
    write(lab, home / ".dockerignore", "secret\n")
    write(lab, home / "secret", "hidden\n")
    (home / "large").write_bytes(bytes(20 * 1024 * 1024))
    lab.ok(user, "build", "-t", "built:1", "--build-arg", "WORD=given", str(home))
    assert lab.ok(user, "run", "--rm", "built:1", "cat", "/word") == "given"
    assert "secret" not in lab.ok(user, "run", "--rm", "built:1", "cat", "/ls")
    assert "Using cache" in lab.ok(user, "build", "-t", "built:1", "--build-arg", "WORD=given", str(home))
    lab.ok(user, "tag", "built:1", "built:2")
    assert "built" in lab.ok(user, "images", "built")
    assert "echo" in lab.ok(user, "history", "--no-trunc", "built:2")
    write(lab, home / "Dockerfile", "FROM busybox\nRUN exit 5\n")
    failing = lab.docker(user, "build", str(home))
    assert failing.status == 5
    assert "returned a non-zero code: 5" in failing.err
    lab.ok(user, "rmi", "built:1", "built:2")


def test_images_are_saved_loaded_committed_and_imported(clean_lab: Lab, home: Path) -> None:
    """What goes out as a tar comes in again; commit and import make images of one's own."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "run", "--name", "maker", "busybox", "sh", "-c", "echo kept > /kept")
    lab.ok(user, "commit", "maker", "kept:1")
    assert lab.ok(user, "run", "--rm", "kept:1", "cat", "/kept") == "kept"
    lab.ok(user, "save", "-o", str(home / "kept.tar"), "kept:1")
    lab.ok(user, "rmi", "-f", "kept:1")
    assert "Loaded image: kept:1" in lab.ok(user, "load", "-i", str(home / "kept.tar"))
    lab.ok(user, "export", "-o", str(home / "flat.tar"), "maker")
    lab.ok(user, "import", str(home / "flat.tar"), "flat:1")
    assert lab.ok(user, "run", "--rm", "flat:1", "cat", "/kept") == "kept"
    lab.ok(user, "rmi", "kept:1", "flat:1")


def test_volumes_and_networks(clean_lab: Lab) -> None:
    """Named and anonymous volumes; names answer in an own network; connect, disconnect, prune."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "volume", "create", "data")
    lab.ok(user, "run", "--rm", "-v", "data:/d", "busybox", "sh", "-c", "echo 1 > /d/one")
    assert lab.ok(user, "run", "--rm", "-v", "data:/d", "busybox", "cat", "/d/one") == "1"
    lab.ok(user, "run", "--rm", "-v", "implied:/d", "-v", "/anonymous", "busybox", "true")
    assert lab.ok(user, "volume", "ls", "-q").split() == ["data", "implied"]
    lab.ok(user, "network", "create", "net")
    lab.ok(user, "run", "-d", "--name", "srv", "--network", "net", "busybox", "sleep", "600")
    lab.ok(user, "run", "--rm", "--network", "net", "busybox", "ping", "-c1", "srv")
    lab.ok(user, "network", "disconnect", "net", "srv")
    lab.ok(user, "network", "connect", "net", "srv")
    assert "srv" in lab.ok(user, "network", "inspect", "net")
    lab.ok(user, "rm", "-f", "srv")
    assert "net" in lab.ok(user, "network", "prune", "-f")
    lab.ok(user, "volume", "rm", "data", "implied")


def test_system_calls_answer_for_the_user(clean_lab: Lab) -> None:
    """info, version, df and prune work and speak of own objects."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(lab.bob, "run", "-d", "--name", "others", "busybox", "sleep", "600")
    lab.ok(user, "create", "--name", "own", "busybox", "true")
    info = json.loads(lab.ok(user, "info", "-f", "{{json .}}"))
    assert (info["Containers"], info["ContainersRunning"]) == (1, 0)
    assert "Server" in lab.ok(user, "version")
    assert "Containers" in lab.ok(user, "system", "df")
    assert "own" not in lab.ok(user, "system", "prune", "-f")
    assert lab.ok(user, "ps", "-aq") == ""
    assert lab.ok(lab.bob, "ps", "--format", "{{.Names}}") == "others"


def test_a_published_port_answers(clean_lab: Lab) -> None:
    """At the address that script/server prints."""
    lab = clean_lab
    lab.ok(lab.alice, "run", "-d", "--name", "www", "-p", "18080:80", "busybox",
           "sh", "-c", "echo served > /tmp/index.html; httpd -f -p 80 -h /tmp")  # fmt: skip
    fetch = ("busybox", "wget", "-qO-", f"http://{lab.address}:18080/")
    assert eventually(lambda: lab.run("root", *fetch).out == "served\n", seconds=10)


def test_home_is_mounted(clean_lab: Lab, home: Path) -> None:
    """-v of a directory in one's home; a missing one is made as the user."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(
        user,
        "run",
        "--rm",
        "-v",
        f"{home}:/w",
        "-v",
        f"{home}/made/here:/m",
        "busybox",
        "touch",
        "/w/file",
        "/m/file",
    )
    assert (home / "file").exists()
    assert (home / "made").owner() == user


def test_devices_left_unquoted_are_told_how_to_quote(clean_lab: Lab) -> None:
    """What the docker CLI makes of `--gpus device=0,1` is refused, and the words to copy mean both."""
    lab = clean_lab
    refused = lab.docker(lab.alice, "create", "--gpus", "device=0,1", "busybox", "true")
    assert refused.status == 1
    assert """quote twice: --gpus '"device=0,1"'""" in refused.err
    quoted = lab.docker(lab.alice, "create", "--gpus", '"device=0,1"', "busybox", "true")
    assert "2 GPUs is not permitted, limit is 1" in quoted.err


def test_docker_outside_of_docker_stays_the_user(clean_lab: Lab, home: Path) -> None:
    """A container with Docker's socket mounted works as its owner, sees no one else, and inspect shows what was asked."""
    lab, user = clean_lab, clean_lab.alice
    shutil.copy(shutil.which("docker") or "", home / "docker")
    write(lab, home / "Dockerfile", "FROM busybox\nCOPY docker /bin/docker\n")
    lab.ok(user, "build", "-q", "-t", "dood", str(home))
    lab.ok(lab.bob, "run", "-d", "--name", "bobs", "busybox", "sleep", "600")
    socket = "/var/run/docker.sock"
    lab.ok(user, "run", "-d", "--name", "dood", "-v", f"{socket}:{socket}", "dood", "sleep", "600")
    assert lab.ok(user, "inspect", "-f", "{{(index .Mounts 0).Source}}", "dood") == socket
    assert lab.ok(user, "exec", "dood", "docker", "ps", "--format", "{{.Names}}") == "dood"
    assert lab.ok(user, "exec", "dood", "docker", "run", "--rm", "busybox", "echo", "nested") == "nested"
    lab.kill("proxy")
    assert eventually(
        lambda: lab.docker(user, "exec", "dood", "docker", "ps", "--format", "{{.Names}}").out == "dood\n",
        seconds=15,
    ), "the mounted socket outlives the proxy"
    lab.ok(user, "rm", "-f", "dood")
    lab.ok(user, "rmi", "dood")


def test_tar_streams_keep_their_bytes(clean_lab: Lab) -> None:
    """A tar through standard input of docker cp arrives byte for byte."""
    lab, user = clean_lab, clean_lab.alice
    lab.ok(user, "create", "--name", "box", "busybox", "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("a")
        member.size = 5
        archive.addfile(member, io.BytesIO(b"abcde"))
    (Path("/home") / user / "in.tar").write_bytes(packed.getvalue())
    try:
        assert lab.run(user, "sh", "-c", f"docker cp - box:/tmp < /home/{user}/in.tar").status == 0
        assert lab.run(user, "sh", "-c", "docker cp box:/tmp/a - | tar -xO a").out == "abcde"
    finally:
        (Path("/home") / user / "in.tar").unlink()
