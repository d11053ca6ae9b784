"""Telling systemd how a service is doing: sd_notify(3), without its library."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


def notify(*states: str, environment: Mapping[str, str] | None = None) -> bool:
    """Send states such as "READY=1", "STATUS=...", "WATCHDOG=1", "STOPPING=1"; False when nobody listens.

    Never raises: a service does not fail because its supervisor is not there.
    """
    address = (os.environ if environment is None else environment).get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as connection:
            connection.setblocking(False)
            connection.sendto("\n".join(states).encode(), address)
    except OSError:
        return False
    return True
