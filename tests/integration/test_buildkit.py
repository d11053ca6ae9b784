"""BuildKit through the proxy on a real engine: buildx, compose, and clients that ask for more than they may."""

from __future__ import annotations

import concurrent.futures
import io
import json
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest
from h2 import events as h2
from h2.config import H2Configuration
from h2.connection import H2Connection

from buildkit import api_pb2 as pb
from buildkit.framing import frame
from policy.buildkit.methods import BRIDGE, CONTROL
from tests.fakes.raw_socket import connected, exchange
from tests.integration.conftest import REPOSITORY, Lab, Result, eventually
from tests.integration.test_images import real_name

pytestmark = pytest.mark.dockerd

CONFINED_SINCE = 24
SYSTEM = Path(os.environ.get("DS01_TEST_ENGINE", "/"))
PLUGINS = next(
    (
        path
        for root in (SYSTEM, Path("/"))
        for path in (root / "usr/libexec/docker/cli-plugins", root / "usr/lib/docker/cli-plugins")
        if (path / "docker-buildx").exists()
    ),
    None,
)
UPGRADE = b"POST /grpc HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
FORBIDDEN = "7"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A lab whose engine has a BuildKit that can be confined, and its client."""

    lab: Lab
    files: Path  # readable by both users

    def docker(self, user: str, *words: str, seconds: float = 120, cwd: Path | str = "/") -> Result:
        """The docker CLI with buildx and compose, and no word about which builder to use."""
        settings = (
            "-u",
            "DOCKER_BUILDKIT",
            "-u",
            "COMPOSE_DOCKER_CLI_BUILD",
            f"DOCKER_CONFIG={self.files}/{user}",
        )
        return self.lab.run(user, "env", *settings, "docker", *words, seconds=seconds, cwd=cwd)

    def context(self, dockerfile: str, **files: str) -> Path:
        """A directory with a Dockerfile."""
        path = Path(tempfile.mkdtemp(dir=self.files))
        path.chmod(0o755)
        for name, text in ({"Dockerfile": dockerfile} | files).items():
            (path / name).write_text(text)
        return path

    def build(self, user: str, dockerfile: str | Path, *words: str) -> Result:
        context = dockerfile if isinstance(dockerfile, Path) else self.context(dockerfile)
        return self.docker(user, "buildx", "build", "--progress=plain", *words, str(context))

    def built(self, user: str, dockerfile: str | Path, *words: str) -> str:
        """A build that must succeed; gives its log."""
        result = self.build(user, dockerfile, *words)
        assert result.status == 0, result.err
        return result.err

    def uid(self, user: str) -> int:
        return pwd.getpwnam(user).pw_uid


def _major(lab: Lab) -> int:
    return int(lab.ok(lab.alice, "version", "-f", "{{.Server.Version}}").split(".")[0])


@pytest.fixture
def bench(clean_lab: Lab) -> Iterator[Bench]:
    """Skips where the engine's BuildKit takes no cgroup, or the client has no buildx."""
    major = _major(clean_lab)
    if major < CONFINED_SINCE:
        pytest.skip(f"engine {major} is older than {CONFINED_SINCE}: BuildKit is refused there")
    if PLUGINS is None:
        pytest.skip("needs docker-buildx")
    files = Path(tempfile.mkdtemp(prefix="ds01-bk-"))
    files.chmod(0o755)
    for user in (clean_lab.alice, clean_lab.bob):
        (files / user).mkdir()
        (files / user / "config.json").write_text(f'{{"cliPluginsExtraDirs": ["{PLUGINS}"]}}')
        shutil.chown(files / user, user)
    yield Bench(lab=clean_lab, files=files)
    for user in (clean_lab.alice, clean_lab.bob):
        for pattern in ("bk-*", "bk/*"):
            listed = clean_lab.docker(user, "images", "--format", "{{.Repository}}:{{.Tag}}", pattern)
            for image in listed.out.split():
                clean_lab.docker(user, "rmi", "-f", image)
    shutil.rmtree(files, ignore_errors=True)


# --- what everybody types ---


def test_a_build_with_stages_caches_and_secrets(bench: Bench) -> None:
    """`docker buildx build --load`: the image is there, runs, and is its maker's; the secret is not in it."""
    secret = bench.files / "secret"
    secret.write_text("hush-4711")
    secret.chmod(0o644)
    dockerfile = (
        "FROM busybox AS one\nARG WHO\n"
        "RUN --mount=type=cache,target=/cache --mount=type=secret,id=s echo $WHO > /out; cat /run/secrets/s > /cache/s; wc -c < /cache/s > /size\n"
        "FROM busybox\nCOPY --from=one /out /size /\nCOPY hello /\nLABEL mine=yes\n"
    )
    context = bench.context(dockerfile, hello="hello")
    bench.built(
        bench.lab.alice,
        context,
        "--load",
        "-t",
        "bk-a",
        "--build-arg",
        "WHO=alice",
        "--secret",
        f"id=s,src={secret}",
    )
    alice, bob = bench.lab.alice, bench.lab.bob
    assert bench.lab.ok(alice, "run", "--rm", "bk-a", "cat", "/out", "/size", "/hello").split() == [
        "alice",
        "9",
        "hello",
    ]
    labels = bench.lab.ok(
        alice, "inspect", "-f", '{{index .Config.Labels "ds01.owner"}} {{.Config.Labels.mine}}', "bk-a"
    )
    assert labels == f"{alice} yes"
    assert bench.lab.docker(bob, "rmi", "bk-a").status != 0
    bench.lab.ok(alice, "rmi", "bk-a")


def test_plain_docker_build_uses_buildkit(bench: Bench) -> None:
    """Nobody has to set DOCKER_BUILDKIT."""
    result = bench.docker(
        bench.lab.alice, "build", "-t", "bk-plain", str(bench.context("FROM busybox\nRUN echo hi\n"))
    )
    assert result.status == 0, result.err
    assert "DONE" in result.err


def test_compose_builds_and_runs(bench: Bench) -> None:
    """`docker compose build`, then `up` and `down`."""
    project = bench.context(
        "FROM busybox\nARG X\nRUN echo value-$X > /x\n",
        **{
            "compose.yaml": "services: {web: {build: {context: ., args: {X: '5'}}, image: bk-web, command: cat /x}}\n"
        },
    )
    built = bench.docker(bench.lab.alice, "compose", "build", cwd=project)
    assert built.status == 0, built.err
    ran = bench.docker(bench.lab.alice, "compose", "up", cwd=project)
    assert "value-5" in ran.out, ran
    assert bench.docker(bench.lab.alice, "compose", "down", cwd=project).status == 0


