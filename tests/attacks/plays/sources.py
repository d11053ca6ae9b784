"""Bind sources that are swapped while dockerd works on them itself: the directory that it makes, and `docker cp`."""

from __future__ import annotations

import ctypes
import io
import os
import shutil
import tarfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API, SECRET
from tests.fakes.raw_socket import Answer, exchange, request

_LIBC = ctypes.CDLL(None, use_errno=True)
_EXCHANGE = 2  # SOURCE: renameat2(2)


@contextmanager
def _swapped(world: World, target: Path) -> Iterator[Path]:
    """A directory of alice's that is itself and a link to `target` in turns; its child `new` is always gone again."""
    home = Path(world.words["alice"])
    way, link = home / "swapped-way", home / "swapped-link"
    way.mkdir()
    shutil.chown(way, world.alice, world.alice)
    link.symlink_to(target)
    ended = threading.Event()
    held = os.open(way, os.O_PATH | os.O_DIRECTORY)

    def swap() -> None:
        while not ended.is_set():
            _LIBC.renameat2(-100, os.fsencode(way), -100, os.fsencode(link), _EXCHANGE)
            with suppress(OSError):
                os.rmdir("new", dir_fd=held)  # only where it is hers

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        yield way
    finally:
        ended.set()
        swapper.join()
        os.close(held)
        for path in (way, link):
            if path.is_symlink():
                path.unlink()
            elif path.exists():
                shutil.rmtree(path)


def _names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def _create(world: World, name: str, host: dict[str, object]) -> str:
    """Made again until the source is hers at that moment: creates are looked at too."""
    body = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    for _ in range(200):
        made = world.ask("POST", f"{API}/containers/create?name={name}", body)
        if made.status == 201:
            found: str = made.json["Id"]
            return found
    raise AssertionError(f"alice could not make {name} once in 200 times: {made.message}")


@play
def missing_source_race(world: World, *, rounds: int = 60) -> Played:
    """A source that is missing all the time, below a link to bob's directory half of the time, while the container starts.

    dockerd makes what is missing itself, as root, and follows links. An entry in bob's directory shows success.
    """
    played = Played(answers=[Answer(status=200)])
    bobs = Path(world.words["bob"], "secret")
    before = _names(bobs)
    with _swapped(world, bobs) as way:
        box = _create(world, "box", {"Binds": [f"{way}/new:/m"]})
        heir = _create(world, "heir", {"VolumesFrom": ["box"]})
        for number in range(rounds):
            for container in (box, heir):
                for call in ("start", "restart?t=0"):
                    world.ask("POST", f"{API}/containers/{container}/{call}")
            if planted := _names(bobs) - before:
                played.harm.append(f"round {number + 1} of {rounds} made {planted} in bob's directory")
                break
        for container in (heir, box):
            world.ask("DELETE", f"{API}/containers/{container}?force=1")
    for name in _names(bobs) - before:
        shutil.rmtree(bobs / name)
    return played


@play
def copy_swap_race(world: World, *, rounds: int = 60) -> Played:
    """A source that is alice's directory and a link to bob's in turns, while dockerd copies out of it and into it."""
    played = Played(answers=[Answer(status=200)])
    bobs = Path(world.words["bob"], "secret")
    before = _names(bobs)
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("planted"))
    with _swapped(world, bobs) as way:
        box = _create(world, "box", {"Binds": [f"{way}:/m"]})
        target = f"{API}/containers/{box}/archive?path=/m"
        kind = {"Content-Type": "application/x-tar"}
        for number in range(rounds):
            read = world.ask("GET", f"{target}/file")
            sent = request("PUT", target, spool.getvalue(), headers=kind)
            exchange(world.socket("alice"), world.alice, sent)
            planted = _names(bobs) - before
            if SECRET.encode() in read.body or planted:
                played.harm.append(
                    f"copy {number + 1} of {rounds} reached bob's directory: {planted or 'read'}"
                )
                break
        world.ask("DELETE", f"{API}/containers/{box}?force=1")
    for name in _names(bobs) - before:
        (bobs / name).unlink()
    return played
