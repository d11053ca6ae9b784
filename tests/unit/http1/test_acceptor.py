"""Accepting: a few at a time, and no answer for nothing to who is over the limit."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest

from http1.acceptor import Acceptor, peer_uid

SOON = 5.0


class Greeter(asyncio.Protocol):
    """Says hello, and stays."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast("asyncio.Transport", transport).write(b"hello")


class Place:
    """One listening socket with room for `room` connections."""

    def __init__(
        self, path: Path, *, room: int, hold_seconds: float = 0.1, most_held: int = 100, shared: bool = True
    ) -> None:
        self.path = path
        self.room = room
        self.begun: list[int] = []
        listening = socket.socket(socket.AF_UNIX)
        listening.bind(str(path))
        listening.listen(1024)
        self.acceptor = Acceptor(
            listening,
            admit=self._admit,
            make=self._make,
            forget=self._forget,
            most=lambda _uid: most_held,
            turn_away_seconds=hold_seconds,
            shared=shared,
        )

    def _admit(self, _uid: int) -> str | None:
        if not self.room:
            return "no room"
        self.room -= 1
        return None

    def _make(self, uid: int) -> asyncio.Protocol:
        self.begun.append(uid)
        return Greeter()

    def _forget(self, _uid: int) -> None:
        self.room += 1

    def client(self) -> socket.socket:
        """Connected; the kernel holds it until it is accepted."""
        peer = socket.socket(socket.AF_UNIX)
        try:
            peer.connect(str(self.path))
        except OSError:
            peer.close()
            raise
        peer.setblocking(False)
        return peer


@pytest.fixture
def directory() -> Iterator[Path]:
    with TemporaryDirectory() as name:
        yield Path(name)


@contextmanager
def started(*places: Place) -> Iterator[None]:
    with ExitStack() as stack:
        for place in places:
            place.acceptor.start()
            stack.callback(place.acceptor.close)
        yield


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    """This process cannot open anything while the body runs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(each.name) for each in Path("/proc/self/fd").iterdir())
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    taken: list[int] = []
    try:
        with suppress(OSError):
            while True:  # the gaps below the limit
                taken.append(os.dup(0))
        yield
    finally:
        for each in taken:
            os.close(each)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def heard(peer: socket.socket) -> bytes:
    """What the client is told next, b"" at the end."""
    return await asyncio.wait_for(asyncio.get_running_loop().sock_recv(peer, 4096), SOON)


async def test_who_is_admitted_is_served_under_its_uid(directory: Path) -> None:
    """The kernel says who it is."""
    place = Place(directory / "s", room=1)
    with started(place), place.client() as peer:
        assert await heard(peer) == b"hello"
    assert place.begun == [os.geteuid()]


async def test_a_crowd_at_one_socket_does_not_hold_up_another(directory: Path) -> None:
    """Hundreds wait at one socket, a single client at another: it is served when a few of the others are."""
    crowded, quiet = Place(directory / "c", room=1000), Place(directory / "q", room=1)
    with ExitStack() as stack:
        for _ in range(400):
            stack.enter_context(crowded.client())
        peer = stack.enter_context(quiet.client())
        stack.enter_context(started(crowded, quiet))
        assert await heard(peer) == b"hello"
        assert 0 < len(crowded.begun) < 100


async def test_without_room_the_reason_comes_after_a_while(directory: Path) -> None:
    """And the connection ends with it."""
    place = Place(directory / "s", room=0, hold_seconds=0.3)
    with started(place), place.client() as peer:
        began = asyncio.get_running_loop().time()
        told = await heard(peer)
        assert asyncio.get_running_loop().time() - began >= 0.25
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b'{"message": "no room"}' in told
        assert await heard(peer) == b""


async def test_room_that_comes_is_taken_at_once(directory: Path) -> None:
    """A burst over the limit is served as connections end, in the order in which it came."""
    place = Place(directory / "s", room=0, hold_seconds=30)
    with started(place), place.client() as first, place.client() as second:
        await asyncio.sleep(0.05)
        place.room = 1
        place.acceptor.room_for(os.geteuid() + 1)  # none of them
        place.acceptor.room_for(os.geteuid())
        assert await heard(first) == b"hello"
        with pytest.raises(BlockingIOError):
            second.recv(1)
        place.acceptor.room_for(os.geteuid())  # there is none any more
        await asyncio.sleep(0.02)
        with pytest.raises(BlockingIOError):
            second.recv(1)


async def test_room_that_another_left_is_found_in_the_end(directory: Path) -> None:
    """Nobody told of it: it is asked for once more before the refusal."""
    place = Place(directory / "s", room=0, hold_seconds=0.2)
    with started(place), place.client() as peer:
        await asyncio.sleep(0.05)
        place.room = 1
        assert await heard(peer) == b"hello"


async def test_those_who_wait_are_bounded(directory: Path) -> None:
    """Beyond that number a connection to a shared socket is refused at once."""
    place = Place(directory / "s", room=0, hold_seconds=30, most_held=1)
    with started(place), place.client() as waiting, place.client() as beyond:
        assert b"no room" in await heard(beyond)
        assert await heard(beyond) == b""
        with pytest.raises(BlockingIOError):
            waiting.recv(1)


async def test_ones_own_socket_takes_no_more_than_may_wait(directory: Path) -> None:
    """Who comes then stays with the kernel, hears nothing, and takes the place of one that is served or turned away."""
    place = Place(directory / "s", room=0, hold_seconds=0.3, most_held=1, shared=False)
    with started(place), place.client() as first, place.client() as second, place.client() as third:
        await asyncio.sleep(0.1)
        for silent in (second, third):
            with pytest.raises(BlockingIOError):
                silent.recv(1)
        place.room = 1
        place.acceptor.room_for(os.geteuid())
        assert await heard(first) == b"hello"
        began = asyncio.get_running_loop().time()
        assert b"no room" in await heard(second)
        assert asyncio.get_running_loop().time() - began >= 0.25
        place.room = 1
        assert await heard(third) == b"hello"


async def test_close_lets_go_who_stays_with_the_kernel(directory: Path) -> None:
    """A socket that takes no more for the moment is not taken from again once it is closed."""
    place = Place(directory / "s", room=0, hold_seconds=0.1, most_held=1, shared=False)
    with place.client() as first, place.client() as second:
        with started(place):
            await asyncio.sleep(0.02)
        assert await heard(first) == b""
        with pytest.raises(ConnectionResetError):
            await heard(second)
        await asyncio.sleep(0.15)


async def test_close_lets_go_who_waits(directory: Path) -> None:
    """And nobody new is accepted."""
    place = Place(directory / "s", room=0, hold_seconds=0.1)
    with place.client() as peer:
        with started(place):
            await asyncio.sleep(0.02)
        assert await heard(peer) == b""
        await asyncio.sleep(0.15)  # the moment at which it would have been asked for again
    with pytest.raises(ConnectionRefusedError):
        place.client()


async def test_without_descriptors_those_who_wait_go_on_waiting(directory: Path) -> None:
    """A process that has no descriptor left accepts again as soon as it has one."""
    place = Place(directory / "s", room=1)
    with place.client() as peer, started(place):
        with no_descriptor_left():
            await asyncio.sleep(0.02)
            assert place.begun == []
        assert await heard(peer) == b"hello"


def test_only_unix_sockets_have_a_uid() -> None:
    """Others are of nobody."""
    one, other = socket.socketpair()
    with one, other, socket.socket(socket.AF_INET) as internet:
        assert peer_uid(one) == os.geteuid()
        assert peer_uid(internet) == -1
