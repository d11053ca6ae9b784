"""Stand-ins under a real dockerd: what it makes, mounts and copies by itself, whatever is swapped meanwhile; and what clients see.

DS01_SWAP_ROUNDS sets the length of the races.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import subprocess
import tarfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from host.tree import Tree
from lab import unix_http
from tests.integration.conftest import PREFIX, Lab, engine_opened, eventually, running_lab

ROUNDS = int(os.environ.get("DS01_SWAP_ROUNDS", "100"))
pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(600 + 2 * ROUNDS)]

CONTROL_ROUNDS = 60
AT_ONCE = 4
SWAPPER = """
import ctypes, os, random, sys, time
libc = ctypes.CDLL(None)
way, link, child = sys.argv[1:4]
while True:
    libc.renameat2(-100, way.encode(), -100, link.encode(), 2)  # RENAME_EXCHANGE
    for name in (way, link):
        try:
            os.rmdir(f"{name}/{child}")  # where it is alice's own it is gone again
        except OSError:
            pass
    until = time.monotonic() + random.choice((0, 0.0002, 0.002, 0.02)) * random.random()
    while time.monotonic() < until:
        pass
"""


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose daemons these tests kill, and whose dockerd is asked directly."""
    with running_lab(f"{PREFIX}-sta", f"{PREFIX}-stb") as running:
        yield running


@pytest.fixture(autouse=True)
def clean(own: Lab) -> Iterator[None]:
    yield
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    own.clean()


@pytest.fixture
def engine(own: Lab) -> Iterator[Path]:
    """dockerd's own socket, which root has opened for a while."""
    with engine_opened(own, "tests of stand-ins") as opened:
        yield opened


def call(engine: Path, method: str, target: str, body: Any = None) -> unix_http.Reply:
    content = None if body is None else json.dumps(body).encode()
    return unix_http.call(engine, method, f"/v1.41{target}", content, timeout_seconds=60)


class Field:
    """A directory of alice's, a link of hers to root's secret, and both change places all the time."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.home = Path("/home", lab.alice)
        self.way, self.link = self.home / "way", self.home / "link"
        self.secret = lab.root / "lib" / "proxy" / "secret"  # mode 0700, root's
        for path, word in ((self.way, "mine"), (self.secret, "secret")):
            (path / "d").mkdir(parents=True)
            (path / "d" / "marker").write_text(f"{word}\n")
        self.link.symlink_to(self.secret)
        self._looking = threading.Lock()
        subprocess.run(["chown", "-hR", f"{lab.alice}:", self.way, self.link], check=True)

    def remove(self) -> None:
        subprocess.run(["rm", "-rf", self.way, self.link, self.secret], check=True)

    @contextlib.contextmanager
    def swapping(self) -> Iterator[None]:
        words = ("/usr/bin/python3", "-c", SWAPPER, str(self.way), str(self.link), "new")
        with subprocess.Popen(self.lab.command(self.lab.alice, *words)) as swapper:
            try:
                yield
            finally:
                swapper.kill()
        if self.way.is_symlink():
            self.way.unlink()
            self.link.rename(self.way)
            self.link.symlink_to(self.secret)

    def planted(self) -> list[str]:
        """What has come to root's secret that was not there; it is taken away again."""
        with self._looking:  # one looks while another takes away otherwise
            found = [path for path in self.secret.rglob("*") if path.name not in {"d", "marker"}]
            for path in found:
                subprocess.run(["rm", "-rf", path], check=True)
        return [path.name for path in found]


@pytest.fixture
def field(own: Lab) -> Iterator[Field]:
    made = Field(own)
    yield made
    made.remove()


def repeated(work: Callable[[int], list[str]], rounds: int) -> list[str]:
    """Do it again and again, some at once; gives all that was found."""
    with ThreadPoolExecutor(AT_ONCE) as threads:
        return [found for each in threads.map(work, range(rounds)) for found in each]


# --- the directory that dockerd makes itself -----------------------------------------------------------------


def starting(engine: Path, field: Field, made: list[str]) -> Callable[[int], list[str]]:
    """One start by dockerd itself, as a restart policy would; gives what came to root's secret."""

    def start(number: int) -> list[str]:
        container = made[number % len(made)]
        if call(engine, "POST", f"/containers/{container}/start").status == 204:
            call(engine, "POST", f"/containers/{container}/wait")
        return field.planted()

    return start


