"""Containers through ds01's admin socket: plain Engine API, decided and audited by the proxy like every other call."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from lifecycle.asking import UnixHttp
from lifecycle.ports import Container, NotStopped
from policy.model import ContainerId, LeaseId

if TYPE_CHECKING:
    from pathlib import Path

_LEASE_LABEL = "ds01.lease"
_DEFAULT_STOP_SECONDS = 10  # SOURCE: Engine API 1.41, ContainerStop
_MOST_STOP_SECONDS = (
    300  # SOURCE: policy.rules.timing; a container from before it may say more, or "for ever"
)
_SLACK_SECONDS = 30  # from SIGKILL to the answer
_MESSAGE_LETTERS = 500


class _State(msgspec.Struct):
    Running: bool


class _Config(msgspec.Struct):
    Labels: dict[str, str] | None = None
    StopTimeout: int | None = None


class _Inspected(msgspec.Struct):
    Id: str
    Name: str
    State: _State
    Config: _Config


class _Error(msgspec.Struct):
    message: str


class AdminClient:
    """Looks at containers and stops them."""

    def __init__(self, socket: Path) -> None:
        self._http = UnixHttp(socket, name="proxy")

    async def close(self) -> None:
        await self._http.close()

    async def look(self, container: ContainerId) -> Container | None:
        """The container now; None: there is none. Raises: Unavailable."""
        status, body = await self._http.ask("GET", f"/containers/{container}/json")
        if status == 404:
            return None
        found = self._http.parse(body, _Inspected, status=status)
        if found.Id != container:  # a name can be spelled like an id
            raise self._http.odd(status)
        lease = (found.Config.Labels or {}).get(_LEASE_LABEL)
        return Container(
            id=container,
            name=found.Name.removeprefix("/"),
            lease=LeaseId(lease) if lease else None,
            running=found.State.Running,
            stop_seconds=found.Config.StopTimeout,
        )

    async def stop(self, container: Container) -> None:
        """Stop it with its own signal and time, at most five minutes, then by SIGKILL.

        A paused one is thawed by the engine itself, so that it gets its signal (tests/integration/test_dockerd_facts.py).
        Raises: NotStopped, Unavailable.
        """
        seconds = _stop_seconds(container)
        path = f"/containers/{container.id}/stop?t={seconds}"
        status, body = await self._http.ask("POST", path, seconds=seconds + _SLACK_SECONDS)
        if status not in (204, 304, 404):  # stopped, had stopped, is gone
            raise NotStopped(_message(status, body))


def _stop_seconds(container: Container) -> int:
    asked = container.stop_seconds
    if asked is None:
        return _DEFAULT_STOP_SECONDS
    return asked if 0 <= asked <= _MOST_STOP_SECONDS else _MOST_STOP_SECONDS


def _message(status: int, body: bytes) -> str:
    try:
        text = msgspec.json.decode(body, type=_Error).message
    except ValueError:
        text = "no reason given"
    return f"{status}: {text[:_MESSAGE_LETTERS]}"
