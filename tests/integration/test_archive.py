"""`docker cp` on a real engine: what dockerd would extract as root comes out harmless, and clients notice nothing."""

from __future__ import annotations

import gzip
import io
import pwd
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.raw_socket import Answer, ask
from tests.integration.conftest import Lab

pytestmark = pytest.mark.dockerd


@pytest.fixture
def bound(clean_lab: Lab) -> Iterator[Path]:
    """Alice's folder, mounted at /files in her running container `box`."""
    folder = Path(f"/home/{clean_lab.alice}/cp")
    clean_lab.run(clean_lab.alice, "mkdir", str(folder))
    clean_lab.ok(
        clean_lab.alice, "run", "-d", "--name", "box", "-v", f"{folder}:/files", "busybox", "sleep", "600"
    )
    yield folder
    clean_lab.docker(clean_lab.alice, "rm", "-f", "box")
    clean_lab.run("root", "rm", "-rf", str(folder))


def tar(*members: tuple[str, bytes, dict[str, object]]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as made:
        for name, kind, more in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            for key, value in more.items():
                setattr(info, key, value)
            made.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def put(lab: Lab, data: bytes, path: str = "/", query: str = "") -> Answer:
    socket = lab.root / "run/users" / lab.alice / "docker.sock"
    target = f"/v1.41/containers/box/archive?path={path}{query}"
    return ask(socket, lab.alice, "PUT", target, data, **{"Content-Type": "application/x-tar"})


HOSTILE = tar(
    ("files/suid", tarfile.REGTYPE, {"mode": 0o6755, "size": 5, "uid": 0}),
    ("files/disk", tarfile.BLKTYPE, {"devmajor": 8, "devminor": 0, "mode": 0o666}),
    ("files/mem", tarfile.CHRTYPE, {"devmajor": 1, "devminor": 1, "mode": 0o666}),
    ("files/pipe", tarfile.FIFOTYPE, {"mode": 0o666}),
    ("files/deep/er", tarfile.REGTYPE, {"mode": 0o644, "size": 3, "uid": 12345, "gid": 6}),
    ("etc/kept", tarfile.REGTYPE, {"mode": 0o4640, "size": 1, "uid": 7, "gid": 8}),
)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("query", ["", "&copyUIDGID=1"])
def test_nothing_dangerous_is_extracted(clean_lab: Lab, bound: Path, query: str, *, packed: bool) -> None:
    """No device node, no fifo, no setuid bit, and in a bind mount everything is its owner's."""
    answer = put(clean_lab, gzip.compress(HOSTILE) if packed else HOSTILE, query=query)
    assert answer.status == 200, answer
    assert sorted(path.name for path in bound.iterdir()) == ["deep", "suid"]
    found = (bound / "suid").stat()
    assert stat.S_IMODE(found.st_mode) == 0o755
    owner = pwd.getpwnam(clean_lab.alice)
    if not query:  # -a means the container's own account, where the tar goes to more than a bind mount
        assert (found.st_uid, found.st_gid) == (owner.pw_uid, owner.pw_gid)
        assert (bound / "deep/er").stat().st_uid == owner.pw_uid
        elsewhere = clean_lab.ok(clean_lab.alice, "exec", "box", "stat", "-c", "%u:%g:%a", "/etc/kept")
        assert elsewhere == "7:8:640"


def test_docker_cp_with_archive_into_a_bind_mount(clean_lab: Lab, bound: Path) -> None:
    """`-a` gives files to the container's account, root here; in a bind mount they are the owner's all the same."""
    source = Path(f"/home/{clean_lab.alice}/for-cp")
    source.write_text("x")
    try:
        clean_lab.ok(clean_lab.alice, "cp", "-a", str(source), "box:/files/copied")
    finally:
        source.unlink()
    assert (bound / "copied").stat().st_uid == pwd.getpwnam(clean_lab.alice).pw_uid


@pytest.mark.parametrize(
    "data",
    [
        tar(("l", tarfile.SYMTYPE, {"linkname": "/files"}), ("l/x", tarfile.REGTYPE, {"size": 1})),
        tar(("../../x", tarfile.REGTYPE, {"size": 1})),
        HOSTILE[:700],
        gzip.compress(HOSTILE)[:-9],
        b"\x28\xb5\x2f\xfd" + b"x" * 600,
        b"no tar at all" * 100,
    ],
    ids=["through-a-link", "dots", "cut", "gzip-cut", "zstd", "garbage"],
)
def test_what_is_no_honest_tar_is_refused(clean_lab: Lab, bound: Path, data: bytes) -> None:
    """With words, and the connection of the next client is not harmed."""
    answer = put(clean_lab, data)
    assert answer.status == 400, answer
    assert "malformed request" in answer.message
    assert not (bound / "x").exists()
    assert put(clean_lab, HOSTILE).status == 200


def test_configs_and_secrets_of_compose_come_as_they_were_sent(clean_lab: Lab, bound: Path) -> None:
    """compose puts them at `/` of a container that was not started yet, by full name, with owner and mode."""
    del bound
    clean_lab.ok(
        clean_lab.alice, "create", "--name", "app", "busybox", "stat", "-c", "%u:%g:%a", "/run/secrets/word"
    )
    data = tar(("/run/secrets/word", tarfile.REGTYPE, {"mode": 0o440, "uid": 103, "gid": 104, "size": 4}))
    target = "/v1.41/containers/app/archive?noOverwriteDirNonDir=true&path=%2F"
    socket = clean_lab.root / "run/users" / clean_lab.alice / "docker.sock"
    assert (
        ask(socket, clean_lab.alice, "PUT", target, data, **{"Content-Type": "application/x-tar"}).status
        == 200
    )
    assert clean_lab.ok(clean_lab.alice, "start", "-a", "app") == "103:104:440"


def test_docker_cp_copies_as_ever(clean_lab: Lab, bound: Path) -> None:
    """Files, trees with links, names of all kinds and a large file, there and back."""
    home = Path(f"/home/{clean_lab.alice}")
    script = (
        "mkdir -p tree/sub && echo hello >tree/sub/file && ln -s file tree/sub/link && ln tree/sub/file tree/hard && "
        "touch 'tree/a name with spaces' tree/ünï && head -c 3000000 /dev/urandom >tree/large && chmod 750 tree/sub"
    )
    try:
        clean_lab.run(clean_lab.alice, "sh", "-c", script, cwd=home)
        clean_lab.ok(clean_lab.alice, "cp", f"{home}/tree", "box:/tmp")
        clean_lab.ok(clean_lab.alice, "cp", f"{home}/tree/sub/file", "box:/files/renamed")
        clean_lab.ok(clean_lab.alice, "cp", "box:/tmp/tree", f"{home}/back")
        same = clean_lab.run(clean_lab.alice, "diff", "-r", "--no-dereference", "tree", "back", cwd=home)
        assert (same.status, same.out) == (0, "")
        assert (bound / "renamed").read_text() == "hello\n"
        modes = clean_lab.ok(clean_lab.alice, "exec", "box", "stat", "-c", "%a", "/tmp/tree/sub")
        assert modes == "750"
        assert clean_lab.docker(clean_lab.alice, "cp", "-", "box:/tmp", stdin="").status in (0, 1)
    finally:
        clean_lab.run("root", "rm", "-rf", f"{home}/tree", f"{home}/back")