def test_a_context_on_standard_input(bench: Bench) -> None:
    """`docker build - < context.tar`, and a Dockerfile alone."""
    context = bench.context("FROM busybox\nCOPY hello /\n", hello="from-a-tar")
    subprocess.run(["tar", "-C", str(context), "-cf", str(bench.files / "c.tar"), "."], check=True)
    for source, command in ((bench.files / "c.tar", "cat /hello"), (context / "Dockerfile", "")):
        words = f"docker --config {bench.files}/{bench.lab.alice} buildx build -t bk-stdin - < {source}"
        result = bench.lab.run(bench.lab.alice, "sh", "-c", words, seconds=120)
        if command:
            assert result.status == 0, result.err
            assert bench.lab.ok(bench.lab.alice, "run", "--rm", "bk-stdin", *command.split()) == "from-a-tar"
        else:
            assert '"/hello": not found' in result.err, result.err


def test_output_to_the_client(bench: Bench) -> None:
    """Files of the result arrive as the user's own."""
    out = bench.files / "out"
    out.mkdir()
    shutil.chown(out, bench.lab.alice)
    bench.built(bench.lab.alice, "FROM busybox AS b\nRUN echo made > /made\nFROM scratch\nCOPY --from=b /made /\n", "-o", f"type=local,dest={out}")  # fmt: skip
    assert (out / "made").read_text() == "made\n"
    assert (out / "made").stat().st_uid == bench.uid(bench.lab.alice)


def test_a_foreign_syntax_line_is_not_followed(bench: Bench) -> None:
    """The engine's own frontend reads the file; a frontend that is asked for by argument is refused."""
    bench.built(bench.lab.alice, "# syntax=nowhere.invalid/frontend:1\nFROM busybox\nRUN echo 1\n")
    refused = bench.build(
        bench.lab.alice, "FROM busybox\n", "--build-arg", "BUILDKIT_SYNTAX=nowhere.invalid/f"
    )
    assert refused.status != 0
    assert "BUILDKIT_SYNTAX" in refused.err
    assert "rule buildkit" in refused.err


def test_a_large_context(bench: Bench) -> None:
    """A hundred megabytes go through /session."""
    context = bench.context("FROM busybox\nCOPY big /\nRUN wc -c < /big > /size\n")
    with (context / "big").open("wb") as file:
        for _ in range(100):
            file.write(os.urandom(1024 * 1024))
    bench.built(bench.lab.alice, context, "-t", "bk-big")
    assert bench.lab.ok(bench.lab.alice, "run", "--rm", "bk-big", "cat", "/size") == str(100 * 1024 * 1024)


# --- within the user's bounds ---


def _cgroup_of(marker: str) -> str:
    """The cgroup of the process on this machine whose command line holds `marker`, "" if none does."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and marker.encode() in (entry / "cmdline").read_bytes().split(b"\0"):
                return (entry / "cgroup").read_text()
        except OSError:
            continue
    return ""


def _is_running(marker: str) -> bool:
    return bool(_cgroup_of(marker))


@contextmanager
def _building(bench: Bench, user: str, dockerfile: str, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A build that goes on meanwhile; ended afterwards."""
    context = bench.context(dockerfile)
    command = bench.lab.command(
        user, "docker", "--config", str(bench.files / user), "buildx", "build", *words, str(context)
    )
    running = subprocess.Popen(
        command, env=bench.lab.environment(user), cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield running
    finally:
        running.kill()
        running.wait()


def test_run_is_in_the_users_cgroup_and_ends_with_the_client(bench: Bench) -> None:
    """As this machine sees it, whatever --cgroup-parent says; Ctrl-C ends the build."""
    uid = bench.uid(bench.lab.alice)
    with _building(
        bench, bench.lab.alice, "FROM busybox\nRUN sleep 60471\n", "--cgroup-parent", "/elsewhere"
    ) as build:
        assert eventually(lambda: bool(_cgroup_of("60471")), seconds=30)
        lines = [line for line in _cgroup_of("60471").splitlines() if line.rpartition(":")[2] != "/"]
        assert lines
        assert all(f"/ds01/{uid}/build/" in line or f"ds01-{uid}.slice/build/" in line for line in lines), (
            lines
        )
        build.send_signal(signal.SIGINT)
        assert eventually(lambda: not _cgroup_of("60471"), seconds=30)


def test_run_has_the_limits_of_a_container(bench: Bench) -> None:
    """As the kernel says them of the cgroup that all of a user's builds share."""
    bench.built(bench.lab.alice, "FROM busybox\nRUN true\n")
    bench.lab.ok(bench.lab.alice, "create", "--name", "bk-limits", "busybox")
    form = "{{.HostConfig.Memory}} {{.HostConfig.PidsLimit}}"
    limits = bench.lab.ok(bench.lab.alice, "inspect", "-f", form, "bk-limits").split()
    names = (("memory/memory.limit_in_bytes", "memory.max"), ("pids/pids.max", "pids.max"))
    for (old, new), limit in zip(names, limits, strict=True):
        paths = [_build_group(bench, *old.split("/")), _build_group(bench, "", new)]
        assert next(path for path in paths if path.exists()).read_text().strip() == limit


def _build_group(bench: Bench, controller: str, name: str) -> Path:
    uid = bench.uid(bench.lab.alice)
    top = Path("/sys/fs/cgroup") / controller
    slices = top / "ds01.slice" / f"ds01-{uid}.slice"
    return (slices if slices.exists() else top / "ds01" / str(uid)) / "build" / name


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--allow", "network.host"), "Entitlements=network.host"),
        (("--allow", "security.insecure"), "Entitlements=security.insecure"),
        (("--network", "host"), "network.host"),
        (("--sbom", "true"), "attest"),
        (("--output", "type=image,name=x,push=true"), "push"),
    ],
)
def test_what_reaches_out_of_a_build_is_refused(bench: Bench, words: tuple[str, ...], said: str) -> None:
    """With what was refused and what to do."""
    refused = bench.build(bench.lab.alice, "FROM busybox\n", *words)
    assert refused.status != 0
    assert said in refused.err.lower() or said in refused.err, refused.err


