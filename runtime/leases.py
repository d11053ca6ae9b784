"""The allocator's client: one question over its Unix socket, asked only for a container that has a lease."""

from __future__ import annotations

import http.client
import socket
from typing import TYPE_CHECKING

import msgspec

from policy.model import ContainerId, DeviceUuid
from runtime.ports import Lease, LeaseOver, LeasesUnavailable

if TYPE_CHECKING:
    from pathlib import Path

    from policy.model import LeaseId

_SECONDS = 8  # longer than the allocator waits for NVML, so that its reason arrives
_ANSWER_BYTES = 1 << 20


class _Answer(msgspec.Struct):
    state: str
    devices: list[str]
    container_id: str | None = None


class _Refusal(msgspec.Struct):
    message: str


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("allocator", timeout=_SECONDS)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(_SECONDS)
        self.sock.connect(str(self._path))


class AllocatorClient:
    """A connection for each question: starts with a lease are few."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def start(self, lease: LeaseId, container: ContainerId) -> Lease | None:
        """The lease, None when there is none. Raises: LeaseOver, LeasesUnavailable."""
        connection = _Connection(self._path)
        body = msgspec.json.encode({"container_id": container})
        try:
            connection.request("POST", f"/v1/leases/{lease}/start", body)
            response = connection.getresponse()
            body = response.read(_ANSWER_BYTES)
            if response.status == 404:
                return None
            if response.status == 409:
                raise LeaseOver(_said(body))
            if response.status == 503:
                raise LeasesUnavailable(_said(body).removeprefix("ds01: "))
            if response.status != 200:
                raise LeasesUnavailable(f"the allocator answered {response.status}")
            answer = msgspec.json.decode(body, type=_Answer)
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise LeasesUnavailable("the allocator does not answer") from error
        finally:
            connection.close()
        return Lease(
            state=answer.state,
            devices=frozenset(map(DeviceUuid, answer.devices)),
            container=ContainerId(answer.container_id) if answer.container_id else None,
        )


def _said(body: bytes) -> str:
    """The allocator's reason, which is the user's. Raises: msgspec.DecodeError."""
    return msgspec.json.decode(body, type=_Refusal).message
