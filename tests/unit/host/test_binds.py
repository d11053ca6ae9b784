"""A bind source is judged with its owner's rights. Runs as root on real files and real mounts."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from host.binds import Bind, BindRefused, as_owner, check_pinned, examine, hold

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="taking another uid's rights needs root")

ALICE, BOB = 61234, 61235
_LIBC = ctypes.CDLL(None, use_errno=True)


@pytest.fixture
def home() -> Iterator[Path]:
    """Alice's home, reachable by everybody, hers alone."""
    with tempfile.TemporaryDirectory(prefix="ds01-binds-") as name:
        Path(name).chmod(0o755)
        path = Path(name) / "alice"
        path.mkdir(mode=0o750)
        os.chown(path, ALICE, ALICE)
        yield path


def look(
    source: Path | str,
    *,
    uid: int = ALICE,
    read_only: bool = False,
    create: bool = False,
    setuid_ok: bool = True,
) -> Bind | BindRefused:
    """Examine with a primary group of the same number."""
    return examine(
        str(source),
        owner_uid=uid,
        owner_gid=uid,
        owner_gids=frozenset({uid}),
        read_only=read_only,
        create=create,
        setuid_ok=setuid_ok,
    )


def own(path: Path, uid: int = ALICE) -> Path:
    os.chown(path, uid, uid, follow_symlinks=False)
    return path


def test_an_own_directory_is_accepted_with_its_identity(home: Path) -> None:
    """The answer names the very object that was looked at."""
    found = look(home)
    status = home.stat()
    assert isinstance(found, Bind)
    assert (found.source, found.device, found.inode) == (str(home), status.st_dev, status.st_ino)
    assert (found.is_directory, found.owner_uid, found.moved, found.created) == (True, ALICE, False, False)


def test_an_own_file_is_accepted(home: Path) -> None:
    """Single files are mounted too."""
    file = home / "config"
    file.write_text("x")
    own(file)
    found = look(file)
    assert isinstance(found, Bind)
    assert not found.is_directory


def test_another_users_home_is_refused(home: Path) -> None:
    """What bob cannot open he does not get mounted, though dockerd could open it."""
    found = look(home, uid=BOB)
    assert isinstance(found, BindRefused)
    assert "may not read" in found.problem


def test_what_lies_behind_a_closed_directory_is_refused(home: Path) -> None:
    """A readable directory below a closed one stays closed."""
    inner = home / "open"
    inner.mkdir()
    inner.chmod(0o777)
    found = look(inner, uid=BOB)
    assert isinstance(found, BindRefused)
    assert "Permission denied" in found.problem


def test_roots_own_directory_is_refused_though_its_name_can_be_seen() -> None:
    """O_PATH opens /root for anybody; the right to read it is asked for as well."""
    with tempfile.TemporaryDirectory() as name:
        assert isinstance(look(name), BindRefused)


def test_a_directory_one_may_only_read_must_be_mounted_read_only(home: Path) -> None:
    """Container root would write where its owner may not."""
    refused = look(home.parent)
    assert isinstance(refused, BindRefused)
    assert ":ro" in refused.next_step
    assert isinstance(look(home.parent, read_only=True), Bind)


def test_group_rights_count(home: Path) -> None:
    """Supplementary groups give what they give the owner outside Docker."""
    shared = home.parent / "shared"
    shared.mkdir()
    os.chown(shared, 0, 65000)
    shared.chmod(0o2770)
    asked: dict[str, Any] = {
        "owner_uid": ALICE,
        "owner_gid": ALICE,
        "read_only": False,
        "create": False,
        "setuid_ok": True,
    }
    assert isinstance(examine(str(shared), owner_gids=frozenset({65000}), **asked), Bind)
    assert isinstance(examine(str(shared), owner_gids=frozenset(), **asked), BindRefused)


def test_a_symbolic_link_gives_the_real_path(home: Path) -> None:
    """What is forwarded has no link left, and says that it moved."""
    (home / "data").mkdir()
    own(home / "data")
    own(home / "data", ALICE)
    (home / "link").symlink_to("data")
    found = look(home / "link")
    assert isinstance(found, Bind)
    assert found.source == str(home / "data")
    assert found.moved


def test_a_symbolic_link_opens_nothing_new(home: Path) -> None:
    """A link to what is root's leads where the owner may go: not there."""
    with tempfile.TemporaryDirectory() as secret:
        (home / "link").symlink_to(secret)
        assert isinstance(look(home / "link"), BindRefused)