@pytest.mark.parametrize(
    "run", ["--network=host true", "--device=nvidia.com/gpu=all true", "--security=insecure true"]
)
def test_a_run_that_asks_for_more_fails(bench: Bench, run: str) -> None:
    """In the engine's own words: the entitlement was not given, or its frontend does not know the wish."""
    refused = bench.build(bench.lab.alice, f"FROM busybox\nRUN {run}\n")
    assert refused.status != 0
    assert any(word in refused.err for word in ("not allowed", "unknown flag", "only supported")), refused.err


def test_a_remote_context_is_refused(bench: Bench) -> None:
    """The engine would fetch it."""
    refused = bench.docker(bench.lab.alice, "buildx", "build", "http://127.0.0.1:1/x.tar")
    assert refused.status != 0
    assert "send the build context from your machine" in refused.err, refused.err


@pytest.mark.parametrize(
    "source",
    [
        "http://127.0.0.1:{port}/x",
        "http://localhost:{port}/x",
        "http://a:b@127.0.0.1:{port}/x",
        "$URL",
        "http://127.0.0.1:{port}/x.git#main",
        "git://127.0.0.1:{port}/x.git",
    ],
)
def test_an_address_on_this_server_is_not_fetched(bench: Bench, source: str) -> None:
    """BuildKit is told so, and refuses it whatever the Dockerfile makes of it."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        port = listening.getsockname()[1]
        dockerfile = f"FROM busybox\nARG URL=http://127.0.0.1:{port}/x\nADD {source.format(port=port)} /x\n"
        refused = bench.build(bench.lab.alice, dockerfile)
        assert refused.status != 0
        assert "denied by policy" in refused.err, refused.err
        with pytest.raises(TimeoutError):
            listening.accept()


def test_raw_llb_is_refused(bench: Bench) -> None:
    """In both messages that could carry it, and by both frontends that would read it."""
    with _grpc(bench.lab, bench.lab.alice) as grpc:
        for request in (
            pb.SolveRequest(Ref="raw1", Definition=b"\x0a\x00"),
            pb.SolveRequest(Ref="raw2", Frontend="gateway.v0", FrontendAttrs={"source": "x"}),
            pb.SolveRequest(Ref="raw3", Frontend="dockerfile.v0", FrontendInputs={"context": b"\x0a\x00"}),
            pb.SolveRequest(Ref="raw4", EnableSessionExporter=True),
            pb.SolveRequest(Ref="raw5", Entitlements=["device"]),
        ):
            assert grpc.call(f"{CONTROL}/Solve", request.SerializeToString())[0]["grpc-status"] == FORBIDDEN
        bridge = pb.BridgeSolveRequest(Definition=b"\x0a\x00").SerializeToString()
        metadata = (("buildkit-controlapi-buildid", "raw1"),)
        assert grpc.call(f"{BRIDGE}/Solve", bridge, metadata)[0]["grpc-status"] == FORBIDDEN
        for method in ("NewContainer", "ExecProcess"):
            assert grpc.call(f"{BRIDGE}/{method}", b"", metadata)[0]["grpc-status"] == "12"


# --- two users ---


def test_a_tag_of_anothers_is_not_moved(bench: Bench) -> None:
    """By its whole name, or in the other's own space; one's own is."""
    alice, bob = bench.lab.alice, bench.lab.bob
    bench.built(alice, "FROM busybox\nRUN echo a > /who\n", "-t", "bk/mine", "-t", "bk-mine")
    space = real_name(alice, "bk-mine")
    for tag, rule in (
        ("bk/mine", "ownership"),
        ("docker.io/bk/mine:latest", "ownership"),
        (space, "names"),
        (f"docker.io/{space}", "names"),
    ):
        refused = bench.build(bob, "FROM busybox\nRUN echo b > /who\n", "-t", tag)
        assert refused.status != 0, tag
        assert f"rule {rule}" in refused.err
    for name in ("bk/mine", "bk-mine"):
        assert bench.lab.ok(alice, "run", "--rm", name, "cat", "/who") == "a"
    bench.built(alice, "FROM busybox\nRUN echo again > /who\n", "-t", "bk/mine")
    assert bench.lab.ok(alice, "run", "--rm", "bk/mine", "cat", "/who") == "again"


def test_everybody_builds_the_same_name(bench: Bench) -> None:
    """At the same time; each has the own, builds on it, and hears of it by the plain name alone."""
    users = (bench.lab.alice, bench.lab.bob)

    def made(user: str) -> str:
        return bench.built(user, f"FROM busybox\nRUN echo {user} > /who\nCMD cat /who\n", "-t", "bk-app")

    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        logs = dict(zip(users, workers.map(made, users), strict=True))
    for user in users:
        assert "naming to docker.io/library/bk-app" in logs[user]
        assert bench.lab.ok(user, "run", "--rm", "bk-app") == user
        for dockerfile in (
            "FROM bk-app\nRUN cat /who\n",
            "FROM busybox\nCOPY --from=bk-app /who /\nRUN cat /who\n",
            "FROM busybox\nRUN --mount=from=bk-app,target=/m cat /m/who\n",
            "ARG B=bk-app\nFROM $B\nRUN cat /who\n",
        ):
            log = bench.built(user, dockerfile, "--no-cache", "-t", "bk-on:1")
            assert re.search(rf"[0-9.]+ {user}$", log, re.MULTILINE), log
            assert "ds01.invalid" not in logs[user] + log
    pulled = bench.build(users[0], "FROM bk-app\nRUN cat /who\n", "--pull")
    assert pulled.status != 0, "--pull means what a registry has"
    assert "ds01.invalid" not in pulled.err
    kept = bench.files / users[0] / "metadata.json"
    bench.built(users[0], "FROM bk-app\n", "-t", "bk-app:2", "--metadata-file", str(kept))
    # The provenance in it is stored by its digest, so it stays as the engine wrote it (ADR 0019).
    assert json.loads(kept.read_text())["image.name"] == "docker.io/library/bk-app:2"


def test_a_private_image_of_anothers_is_not_read(bench: Bench) -> None:
    """By no way that a Dockerfile has, whatever it is called there; one's own is."""
    alice, bob = bench.lab.alice, bench.lab.bob
    bench.built(alice, "FROM busybox\nRUN echo hush > /hush\n", "-t", "bk/private", "-t", "bk-private")
    if bench.lab.docker(bob, "inspect", "bk/private").status == 0:
        pytest.skip("images are shared by all users here")
    bench.built(alice, "FROM bk-private\nRUN cat /hush\n")
    space = real_name(alice, "bk-private")
    for name in ("bk/private", "docker.io/bk/private:latest", space, f"{space}:latest", f"{space}-not-there"):
        for dockerfile in (
            f"FROM {name}\nRUN cat /hush\n",
            f"FROM busybox\nCOPY --from={name} /hush /\nRUN cat /hush\n",
            f"FROM busybox\nRUN --mount=from={name},target=/m cat /m/hush\n",
        ):
            refused = bench.build(bob, dockerfile)
            assert refused.status != 0, dockerfile
            assert "denied by policy" in refused.err
    named = bench.build(bob, "FROM x\nRUN cat /hush\n", "--build-context", "x=docker-image://bk/private")
    assert named.status != 0


