"""The allocator's answer, or that it gave none."""

from __future__ import annotations

import json
import socket
import threading
from typing import TYPE_CHECKING

import pytest

from policy.model import ContainerId, DeviceUuid, LeaseId
from runtime.leases import AllocatorClient
from runtime.ports import Lease, LeaseOver, LeasesUnavailable

if TYPE_CHECKING:
    from pathlib import Path

ID = "a" * 64
ANSWER = {"id": "L1", "state": "active", "devices": ["GPU-1"], "container_id": ID, "owner_uid": 1}


def answering(path: Path, answer: bytes) -> list[bytes]:
    """One connection, answered with these bytes. Returns: where the request will be."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()
    asked: list[bytes] = []

    def serve() -> None:
        with listening, listening.accept()[0] as connection:
            data = b""
            while not data.endswith(b"}"):  # head and body come in pieces
                data += connection.recv(4096)
            asked.append(data)
            connection.sendall(answer)

    threading.Thread(target=serve, daemon=True).start()
    return asked


def http(status: str, body: bytes) -> bytes:
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def test_a_lease_is_fetched(tmp_path: Path) -> None:
    """What it grants, to which container, and whether it still does."""
    asked = answering(tmp_path / "s", http("200 OK", json.dumps(ANSWER).encode()))
    assert AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID)) == Lease(
        state="active", devices=frozenset({DeviceUuid("GPU-1")}), container=ContainerId(ID)
    )
    assert asked[0].startswith(b"POST /v1/leases/L1/start HTTP/1.1\r\n")


def test_an_unconfirmed_lease_has_no_container(tmp_path: Path) -> None:
    """None, and not an empty name."""
    answering(tmp_path / "s", http("200 OK", json.dumps({**ANSWER, "container_id": None}).encode()))
    lease = AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID))
    assert lease is not None
    assert lease.container is None


def test_no_such_lease_is_an_answer(tmp_path: Path) -> None:
    """It is not unknown."""
    answering(tmp_path / "s", http("404 Not Found", b"{}"))
    assert AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID)) is None


def test_a_lease_that_is_over_says_why(tmp_path: Path) -> None:
    """In the allocator's words, which are the user's."""
    said = "ds01: MIG device 2:0 of this container is another one by now"
    answering(tmp_path / "s", http("409 Conflict", json.dumps({"message": said}).encode()))
    with pytest.raises(LeaseOver, match=said):
        AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID))


def test_an_allocator_that_cannot_tell_says_why(tmp_path: Path) -> None:
    """In its own words: somebody has to do something, or to wait."""
    said = "ds01: device MIG-1 is being made again after the reboot"
    answering(tmp_path / "s", http("503 Service Unavailable", json.dumps({"message": said}).encode()))
    with pytest.raises(LeasesUnavailable, match=r"^device MIG-1 is being made again"):
        AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID))


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"x",
        http("503 X", b"{}"),
        http("409 Conflict", b"{}"),
        http("403 X", b"{}"),
        http("200 OK", b"{}"),
        http("200 OK", b"nothing"),
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{",
    ],
)
def test_anything_else_is_no_word(tmp_path: Path, answer: bytes) -> None:
    """Unknown is never granted."""
    answering(tmp_path / "s", answer)
    with pytest.raises(LeasesUnavailable):
        AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID))


def test_a_dead_allocator_says_nothing(tmp_path: Path) -> None:
    """No socket, or nobody behind it."""
    with pytest.raises(LeasesUnavailable):
        AllocatorClient(tmp_path / "none").start(LeaseId("L1"), ContainerId(ID))
    with socket.socket(socket.AF_UNIX) as gone:
        gone.bind(str(tmp_path / "s"))
    with pytest.raises(LeasesUnavailable):
        AllocatorClient(tmp_path / "s").start(LeaseId("L1"), ContainerId(ID))