@pytest.mark.parametrize("tail", ["root", "cwd", "fd/0", "exe"])
def test_magic_links_are_not_followed(home: Path, tail: str) -> None:
    """`/proc/self` here is this daemon's, whose descriptors nobody may borrow."""
    (home / "link").symlink_to(f"/proc/self/{tail}")
    assert isinstance(look(home / "link", read_only=True), BindRefused)


def test_kernel_file_systems_are_refused() -> None:
    """Nothing below /proc or /sys is ever a bind source, whatever policy says of setuid."""
    for source in ("/proc", "/proc/sys", "/sys"):
        found = look(source, read_only=True)
        assert isinstance(found, BindRefused)
        assert "file system" in found.problem


@pytest.mark.parametrize("kind", ["socket", "fifo", "device"])
def test_doors_and_devices_are_refused(home: Path, kind: str) -> None:
    """Only directories and regular files: no socket, no fifo, no device node."""
    path = home / "x"
    match kind:
        case "socket":
            with socket.socket(socket.AF_UNIX) as listener:
                listener.bind(str(path))
        case "fifo":
            os.mkfifo(path)
        case _:
            os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    own(path)
    found = look(path)
    assert isinstance(found, BindRefused)
    assert "neither" in found.problem


@pytest.mark.parametrize(
    "source", ["relative", "/a/../etc", "/a\nb", "/a\x00b", "/" + "a" * 5000, ""], ids=repr
)
def test_paths_with_two_readings_are_refused(source: str) -> None:
    """Relative, dotted, unprintable and endless paths."""
    assert isinstance(look(source), BindRefused)


def test_a_missing_directory_is_made_as_the_owner(home: Path) -> None:
    """Docker would make it as root; here it is the owner's, all the way down."""
    found = look(home / "a" / "b", create=True)
    assert isinstance(found, Bind)
    assert found.created
    assert {(home / part).stat().st_uid for part in ("a", "a/b")} == {ALICE}


def test_a_missing_directory_is_not_made_unasked(home: Path) -> None:
    """`--mount type=bind` refuses a missing source."""
    assert isinstance(look(home / "a"), BindRefused)
    assert not (home / "a").exists()


def test_nothing_is_made_where_the_owner_may_not(home: Path) -> None:
    """The daemon's own rights make no directory for anybody."""
    assert isinstance(look(home / "a", uid=BOB, create=True), BindRefused)
    assert isinstance(look(home.parent / "a", create=True), BindRefused)
    assert not (home.parent / "a").exists()


def test_a_dangling_link_is_not_created_through(home: Path) -> None:
    """A link to a missing place does not make that place."""
    (home / "link").symlink_to(home / "gone")
    assert isinstance(look(home / "link", create=True), BindRefused)
    assert not (home / "gone").exists()


def test_a_mount_that_honours_setuid_is_refused(home: Path) -> None:
    """Container root could leave a setuid file there for use on the host."""
    found = look(home, setuid_ok=False)
    assert isinstance(found, BindRefused)
    assert "nosuid,nodev" in found.problem


def _mount(target: Path, flags: int) -> None:
    assert _LIBC.mount(b"tmpfs", os.fsencode(target), b"tmpfs", flags, b"mode=0755") == 0


def _in_own_mounts(home: Path) -> list[str]:
    """Mount a safe file system, then an unsafe one below it; tell how each was judged."""
    assert _LIBC.unshare(0x00020000) == 0
    assert _LIBC.mount(b"none", b"/", None, 0x4000 | (1 << 18), None) == 0
    _mount(home, 2 | 4)
    own(home)
    safe = look(home, setuid_ok=False)
    (home / "sub").mkdir()
    _mount(home / "sub", 2)
    unsafe = look(home, setuid_ok=False)
    return [type(safe).__name__, type(unsafe).__name__, getattr(unsafe, "problem", "")]