def test_two_users_build_in_directories_of_one_name(bench: Bench) -> None:
    """At the same time, with files that look alike from outside: nobody gets the other's."""
    contexts = {}
    for user in (bench.lab.alice, bench.lab.bob):
        home = bench.files / f"home-{user}"
        (home / "project").mkdir(parents=True)
        (home / "project" / "Dockerfile").write_text("FROM busybox\nCOPY who /who\nRUN cat /who > /ran\n")
        (home / "project" / "who").write_text(user[-5:].rjust(8))
        for path in (home / "project").iterdir():
            os.utime(path, (1_700_000_000, 1_700_000_000))
        contexts[user] = home / "project"

    def build(user: str) -> str:
        for _ in range(3):
            bench.built(user, contexts[user], "-t", f"bk-{user}")
        return bench.lab.ok(user, "run", "--rm", f"bk-{user}", "cat", "/who", "/ran")

    with concurrent.futures.ThreadPoolExecutor(2) as workers:
        found = dict(zip(contexts, workers.map(build, contexts), strict=True))
    assert found == {user: user[-5:].rjust(8) * 2 for user in contexts}


def test_what_a_run_left_is_no_cache_hit_for_another(bench: Bench) -> None:
    """The same Dockerfile gives each user a number of their own, and each user the same one again."""
    context = bench.context("FROM busybox\nRUN head -c 8 /dev/urandom | od -An -tx1 > /number\n")

    def number(user: str) -> str:
        bench.built(user, context, "-t", f"bk-n-{user}")
        return bench.lab.ok(user, "run", "--rm", f"bk-n-{user}", "cat", "/number")

    alice, bob = number(bench.lab.alice), number(bench.lab.bob)
    assert alice != bob
    assert number(bench.lab.alice) == alice


def test_cache_mounts_are_each_users_own(bench: Bench) -> None:
    """Of one id, written by one and read by the other; `..` in an id leads nowhere."""
    put = "FROM busybox\nRUN --mount=type=cache,id={id},target=/c echo {text} > /c/file; cat /c/file\n"
    get = "FROM busybox\nARG NOW\nRUN --mount=type=cache,id={id},target=/c echo got:$(cat /c/file 2>/dev/null): $NOW\n"
    alice, bob = bench.lab.alice, bench.lab.bob
    bench.built(alice, put.format(id="shared", text="alice-only"))
    uid = bench.uid(alice)
    for name in ("shared", f"../ds01-{uid}/shared", f"/ds01-{uid}/shared", f"ds01-{uid}/shared"):
        log = bench.built(bob, get.format(id=name), "--build-arg", f"NOW={name}")
        assert "alice-only" not in log, log
    assert "got:alice-only:" in bench.built(alice, get.format(id="shared"))


def test_disk_usage_and_prune_are_ones_own(bench: Bench) -> None:
    """Neither shows nor removes what is the other's."""
    alice, bob = bench.lab.alice, bench.lab.bob
    for user in (alice, bob):
        bench.built(user, f"FROM busybox\nRUN --mount=type=cache,target=/c echo secret-of-{user} > /c/f\n")
    shown = bench.docker(bob, "buildx", "du", "--verbose").out
    assert f"secret-of-{bob}" in shown
    assert alice not in shown
    pruned = bench.docker(bob, "buildx", "prune", "-f")
    assert pruned.status == 0, pruned.err
    assert "exec.cachemount" not in bench.docker(bob, "buildx", "du", "--verbose").out
    assert f"secret-of-{alice}" in bench.docker(alice, "buildx", "du", "--verbose").out
    for words in (("prune", "-af"), ("prune", "-f", "--filter", "type=exec.cachemount")):
        bench.docker(bob, "buildx", *words)
    assert f"secret-of-{alice}" in bench.docker(alice, "buildx", "du", "--verbose").out


def test_the_apis_usage_and_prune_are_ones_own(bench: Bench) -> None:
    """`docker system df` and `docker system prune` ask by the Engine API."""
    alice, bob, lab = bench.lab.alice, bench.lab.bob, bench.lab
    for user in (alice, bob):
        mount = f"--mount=type=cache,id=api-of-{user},target=/c"
        bench.built(user, f"FROM busybox\nRUN {mount} echo 1 > /c/f\n")
    shown = lab.ok(bob, "system", "df", "-v", "--format", "{{json .BuildCache}}")
    assert f"api-of-{bob}" in shown
    assert alice not in shown
    assert "Total reclaimed space" in lab.ok(bob, "system", "prune", "-f")
    assert f"api-of-{bob}" not in lab.ok(bob, "system", "df", "-v", "--format", "{{json .BuildCache}}")
    assert f"api-of-{alice}" in lab.ok(alice, "system", "df", "-v", "--format", "{{json .BuildCache}}")


def test_history_is_ones_own(bench: Bench) -> None:
    """Lists, single builds, logs and removal; by name or by none."""
    alice, bob = bench.lab.alice, bench.lab.bob
    if "history" not in bench.docker(alice, "buildx", "--help").out:
        pytest.skip("this buildx has no history")
    bench.built(alice, f"FROM busybox\nRUN echo seen-by-{alice}\n")
    ref = (
        bench.docker(alice, "buildx", "history", "ls", "--format", "{{.Ref}}")
        .out.split()[0]
        .rpartition("/")[2]
    )
    assert f"seen-by-{alice}" in str(bench.docker(alice, "buildx", "history", "logs", ref))
    assert ref not in bench.docker(bob, "buildx", "history", "ls").out
    uid = bench.uid(alice)
    for name in (ref, f"ds01-{uid}-{ref}"):
        for words in (("inspect", name), ("logs", name), ("rm", name)):
            assert alice not in str(bench.docker(bob, "buildx", "history", *words))
    bench.docker(bob, "buildx", "history", "rm", "--all")
    assert ref in bench.docker(alice, "buildx", "history", "ls").out


