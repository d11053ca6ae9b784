"""Stand-ins are there before dockerd is told of them, and go when no container has them."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policy.dockerapi.model import Operation
from policy.model import Uid
from policy.stand_ins import StandIn, StandIns
from socket_proxy.refusals import Refusal
from socket_proxy.stand_ins import StandInStore, make
from socket_proxy.transaction import Transaction
from tests.fakes.proxy_world import ALICE
from tests.fakes.transactions import transaction

SOCKET = "/run/ds01/users/alice/docker.sock"


class Case:
    """A store with a clock of its own."""

    def __init__(self, room: Path) -> None:
        self.now = 1_000_000.0
        self.stand_ins = StandIns(str(room / "sources"))
        self.store = StandInStore(self.stand_ins, clock=lambda: self.now)

    def path(self, source: str, *, uid: Uid = ALICE.uid) -> Path:
        return Path(self.stand_ins.path(StandIn(source=source, uid=uid, read_only=False)))

    async def put(self, *binds: str) -> Transaction | Refusal:
        body: dict[str, Any] = {"Image": "x", "HostConfig": {"Binds": list(binds)}}
        made, _ = transaction(Operation.CONTAINER_CREATE, body)
        return await self.store.put(replace(made, user_socket=SOCKET))

    def left(self) -> list[str]:
        root = Path(self.stand_ins.root)
        return sorted(str(path.relative_to(root)) for path in root.rglob("*"))


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


async def test_a_create_names_stand_ins_that_are_there(case: Case) -> None:
    """For root alone, and as often as it is asked; what the client asked stays known."""
    binds = ("/home/alice/d:/d", "/home/alice:/h:rslave", f"{SOCKET}:/s", "v:/v", "/anon")
    await case.put(*binds)
    told = await case.put(*binds)
    assert isinstance(told, Transaction)
    body: Any = told.request.body
    paths = [case.path("/home/alice/d"), case.path("/home/alice")]
    expected = [f"{paths[0]}:/d", f"{paths[1]}:/h:rslave", f"{SOCKET}:/s", "v:/v", "/anon"]
    assert body["HostConfig"]["Binds"] == expected
    assert all(path.is_dir() for path in paths)
    assert case.path("/x").parents[2].stat().st_mode & 0o777 == 0o700
    asked: Any = told.asked.body
    assert asked["HostConfig"]["Binds"][0] == "/home/alice/d:/d"


async def test_a_path_that_is_too_long_is_refused(case: Case) -> None:
    """dockerd could not mount it; the user is told which rule says so."""
    told = await case.put("/home/alice" + "/d" * 2040 + ":/d")
    assert isinstance(told, Refusal)
    assert (told.status, told.rules) == (403, ("bind_mounts",))
    assert "File name too long (rule bind_mounts); use a shorter path" in told.message


def test_one_that_is_there_is_not_looked_at(case: Case) -> None:
    """A file of the user's may be pinned on it, on a file system that never answers; nor are its times changed."""
    path = case.path("/home/alice/f")
    make(path.parent)
    path.touch()
    os.utime(path, (1, 1))
    make(path)
    assert (path.is_file(), path.stat().st_mtime) == (True, 1)


async def test_those_of_no_container_go_after_a_while(case: Case) -> None:
    """A create that is on its way has no approval yet; directories above go with the last."""
    await case.put("/home/alice/d:/d", "/home/alice:/h")
    kept = frozenset({str(case.path("/home/alice"))})
    case.store.sweep(kept)
    assert case.path("/home/alice/d").is_dir()
    case.now += 1000
    case.store.sweep(kept)
    assert not case.path("/home/alice/d").exists()
    assert case.path("/home/alice").is_dir()
    case.store.sweep(frozenset())
    assert case.left() == []


def test_what_a_former_proxy_left_goes(case: Case) -> None:
    """Files as well as directories, whoever's they were."""
    make(case.path("/a/b", uid=Uid(7)))
    file = case.path("/a/f")
    make(file.parent)
    file.touch()
    case.store.sweep(frozenset())
    assert case.left() == []


def test_what_lies_in_one_is_never_lost(case: Case) -> None:
    """It can be a user's own directory: a sweep goes into none, and removes none that holds anything."""
    directory, file = case.path("/a/d"), case.path("/a/f")
    make(directory)
    (directory / "empty").mkdir()
    file.write_text("x")
    case.store.sweep(frozenset())
    assert (directory / "empty").is_dir()
    assert file.read_text() == "x"


def test_a_sweep_beside_creates_takes_none_of_theirs_away(case: Case) -> None:
    """The directory above a new stand-in may go just before it is made."""
    stop = threading.Event()

    def sweep() -> None:
        while not stop.is_set():
            case.store.sweep(frozenset())

    sweeper = threading.Thread(target=sweep)
    sweeper.start()
    try:
        for number in range(2000):
            make(case.path(f"/a/b{number % 3}/c/d"))
    finally:
        stop.set()
        sweeper.join()