@pytest.mark.parametrize("form", ["-v", "--volumes-from"])
def test_a_missing_source_is_never_made_elsewhere(own: Lab, engine: Path, field: Field, form: str) -> None:
    """It is missing all the time, and the directory above it is a link to root's half of the time."""
    options = ["-v", f"{field.way}/new:/d"]
    if form == "--volumes-from":
        own.ok(own.alice, "create", "--name", "data", *options, "busybox")
        options = ["--volumes-from", "data"]
    made = [own.ok(own.alice, "create", *options, "busybox", "true") for _ in range(AT_ONCE)]
    with field.swapping():
        found = repeated(starting(engine, field, made), ROUNDS)
    assert found == []
    own.ok(own.alice, "start", "-a", made[0])
    assert (field.way / "new").owner() == own.alice, "it is made, as alice"


@pytest.mark.parametrize("form", ["Binds", "VolumesFrom"])
def test_plain_dockerd_makes_it_elsewhere(engine: Path, field: Field, form: str) -> None:
    """The control: an empty directory of root's appears where alice has no right to. Of Mounts by VolumesFrom too."""
    plain: dict[str, Any] = {"Runtime": "runc", "NetworkMode": "none"}
    body: dict[str, Any] = {"Image": "busybox", "Cmd": ["true"]}
    source = f"{field.way}/new"
    made: list[str] = []
    if form == "VolumesFrom":
        (field.way / "new").mkdir()
        mounts = [{"Type": "bind", "Source": source, "Target": "/d"}]
        made.append(created(engine, body | {"HostConfig": plain | {"Mounts": mounts}}))
        host = plain | {"VolumesFrom": made}
    else:
        host = plain | {"Binds": [f"{source}:/d"]}
    starters = [created(engine, body | {"HostConfig": host}) for _ in range(AT_ONCE)]
    try:
        with field.swapping():
            found = repeated(starting(engine, field, starters), CONTROL_ROUNDS)
    finally:
        for container in (*made, *starters):
            call(engine, "DELETE", f"/containers/{container}?force=1")
    assert "new" in found
    print(f"{form}: {len(found)} directories of root's in {CONTROL_ROUNDS} starts of plain dockerd")


def created(engine: Path, body: dict[str, Any]) -> str:
    made = call(engine, "POST", "/containers/create", body)
    assert made.status == 201, made.body
    return str(json.loads(made.body)["Id"])


# --- docker cp ------------------------------------------------------------------------------------------------


def one_file(name: str = "planted") -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        archive.addfile(tarfile.TarInfo(name))
    return spool.getvalue()


def asking(lab: Lab, method: str, target: str, body: bytes | None = None) -> unix_http.Reply:
    """As alice: on a user's socket host root counts as that user, in every thread."""
    socket = Path(lab.socket(lab.alice).removeprefix("unix://"))
    kind = "application/json" if method == "POST" else "application/x-tar"
    return unix_http.call(socket, method, f"/v1.41{target}", body, media_type=kind, timeout_seconds=60)


def test_docker_cp_never_reaches_elsewhere(own: Lab, field: Field) -> None:
    """Out of and into a source that is swapped all the time: alice's own, or a refusal."""
    made = [own.ok(own.alice, "create", "-v", f"{field.way}/d:/d", "busybox", "true") for _ in range(AT_ONCE)]
    seen: list[str] = []
    refused: list[str] = []

    def copy(number: int) -> list[str]:
        box = f"/containers/{made[number % AT_ONCE]}/archive?path="
        read = asking(own, "GET", f"{box}/d/marker")
        written = asking(own, "PUT", f"{box}/d", one_file())
        for answer in (read, written):
            (seen if answer.status == 200 else refused).append(answer.body.decode("latin-1"))
        return [word for word in ("secret",) if word.encode() in read.body] + field.planted()

    with field.swapping():
        found = repeated(copy, ROUNDS)
    assert found == []
    assert any("mine" in each for each in seen)
    assert any("leads elsewhere" in each or "leads to" in each for each in refused), refused[:3]
    assert not any("sources" in each for each in refused), refused[:3]
    assert held(own) == []
    print(f"{len(seen)} copies of alice's own, {len(refused)} refused")