def test_another_users_build_and_session_cannot_be_named(bench: Bench) -> None:
    """While it runs: its status, its files, its end."""
    uid = bench.uid(bench.lab.alice)
    with _building(bench, bench.lab.alice, "FROM busybox\nRUN sleep 60472\n"):
        assert eventually(lambda: bool(_cgroup_of("60472")), seconds=30)
        with _grpc(bench.lab, bench.lab.alice) as grpc:
            # Not with EarlyExit: with that, the BuildKit of 26.1 ends before it has told anything.
            asked = pb.BuildHistoryRequest(ActiveOnly=True).SerializeToString()
            events = grpc.call(f"{CONTROL}/ListenBuildHistory", asked, enough=1)
            refs = [pb.BuildHistoryEvent.FromString(one).record.Ref for one in events[1]]
        assert refs
        with _grpc(bench.lab, bench.lab.bob) as grpc:
            for ref in (*refs, f"ds01-{uid}-{refs[0]}"):
                status = grpc.call(f"{CONTROL}/Status", pb.StatusRequest(Ref=ref).SerializeToString())
                assert status[0]["grpc-status"] != "0" or not status[1]
                metadata = (("buildkit-controlapi-buildid", ref),)
                assert grpc.call(f"{BRIDGE}/Ping", b"", metadata)[0]["grpc-status"] != "0"
                assert grpc.call(f"{BRIDGE}/Return", b"", metadata)[0]["grpc-status"] != "0"
            listed = grpc.call(f"{CONTROL}/ListenBuildHistory", pb.BuildHistoryRequest(EarlyExit=True).SerializeToString())  # fmt: skip
            assert not any(ref.encode() in message for ref in refs for message in listed[1])
        assert _cgroup_of("60472")


def test_nonsense_ends_only_its_own_connection(bench: Bench) -> None:
    """Whatever is sent after the upgrade; a build beside it goes on."""
    with _building(
        bench, bench.lab.bob, "FROM busybox\nRUN sleep 5; echo done\n", "-t", "bk-beside"
    ) as beside:
        for junk in (
            b"\0" * 9000,
            b"GET / HTTP/1.1\r\n\r\n" * 9,
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\xff" * 9000,
        ):
            with connected(_socket(bench.lab, bench.lab.alice), bench.lab.alice) as client:
                client.sendall(UPGRADE)
                assert client.recv(65536).startswith(b"HTTP/1.1 101")
                client.sendall(junk)
                while client.recv(65536):
                    pass
        assert beside.wait(60) == 0
    assert '"request.failed"' not in bench.lab.log("proxy")


def test_nonsense_in_a_session_ends_only_its_own_connection(bench: Bench) -> None:
    """The client's end answers dockerd's health checks with whatever it likes; dockerd hears none of it."""
    session = UPGRADE.replace(b"/grpc", b"/session").replace(
        b"\r\n\r\n", b"\r\nX-Docker-Expose-Session-Uuid: %b\r\n\r\n"
    )
    settings = bytes.fromhex("000000040000000000")
    with _building(
        bench, bench.lab.bob, "FROM busybox\nRUN sleep 5; echo done\n", "-t", "bk-beside"
    ) as beside:
        for number, junk in enumerate(
            (
                b"\0" * 9000,
                b"GET / HTTP/1.1\r\n\r\n" * 9,
                settings + b"\xff" * 9000,
                settings + bytes.fromhex("00000401010000000388888888"),  # an answer to what nobody asked
                settings + bytes.fromhex("000000090000000001") * 2000,  # continuations without a beginning
            )
        ):
            with connected(_socket(bench.lab, bench.lab.alice), bench.lab.alice) as client:
                client.sendall(session % b"junk%d" % number)
                assert client.recv(65536).startswith(b"HTTP/1.1 101")
                client.settimeout(2)
                with suppress(
                    ConnectionError, TimeoutError
                ):  # some of it means nothing, and the session goes on
                    client.sendall(junk)
                    while client.recv(65536):
                        pass
        assert beside.wait(60) == 0
    assert '"request.failed"' not in bench.lab.log("proxy")


def test_a_killed_proxy_ends_its_builds_and_holds_no_names(old: OldBench) -> None:
    """On both ways into BuildKit: the RUN ends with the connection, and the tag can be written again."""
    lab, running = old.bench.lab, []
    contexts = {number: old.bench.context(f"FROM busybox\nRUN sleep {number}\n") for number in (60474, 60475)}
    ways = {60474: ["docker", "--config", str(old.bench.files / lab.alice), "buildx", "build"],
            60475: old.command(str(OLD_CLI), "build")}  # fmt: skip
    try:
        for number, way in ways.items():
            words = lab.command(lab.alice, *way, "-t", f"bk-killed-{number}", str(contexts[number]))
            running.append(subprocess.Popen(
                words, env=lab.environment(lab.alice), cwd="/", stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            ))  # fmt: skip
            assert eventually(partial(_is_running, str(number)), seconds=30)
        lab.kill("proxy")
        assert eventually(lambda: not _cgroup_of("60474") and not _cgroup_of("60475"), seconds=30)
    finally:
        for one in running:
            one.kill()
            one.wait()
    assert eventually(lambda: lab.docker(lab.alice, "ps").status == 0, seconds=30)
    for number in ways:
        assert old.build(lab.alice, "FROM busybox\n", "-t", f"bk-killed-{number}").status == 0


# --- where BuildKit cannot be confined ---


def test_an_old_engine_gets_the_classic_advice(clean_lab: Lab) -> None:
    """All ways in are refused with what to do, in the same words."""
    if _major(clean_lab) >= CONFINED_SINCE:
        pytest.skip("this engine's BuildKit can be confined")
    for call in ("grpc", "session"):
        request = UPGRADE.replace(b"/grpc", b"/" + call.encode()).replace(
            b"\r\n\r\n", b"\r\nX-Docker-Expose-Session-Uuid: abc\r\n\r\n"
        )
        answer = exchange(_socket(clean_lab, clean_lab.alice), clean_lab.alice, request)
        assert answer.status == 403
        assert "DOCKER_BUILDKIT=0" in answer.message

    build = b"POST /v1.41/build?version=2&session=abc HTTP/1.1\r\nHost: d\r\nContent-Length: 0\r\n\r\n"
    answer = exchange(_socket(clean_lab, clean_lab.alice), clean_lab.alice, build)
    assert answer.status == 403
    assert "DOCKER_BUILDKIT=0" in answer.message


