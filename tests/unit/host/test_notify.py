"""Telling systemd, or nobody."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

import pytest

from host.notify import notify

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("abstract", [False, True])
def test_states_reach_the_socket(tmp_path: Path, abstract: bool) -> None:
    """One datagram, one state a line; abstract addresses begin with @."""
    name = f"@ds01-test-{os.getpid()}" if abstract else str(tmp_path / "n")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind("\0" + name[1:] if abstract else name)
        assert notify("READY=1", "STATUS=ok", environment={"NOTIFY_SOCKET": name})
        assert listener.recv(100) == b"READY=1\nSTATUS=ok"


@pytest.mark.parametrize("address", ["", "relative", "/gone/n"])
def test_nobody_listening_is_no_error(address: str) -> None:
    """A service runs without systemd as well."""
    assert not notify("READY=1", environment={"NOTIFY_SOCKET": address})