def test_docker_cp_of_plain_dockerd_does(engine: Path, field: Field) -> None:
    """The control: root's secret is read, and something is left in it."""
    host = {"Runtime": "runc", "NetworkMode": "none", "Binds": [f"{field.way}/d:/d"]}
    made = [
        created(engine, {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}) for _ in range(AT_ONCE)
    ]

    def copy(number: int) -> list[str]:
        box = f"/containers/{made[number % AT_ONCE]}/archive?path="
        read = call(engine, "GET", f"{box}/d/marker")
        target = f"/v1.41{box}/d"
        unix_http.call(engine, "PUT", target, one_file(), media_type="application/x-tar", timeout_seconds=60)
        return [word for word in ("secret",) if word.encode() in read.body] + field.planted()

    try:
        with field.swapping():
            found = repeated(copy, CONTROL_ROUNDS)
    finally:
        for container in made:
            call(engine, "DELETE", f"/containers/{container}?force=1")
    assert {"secret", "planted"} <= set(found)
    print(
        f"{found.count('secret')} reads and {found.count('planted')} writes of root's in {CONTROL_ROUNDS} copies"
    )


def held(lab: Lab) -> list[str]:
    """What lies on stand-ins now, as dockerd's namespace has it."""
    root = str(Tree.under(lab.root).sources)
    table = Path(f"/proc/{lab.pid('dockerd')}/mountinfo").read_text().splitlines()
    return [point for point in (line.split()[4] for line in table) if point.startswith(root + "/")]


@pytest.fixture
def files(own: Lab) -> Iterator[Path]:
    """Directories and files of alice's."""
    folder = Path("/home", own.alice, "files")
    script = f"mkdir -p {folder}/sub {folder}/other && echo one >{folder}/f && echo two >{folder}/sub/g"
    assert own.run(own.alice, "sh", "-c", script).status == 0
    yield folder
    own.run("root", "rm", "-rf", str(folder))


@pytest.mark.parametrize("state", ["created", "running", "stopped"])
def test_docker_cp_copies_as_ever(own: Lab, files: Path, state: str) -> None:
    """Directories, single files, one bind in another, read-only ones, into and out of them; nothing of the pins stays."""
    own.ok(
        own.alice, "create", "--name", "box",
        "-v", f"{files}:/w", "-v", f"{files}/other:/w/sub/in", "-v", f"{files}/f:/etc/one", "-v", f"{files}/sub:/ro:ro",
        "--mount", f"type=bind,source={files}/sub,target=/m", "busybox", "sleep", "600",
    )  # fmt: skip
    if state != "created":
        own.ok(own.alice, "start", "box")
    if state == "stopped":
        own.ok(own.alice, "stop", "-t", "0", "box")
    new = files / "new"
    own.run(own.alice, "sh", "-c", f"echo new >{new}")
    for source, text in (
        ("/w/f", "one"),
        ("/w/sub/g", "two"),
        ("/etc/one", "one"),
        ("/ro/g", "two"),
        ("/m/g", "two"),
    ):
        assert text in own.ok(own.alice, "cp", f"box:{source}", "-"), source
    for target, path in (("/w/a", "a"), ("/w/sub/in/b", "other/b"), ("/m/c", "sub/c")):
        own.ok(own.alice, "cp", str(new), f"box:{target}")
        assert (files / path).read_text() == "new\n", target
        assert (files / path).stat().st_uid == pwd.getpwnam(own.alice).pw_uid
    refused = own.docker(own.alice, "cp", str(new), "box:/ro/no")
    assert refused.status != 0
    assert "read-only" in refused.err
    assert not (files / "sub" / "no").exists()
    own.ok(own.alice, "cp", str(new), "box:/tmp/elsewhere")
    assert "new" in own.ok(own.alice, "cp", "box:/tmp/elsewhere", "-")
    assert eventually(lambda: held(own) == [], seconds=5)
    root = Tree.under(own.root).sources
    assert [path for path in root.rglob("*") if path.is_file() and path.stat().st_size] == []


def test_a_source_of_another_kind_is_copied(own: Lab, files: Path) -> None:
    """A file where a directory was, and the other way round; the container's own mount point is of one kind, as ever."""
    for number, (script, member) in enumerate(
        [(f"echo 1 >{files}/x", "/etc/x"), (f"mkdir {files}/x; echo 1 >{files}/x/f", "/etc/x/f")] * 2
    ):
        own.run(own.alice, "sh", "-c", f"rm -rf {files}/x; {script}")
        own.ok(own.alice, "create", "--name", f"box{number}", "-v", f"{files}/x:/etc/x", "busybox", "true")
        answer = own.docker(own.alice, "cp", f"box{number}:{member}", "-")
        assert "1\n" in answer.out, answer.err