# --- clients without buildx: POST /build?version=2 and /session ---


def _is_old(cli: Path) -> bool:
    if not cli.exists():
        return False
    said = subprocess.run([str(cli), "--version"], capture_output=True, text=True, check=False).stdout
    return said.startswith("Docker version 20.10.")


OLD_CLI = next(
    (
        path
        for path in (REPOSITORY / ".venv/clients/docker-20.10/docker", Path("/usr/bin/docker"))
        if _is_old(path)
    ),
    None,
)
COMPOSE_1 = Path("/usr/bin/docker-compose")


@dataclass(frozen=True, slots=True, kw_only=True)
class OldBench:
    """The docker CLI 20.10 with DOCKER_BUILDKIT=1 and no buildx."""

    bench: Bench

    def command(self, *words: str) -> list[str]:
        assert OLD_CLI is not None
        settings = ("DOCKER_BUILDKIT=1", "COMPOSE_DOCKER_CLI_BUILD=1", "BUILDKIT_PROGRESS=plain")
        path = f"PATH={OLD_CLI.parent}:/usr/bin:/bin"
        return ["env", f"DOCKER_CONFIG={self.bench.files}", path, *settings, *words]

    def build(self, user: str, dockerfile: str | Path, *words: str, stdin: str | None = None) -> Result:
        context = dockerfile if isinstance(dockerfile, Path) else self.bench.context(dockerfile)
        last = () if stdin is not None else (str(context),)
        command = self.command(str(OLD_CLI), "build", *words, *last)
        return self.bench.lab.run(user, *command, stdin=stdin, seconds=120)

    def built(self, user: str, dockerfile: str | Path, *words: str, stdin: str | None = None) -> str:
        result = self.build(user, dockerfile, *words, stdin=stdin)
        assert result.status == 0, result.err
        return result.err


@pytest.fixture
def old(bench: Bench) -> OldBench:
    """Skips where there is no such CLI."""
    if OLD_CLI is None:
        pytest.skip("needs a docker CLI 20.10")
    return OldBench(bench=bench)


def test_the_old_cli_builds_with_stages_caches_and_secrets(old: OldBench) -> None:
    """The image is there, runs, and is its maker's; a second build is all cache."""
    lab, secret = old.bench.lab, old.bench.files / "secret"
    secret.write_text("hush-4711")
    secret.chmod(0o644)
    context = old.bench.context(
        "FROM busybox AS one\nARG WHO\n"
        "RUN --mount=type=cache,target=/cache --mount=type=secret,id=s "
        "echo $WHO > /out; cat /run/secrets/s > /cache/s; wc -c < /cache/s > /size\n"
        "FROM busybox AS two\nCOPY --from=one /out /size /\nCOPY hello /\nLABEL mine=yes\n"
        "FROM busybox AS three\nRUN false\n",
        hello="hello",
    )
    words = ("-t", "bk-a", "--target", "two", "--build-arg", "WHO=alice", "--secret", f"id=s,src={secret}")
    old.built(lab.alice, context, *words)
    assert lab.ok(lab.alice, "run", "--rm", "bk-a", "cat", "/out", "/size", "/hello").split() == [
        "alice",
        "9",
        "hello",
    ]
    form = '{{index .Config.Labels "ds01.owner"}} {{.Config.Labels.mine}}'
    assert lab.ok(lab.alice, "inspect", "-f", form, "bk-a") == f"{lab.alice} yes"
    assert old.built(lab.alice, context, *words).count("CACHED") >= 3
    assert lab.docker(lab.bob, "rmi", "bk-a").status != 0


def test_the_old_cli_names_the_image_and_the_error(old: OldBench) -> None:
    """By `--iidfile` and `-q`; a step that fails is shown with its output."""
    alice = old.bench.lab.alice
    own = old.bench.files / "own"
    own.mkdir()
    shutil.chown(own, alice)
    iid = own / "iid"
    old.built(alice, "FROM busybox\nRUN echo 1 > /1\n", "-t", "bk-iid", "--iidfile", str(iid))
    found = old.bench.lab.ok(alice, "inspect", "-f", "{{.Id}}", "bk-iid")
    assert iid.read_text() == found
    quiet = old.build(alice, "FROM busybox\nRUN echo 1 > /1\n", "-q")
    assert quiet.out.strip() == found, quiet
    failed = old.build(alice, "FROM busybox\nRUN echo so-it-is; exit 7\n")
    assert failed.status != 0
    assert "so-it-is" in failed.err
    assert "exit code: 7" in failed.err


def test_the_old_cli_sends_contexts_in_every_way(old: OldBench) -> None:
    """A Dockerfile from elsewhere, one from standard input, a tar of any size from there; the result to the client."""
    alice, lab = old.bench.lab.alice, old.bench.lab
    context = old.bench.context(
        "FROM busybox\nRUN false\n", hello="hello", **{"Other.file": "FROM busybox\nCOPY hello /\n"}
    )
    old.built(alice, context, "-t", "bk-f", "-f", str(context / "Other.file"))
    assert lab.ok(alice, "run", "--rm", "bk-f", "cat", "/hello") == "hello"
    old.built(alice, "", "-t", "bk-alone", "-", stdin="FROM busybox\nRUN echo alone > /x\n")
    assert lab.ok(alice, "run", "--rm", "bk-alone", "cat", "/x") == "alone"
    (context / "big").write_bytes(os.urandom(20 * 1024 * 1024))
    (context / "Dockerfile").write_text("FROM busybox\nCOPY big hello /\nRUN wc -c < /big > /size\n")
    tar = old.bench.files / "context.tar"
    subprocess.run(["tar", "-C", str(context), "-cf", str(tar), "."], check=True)
    line = f"{OLD_CLI} build -t bk-tar - < {tar}"
    piped = lab.run(alice, *old.command("sh", "-c", line), seconds=120)
    assert piped.status == 0, piped.err
    assert lab.ok(alice, "run", "--rm", "bk-tar", "cat", "/size") == str(20 * 1024 * 1024)
    out = old.bench.files / "out"
    out.mkdir()
    shutil.chown(out, alice)
    stages = "FROM busybox AS b\nRUN echo made > /made\nFROM scratch\nCOPY --from=b /made /\n"
    old.built(alice, stages, "-o", f"type=local,dest={out}")
    assert (out / "made").read_text() == "made\n"