def test_mounts_below_the_source_count(home: Path) -> None:
    """A nosuid,nodev home is accepted until something less careful is mounted inside it."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writer, "\n".join(_in_own_mounts(home)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    os.waitpid(pid, 0)
    with os.fdopen(reader) as answers:
        safe, unsafe, problem = answers.read().split("\n")
    assert (safe, unsafe) == ("Bind", "BindRefused")
    assert str(home / "sub") in problem


def test_the_rights_end_with_the_work(home: Path) -> None:
    """The caller's thread keeps its own rights, and an error reaches it."""
    as_owner((home / "f").touch, uid=ALICE, gid=ALICE, gids=frozenset())
    assert (home / "f").stat().st_uid == ALICE
    (home / "by-root").touch()
    assert (home / "by-root").stat().st_uid == 0
    with pytest.raises(ZeroDivisionError):
        as_owner(lambda: 1 // 0, uid=ALICE, gid=ALICE, gids=frozenset())


def held(
    source: Path, *, uid: int = ALICE, read_only: bool = False, create: bool = False
) -> int | BindRefused:
    return hold(
        str(source),
        owner_uid=uid,
        owner_gid=uid,
        owner_gids=frozenset({uid}),
        read_only=read_only,
        create=create,
    )


def test_a_held_source_is_the_object_itself(home: Path) -> None:
    """Whatever is put in its place afterwards."""
    source = own_directory(home / "d")
    descriptor = held(source)
    assert isinstance(descriptor, int)
    inode = source.stat().st_ino
    source.rmdir()
    source.symlink_to("/etc")
    assert os.fstat(descriptor).st_ino == inode
    os.close(descriptor)


@pytest.mark.parametrize("place", ["end", "middle"])
def test_no_link_is_followed_to_hold_a_source(home: Path, place: str) -> None:
    """Not even to what the owner could mount: at a start the path is the real one, or it leads elsewhere now."""
    own_directory(home / "real" / "sub")
    link = home / "link"
    link.symlink_to(home / "real")
    refused = held(link if place == "end" else link / "sub")
    assert isinstance(refused, BindRefused)
    assert "leads elsewhere now" in refused.problem


def test_a_missing_directory_is_made_as_its_owner_and_held(home: Path) -> None:
    """And through no link: the parents are the very directories that were opened."""
    descriptor = held(home / "a" / "b", create=True)
    assert isinstance(descriptor, int)
    assert os.fstat(descriptor).st_uid == ALICE
    os.close(descriptor)
    (home / "out").symlink_to("/tmp")
    assert isinstance(held(home / "out" / f"ds01-{os.getpid()}", create=True), BindRefused)
    assert not Path(f"/tmp/ds01-{os.getpid()}").exists()


def test_what_the_owner_may_not_use_is_not_held(home: Path) -> None:
    """The same rights as at the create."""
    (home / "roots").mkdir(mode=0o700)
    assert isinstance(held(home / "roots"), BindRefused)
    assert isinstance(held(home, uid=BOB), BindRefused)
    assert isinstance(held(home / "missing"), BindRefused)


def test_a_refusal_leaves_no_descriptor_open(home: Path) -> None:
    """Users can cause any number of them."""
    (home / "fifo").touch()
    (home / "fifo").unlink()
    os.mkfifo(home / "fifo")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for _ in range(5):
        assert isinstance(held(home / "fifo"), BindRefused)
        assert isinstance(look(home / "fifo"), BindRefused)
        assert isinstance(look(home), Bind)
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def own_directory(path: Path) -> Path:
    path.mkdir(parents=True)
    for each in (path, path.parent):
        own(each)
    return path


def test_a_pinned_tree_is_judged_by_its_own_mounts(mounts: Path) -> None:
    """Each mount at and below the pin counts, and the message names the source as its owner knows it."""
    assert check_pinned(str(mounts / "fine"), source="/s", setuid_ok=False) is None
    refused = check_pinned(str(mounts / "holed"), source="/s", setuid_ok=False)
    assert refused is not None
    assert "the file system at /s/inner is not mounted nosuid,nodev" in refused.problem
    assert check_pinned(str(mounts / "holed"), source="/s", setuid_ok=True) is None
    kernel = check_pinned(str(mounts / "kernel"), source="/s", setuid_ok=True)
    assert kernel is not None
    assert "/s is a proc file system" in kernel.problem


def test_a_pin_that_is_none_is_an_error(mounts: Path) -> None:
    """Nothing mounted is not the same as nothing wrong."""
    with pytest.raises(OSError):
        check_pinned(str(mounts / "fin"), source="/s", setuid_ok=True)


@pytest.fixture
def mounts() -> Iterator[Path]:
    """Mounts of three kinds, gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="ds01-binds-") as name:
        room = Path(name)
        for each in ("fine", "holed", "kernel"):
            (room / each).mkdir()
        made = [
            ("tmpfs", room / "fine", "nosuid,nodev"),
            ("tmpfs", room / "holed", "nosuid,nodev"),
            ("tmpfs", room / "holed" / "inner", "nodev"),
            ("proc", room / "kernel", "nosuid,nodev"),
        ]
        for kind, point, options in made:
            point.mkdir(exist_ok=True)
            subprocess.run(["mount", "-t", kind, "-o", options, "x", str(point)], check=True)
        try:
            yield room
        finally:
            for _, point, _ in reversed(made):
                subprocess.run(["umount", str(point)], check=True)