def test_mounts_of_another_container_are_copied(own: Lab, files: Path) -> None:
    """By the stand-ins of the one that made them, also when it is gone."""
    own.ok(own.alice, "create", "--name", "data", "-v", f"{files}:/w", "busybox")
    own.ok(own.alice, "create", "--name", "heir", "--volumes-from", "data:ro", "busybox", "cat", "/w/f")
    own.ok(own.alice, "rm", "data")
    own.kill("proxy")
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    assert "one" in own.ok(own.alice, "cp", "heir:/w/f", "-")
    assert own.ok(own.alice, "start", "-a", "heir") == "one"
    shown = json.loads(own.ok(own.alice, "inspect", "heir"))[0]
    assert [mount["Source"] for mount in shown["Mounts"]] == [str(files)]


def test_many_copies_at_once(own: Lab, files: Path) -> None:
    """Of one container and of two with the same source, to and fro: each whole, and no pin stays."""
    for name in ("one", "two"):
        own.ok(own.alice, "create", "--name", name, "-v", f"{files}:/w", "busybox", "true")

    def copy(number: int) -> list[str]:
        box = f"/containers/{('one', 'two')[number % 2]}/archive?path=/w"
        read = asking(own, "GET", f"{box}/f")
        written = asking(own, "PUT", box, one_file(f"n{number}"))
        good = b"one" in read.body and written.status == 200
        return [] if good else [f"{read.status} {written.status} {written.body!r}"]

    assert repeated(copy, 60) == []
    assert all((files / f"n{number}").exists() for number in range(60))
    assert eventually(lambda: held(own) == [], seconds=5)


def test_a_guard_that_dies_loses_no_copy_unsaid(own: Lab, files: Path) -> None:
    """What is told to be copied is there; the rest says so; what the dead one had pinned is taken away."""
    own.ok(own.alice, "create", "--name", "box", "-v", f"{files}:/w", "busybox", "true")
    answers: dict[int, unix_http.Reply] = {}

    def copy(number: int) -> list[str]:
        answers[number] = asking(own, "PUT", "/containers/box/archive?path=/w", one_file(f"n{number}"))
        return []

    with ThreadPoolExecutor(1) as threads:
        copying = threads.submit(repeated, copy, 40)
        while not copying.done():
            own.kill("guard")
            time.sleep(2)
        copying.result()
    done = [number for number, answer in answers.items() if answer.status == 200]
    assert done
    lost = [number for number in done if not (files / f"n{number}").exists()]
    assert lost == []
    assert all(b"ds01" in answer.body for answer in answers.values() if answer.status != 200)
    assert "one" in own.ok(own.alice, "cp", "box:/w/f", "-")
    assert eventually(lambda: held(own) == [], seconds=5)


def test_two_users_have_stand_ins_of_their_own(own: Lab, files: Path) -> None:
    """What one may read of a shared place, the other may not by the other's container."""
    bobs = Path("/home", own.bob, "files")
    own.run(own.bob, "sh", "-c", f"mkdir {bobs} && echo bobs >{bobs}/f")
    own.ok(own.alice, "create", "--name", "box", "-v", f"{files}:/w", "busybox", "true")
    own.ok(own.bob, "create", "--name", "box", "-v", f"{bobs}:/w", "busybox", "true")
    for user, text in ((own.alice, "one"), (own.bob, "bobs")):
        assert text in own.ok(user, "cp", "box:/w/f", "-")
    root = Tree.under(own.root).sources
    uids = {pwd.getpwnam(user).pw_uid for user in (own.alice, own.bob)}
    assert uids <= {int(path.name) for path in root.iterdir()}
    assert own.run(own.alice, "ls", str(root)).status != 0
    own.run("root", "rm", "-rf", str(bobs))


# --- what clients see -------------------------------------------------------------------------------------------