def test_a_client_of_the_api_alone_builds_with_buildkit(bench: Bench) -> None:
    """Without a session, the context as the body: of any size, within the same bounds."""
    alice, lab = bench.lab.alice, bench.lab
    data = os.urandom(5 * 1024 * 1024)

    def build(user: str, dockerfile: str, query: str) -> tuple[int, bytes]:
        spool = io.BytesIO()
        with tarfile.open(fileobj=spool, mode="w") as archive:
            for name, content in (("Dockerfile", dockerfile.encode()), ("big", data)):
                info = tarfile.TarInfo(name)
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
        head = f"POST /v1.41/build?version=2&{query} HTTP/1.1\r\nHost: d\r\nConnection: close\r\nContent-Type: application/x-tar\r\n"
        with connected(_socket(lab, user), user) as client:
            client.settimeout(100)
            client.sendall(f"{head}Content-Length: {spool.tell()}\r\n\r\n".encode() + spool.getvalue())
            said = b"".join(iter(lambda: client.recv(65536), b""))
        return int(said.split(b" ", 2)[1]), said

    dockerfile = "FROM busybox\nCOPY big /\nRUN wc -c < /big > /size\n"
    status, said = build(alice, dockerfile, "t=bk-api")
    assert status == 200, said[-2000:]
    assert b"moby.image.id" in said
    assert lab.ok(alice, "run", "--rm", "bk-api", "cat", "/size") == str(len(data))
    status, said = build(lab.bob, "FROM bk-api\nRUN cat /size\n", "t=bk-other")
    assert b"moby.image.id" not in said
    assert build(alice, dockerfile, "networkmode=host")[0] == 403
    broken = build(alice, "FROM busybox\nRUN exit 7\n", "t=bk-broken")[1]
    assert b"exit code: 7" in broken


def test_compose_1_builds_with_buildkit(old: OldBench) -> None:
    """`COMPOSE_DOCKER_CLI_BUILD=1 docker-compose build` calls that CLI."""
    if not COMPOSE_1.exists():
        pytest.skip("needs docker-compose 1")
    files = {
        "docker-compose.yml": "version: '3'\nservices: {web: {build: {context: ., args: {X: '5'}}, image: bk-one}}\n"
    }
    project = old.bench.context(
        "FROM busybox\nARG X\nRUN --mount=type=cache,target=/c echo value-$X > /x\n", **files
    )
    alice = old.bench.lab.alice
    built = old.bench.lab.run(alice, *old.command(str(COMPOSE_1), "build"), seconds=120, cwd=project)
    assert built.status == 0, built.err
    assert old.bench.lab.ok(alice, "run", "--rm", "bk-one", "cat", "/x") == "value-5"