def test_clients_see_what_they_asked_for(own: Lab, files: Path) -> None:
    """inspect, ps, the filter by source, errors; also after the proxy starts anew and to an admin."""
    own.run(own.alice, "ln", "-s", str(files), f"{files}/self")
    binds = [f"{files}/self/sub:/a:ro", f"{files}//sub/../f:/b", f"{files}/:/c:rprivate", "vol:/d", "/e"]
    mounts = [
        {"Type": "bind", "Source": f"{files}/self", "Target": "/m", "BindOptions": {"Propagation": "private"}}
    ]
    body = json.dumps({"Image": "busybox", "HostConfig": {"Binds": binds, "Mounts": mounts}}).encode()
    made = asking(own, "POST", "/containers/create?name=box", body)
    assert made.status == 201, made.body
    for _ in range(2):
        shown = json.loads(own.ok(own.alice, "inspect", "box"))[0]
        assert shown["HostConfig"]["Binds"] == binds
        assert shown["HostConfig"]["Mounts"] == mounts
        points = {point["Destination"]: point for point in shown["Mounts"] if point["Type"] == "bind"}
        assert {target: point["Source"] for target, point in points.items()} == {
            "/a": f"{files}/self/sub", "/b": f"{files}/f", "/c": str(files), "/m": f"{files}/self",
        }  # fmt: skip
        assert [points[target]["Mode"] for target in ("/a", "/b", "/c", "/m")] == ["ro", "", "rprivate", ""]
        assert [points[target]["RW"] for target in ("/a", "/b", "/c", "/m")] == [False, True, True, True]
        assert [points[target]["Propagation"] for target in ("/a", "/m")] == ["rprivate", "private"]
        assert "/sources/" not in json.dumps(shown)
        for path in (f"{files}/sub", str(files)):
            assert own.ok(own.alice, "ps", "-aq", "--no-trunc", "--filter", f"volume={path}") == shown["Id"]
        listed = asking(own, "GET", "/containers/json?all=1").body
        assert str(files / "sub").encode() in listed
        assert b"/sources/" not in listed
        assert b"/sources/" not in asking(own, "GET", "/system/df").body
        own.kill("proxy")
        assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=30)
    admin = own.run("root", "docker", "inspect", shown["Id"], host=f"unix://{own.root}/run/admin.sock")
    assert json.loads(admin.out)[0]["HostConfig"]["Binds"][0] == f"{files}/sub:/a:ro", "what it stands for"


def test_a_source_that_is_gone_is_told_by_its_own_name(own: Lab, files: Path) -> None:
    """By --mount nothing is made; the user's path is in the words, at the create and at the start."""
    mount = f"type=bind,source={files}/gone,target=/m"
    refused = own.docker(own.alice, "create", "--mount", mount, "busybox")
    assert f"{files}/gone does not exist" in refused.err
    own.run(own.alice, "mkdir", f"{files}/gone")
    own.ok(own.alice, "create", "--name", "box", "--mount", mount, "busybox", "true")
    own.run(own.alice, "rmdir", f"{files}/gone")
    for word in ("start", "cp"):
        told = own.docker(
            own.alice, *(("start", "box") if word == "start" else ("cp", "box:/etc/passwd", "-"))
        )
        assert f"{files}/gone does not exist" in told.err
        assert "/sources/" not in told.err


def test_network_files_of_ones_own_are_mounted(own: Lab, files: Path) -> None:
    """dockerd takes /etc/hosts and its kin for its own, and keeps their sources elsewhere."""
    targets = ("hosts", "hostname", "resolv.conf")
    words = [word for name in targets for word in ("-v", f"{files}/f:/etc/{name}")]
    script = " ".join(f"/etc/{name}" for name in targets)
    assert own.ok(own.alice, "run", "--rm", *words, "busybox", "sh", "-c", f"cat {script}") == "one\none\none"
    own.ok(own.alice, "run", "-d", "--name", "box", *words, "busybox", "sleep", "600")
    own.ok(own.alice, "network", "create", "net")
    own.ok(own.alice, "network", "connect", "net", "box")
    own.ok(own.alice, "restart", "-t", "0", "box")
    assert own.ok(own.alice, "exec", "box", "cat", "/etc/hosts") == "one"
    assert (files / "f").read_text() == "one\n"


def test_stand_ins_of_no_container_are_swept(own: Lab, files: Path) -> None:
    """When the proxy starts, and by the hour; those of containers stay."""
    own.ok(own.alice, "create", "--name", "kept", "-v", f"{files}:/w", "busybox")
    own.ok(own.alice, "create", "--name", "gone", "-v", f"{files}/sub:/w", "busybox")
    own.ok(own.alice, "rm", "gone")
    root = Tree.under(own.root).sources

    def left() -> set[str]:
        return {str(path) for path in root.rglob("*")}

    assert any(path.endswith(f"rw{files}/sub") for path in left())
    own.kill("proxy")
    assert eventually(lambda: not any(path.endswith(f"rw{files}/sub") for path in left()), seconds=30)
    assert any(path.endswith(f"rw{files}") for path in left())