def test_the_old_clis_run_is_in_the_users_cgroup_and_ends_with_it(old: OldBench) -> None:
    """As this machine sees it; Ctrl-C ends the build."""
    lab, uid = old.bench.lab, old.bench.uid(old.bench.lab.alice)
    context = old.bench.context("FROM busybox\nRUN sleep 60473\n")
    words = old.command(str(OLD_CLI), "build", "--cgroup-parent", "/elsewhere", str(context))
    running = subprocess.Popen(
        lab.command(lab.alice, *words), env=lab.environment(lab.alice), cwd="/", stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert eventually(lambda: bool(_cgroup_of("60473")), seconds=30)
        lines = [line for line in _cgroup_of("60473").splitlines() if line.rpartition(":")[2] != "/"]
        assert lines
        assert all(f"/ds01/{uid}/build/" in line or f"ds01-{uid}.slice/build/" in line for line in lines), (
            lines
        )
        running.send_signal(signal.SIGINT)
        assert eventually(lambda: not _cgroup_of("60473"), seconds=30)
    finally:
        running.kill()
        running.wait()


@pytest.mark.parametrize(
    ("dockerfile", "words", "said"),
    [
        ("FROM busybox\n", ("--network", "host"), "rule buildkit"),
        ("FROM busybox\n", ("--network", "container:x"), "No such container"),
        ("FROM busybox\n", ("--network", "bridge"), "rule buildkit"),
        ("FROM busybox\n", ("--build-arg", "BUILDKIT_SYNTAX=nowhere.invalid/f"), "rule buildkit"),
        ("FROM busybox\n", ("-o", "type=registry,name=x"), "rule buildkit"),
        ("FROM busybox\n", ("--add-host", "a:host-gateway"), "rule buildkit"),
        ("FROM busybox\n", ("-t", "ds01.invalid/u1/app"), "rule names"),
        ("FROM busybox\nRUN --network=host true\n", (), "not allowed"),
        ("FROM busybox\nRUN --security=insecure true\n", (), "unknown flag"),
    ],
)
def test_the_old_cli_is_refused_what_buildx_is(
    old: OldBench, dockerfile: str, words: tuple[str, ...], said: str
) -> None:
    """By the same rules, in the same words."""
    refused = old.build(old.bench.lab.alice, dockerfile, *words)
    assert refused.status != 0
    assert said in refused.err + refused.out, refused


def test_the_old_cli_follows_no_foreign_frontend(old: OldBench) -> None:
    """The engine's own reads the file."""
    old.built(old.bench.lab.alice, "# syntax=nowhere.invalid/frontend:1\nFROM busybox\nRUN echo 1\n")


def test_the_old_cli_is_kept_from_what_is_anothers(old: OldBench) -> None:
    """Private images, tags, caches of RUN and cache mounts."""
    alice, bob, lab = old.bench.lab.alice, old.bench.lab.bob, old.bench.lab
    old.built(alice, "FROM busybox\nRUN echo al''ice-only > /secret", "-t", "bk-private:2")
    for dockerfile in (
        "FROM bk-private:2\nRUN cat /secret",
        "FROM busybox\nCOPY --from=bk-private:2 /secret /\nRUN cat /secret",
    ):
        refused = old.build(bob, dockerfile, "--no-cache")
        assert refused.status != 0
        assert "alice-only" not in refused.out + refused.err
    taken = old.build(bob, "FROM busybox\nRUN echo b > /who\n", "-t", "bk-private:2")
    assert lab.ok(alice, "run", "--rm", "bk-private:2", "cat", "/secret") == "alice-only", taken
    context = old.bench.context(
        "FROM busybox\nRUN --mount=type=cache,id=one,target=/c head -c 8 /dev/urandom | od -An -tx1 | tee -a /c/n > /number; "
        "wc -l < /c/n > /count\n"
    )
    for user in (alice, bob):
        old.built(user, context, "-t", f"bk-n-{user}")
    found = [lab.ok(user, "run", "--rm", f"bk-n-{user}", "cat", "/number", "/count") for user in (alice, bob)]
    assert found[0].splitlines()[0] != found[1].splitlines()[0]
    assert [one.splitlines()[-1] for one in found] == ["1", "1"]


def test_a_session_of_anothers_cannot_be_built_with(old: OldBench) -> None:
    """Under no name that it could have: BuildKit finds no session, and asks alice's client for nothing."""
    lab = old.bench.lab
    uid = old.bench.uid(lab.alice)
    session = UPGRADE.replace(b"/grpc", b"/session").replace(
        b"\r\n\r\n",
        b"\r\nX-Docker-Expose-Session-Uuid: alicesession\r\n"
        b"X-Docker-Expose-Session-Grpc-Method: /moby.filesync.v1.FileSync/DiffCopy\r\n\r\n",
    )
    with connected(_socket(lab, lab.alice), lab.alice) as alices:
        alices.sendall(session)
        assert alices.recv(65536).startswith(b"HTTP/1.1 101")
        for name in ("alicesession", f"ds01-{uid}-alicesession", f"x:ds01-{uid}-alicesession"):
            quoted = name.replace(":", "%3A").encode()
            build = (
                b"POST /v1.41/build?version=2&remote=client-session&session=%b HTTP/1.1\r\n"
                b"Host: d\r\nConnection: close\r\nContent-Length: 0\r\n\r\n" % quoted
            )
            with connected(_socket(lab, lab.bob), lab.bob) as bobs:
                bobs.settimeout(60)
                bobs.sendall(build)
                said = b"".join(iter(lambda: bobs.recv(65536), b""))
            assert b" 403 " in said.partition(b"\r\n")[0] or b"errorDetail" in said, said
        alices.setblocking(False)
        with suppress(BlockingIOError):
            asked = alices.recv(65536)
            assert b"filesync" not in asked


# --- a gRPC client on the user's socket ---


def _socket(lab: Lab, user: str) -> Path:
    return lab.root / "run" / "users" / user / "docker.sock"


class _Grpc:
    """Calls one after another, by h2 alone."""

    def __init__(self, client: socket.socket) -> None:
        self._client = client
        self._h2 = H2Connection(H2Configuration(client_side=True, header_encoding="utf-8"))
        self._h2.initiate_connection()

    def call(
        self,
        path: str,
        message: bytes,
        metadata: tuple[tuple[str, str], ...] = (),
        *,
        enough: int | None = None,
    ) -> tuple[dict[str, str], list[bytes]]:
        """The fields of the answer's head and trailers, and its messages; of an endless stream the first `enough`."""
        stream = self._h2.get_next_available_stream_id()
        head = [(":method", "POST"), (":scheme", "http"), (":path", path), (":authority", "x")]
        self._h2.send_headers(stream, [*head, ("content-type", "application/grpc"), *metadata])
        self._h2.send_data(stream, frame(message), end_stream=True)
        headers: dict[str, str] = {}
        data = b""
        while True:
            self._client.sendall(self._h2.data_to_send())
            for event in self._h2.receive_data(self._client.recv(65536)):
                if isinstance(event, h2.ResponseReceived | h2.TrailersReceived):
                    headers |= {str(name): str(value) for name, value in event.headers}
                elif isinstance(event, h2.DataReceived):
                    data += event.data
                    self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, h2.StreamEnded | h2.StreamReset):
                    return headers, _messages(data)
            if enough is not None and len(found := _messages(data)) >= enough:
                return headers, found


def _messages(data: bytes) -> list[bytes]:
    found = []
    while data:
        size = int.from_bytes(data[1:5], "big")
        found.append(data[5 : 5 + size])
        data = data[5 + size :]
    return found


@contextmanager
def _grpc(lab: Lab, user: str) -> Iterator[_Grpc]:
    with connected(_socket(lab, user), user) as client:
        client.sendall(UPGRADE)
        head = client.recv(65536)
        assert head.startswith(b"HTTP/1.1 101"), head
        yield _Grpc(client)


def test_buildkit_reads_no_private_image_of_others(bench: Bench) -> None:
    """By FROM, COPY --from, a mount and a named context; one's own images it reads, and shared ones."""
    alice, bob = bench.lab.alice, bench.lab.bob
    bench.built(alice, "FROM busybox\nRUN echo al''ice-only > /secret", "-t", "bk-private:1", "--load")
    bench.built(bob, "FROM busybox\nRUN echo mine > /own", "-t", "bk-own:1", "--load")
    assert "mine" in bench.built(bob, "FROM bk-own:1\nRUN cat /own")
    shared = f"{real_name(alice, 'bk-private')}:1"
    reading = (
        (f"FROM {shared}\nRUN cat /secret", ()),
        ("FROM bk-private:1\nRUN cat /secret", ()),
        ("FROM docker.io/library/bk-private:1\nRUN cat /secret", ()),
        ("FROM busybox\nCOPY --from=bk-private:1 /secret /\nRUN cat /secret", ()),
        ("FROM busybox\nRUN --mount=type=bind,from=bk-private:1,target=/m cat /m/secret", ()),
        ("FROM base\nRUN cat /secret", ("--build-context", "base=docker-image://bk-private:1")),
    )
    for dockerfile, words in reading:
        result = bench.build(bob, dockerfile, "--no-cache", *words)
        assert "alice-only" not in result.out + result.err, (dockerfile, result.err)
        assert result.status != 0, dockerfile
    bench.lab.run(alice, "ds01", "image", "share", "bk-private:1", "--with", bob)
    assert "alice-only" in bench.built(bob, f"FROM {shared}\nRUN cat /secret", "--no-cache")
