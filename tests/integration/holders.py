"""Who had each GPU, from the create of a container to its end, by dockerd's own events and inspects: nothing passes unseen.

dockerd tells of a removal before it answers it, and ds01 gives a device to the next only after that answer: so two containers
whose times overlap have held one device at once.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from lab import unix_http

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

_LOOK_SECONDS = 30
_WANTED = json.dumps({"type": ["container"], "event": ["create", "destroy"]})


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A container is there from now on, or no more."""

    container: str
    begins: bool


def overlaps(moments: Iterable[Moment], devices: Mapping[str, frozenset[str]]) -> list[str]:
    """Each time that a container came while another had a device of its own. Args: devices: by container."""
    has: dict[str, set[str]] = {}
    found = []
    for moment in moments:
        for device in sorted(devices[moment.container]):
            holders = has.setdefault(device, set())
            if not moment.begins:
                holders.discard(moment.container)
                continue
            found += [
                f"{device}: {moment.container[:12]} came while {other[:12]} had it" for other in holders
            ]
            holders.add(moment.container)
    return found


def devices_of(container: Mapping[str, Any]) -> list[str]:
    """The GPUs the engine was told to hand over; the hook, where it acts, is told the same."""
    names = [
        name.removeprefix("nvidia.com/gpu=")
        for request in container["HostConfig"]["DeviceRequests"] or ()
        for name in request["DeviceIDs"]
    ]
    said = [item for item in container["Config"]["Env"] or () if item.startswith("NVIDIA_VISIBLE_DEVICES=")]
    assert said in ([], ["NVIDIA_VISIBLE_DEVICES=void"], [f"NVIDIA_VISIBLE_DEVICES={','.join(names)}"])
    return names


class Holders:
    """What becomes of all containers while the body runs.

    looked_at: containers of which dockerd said the devices; of one that was gone before that, the ledger does.
    """

    def __init__(self, engine: Path, allocator: Path) -> None:
        """Args: engine: dockerd's own socket, open to root."""
        self._engine, self._allocator = engine, allocator
        self._moments: list[Moment] = []
        self._devices: dict[str, frozenset[str]] = {}
        self._leases: dict[str, str] = {}  # of those that could not be looked at
        self.looked_at = 0
        self._problem: BaseException | None = None
        self._events = http.client.HTTPConnection("docker", timeout=None)
        self._thread = threading.Thread(target=self._follow)

    def __enter__(self) -> Self:
        self._events.sock = socket.socket(socket.AF_UNIX)
        self._events.sock.connect(str(self._engine))
        self._events.request("GET", "/events?filters=" + _WANTED.replace(" ", "").replace('"', "%22"))
        self._answer = self._events.getresponse()
        assert self._answer.status == 200
        for listed in json.loads(unix_http.call(self._engine, "GET", "/containers/json?all=1").body):
            self._begin(listed["Id"], "")
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        time.sleep(0.5)  # the last events are on their way
        with contextlib.suppress(OSError):
            self._events.sock.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._answer.close()
        self._events.close()
        for container, lease in self._leases.items():
            reply = unix_http.call(self._allocator, "GET", f"/v1/leases/{lease}")
            self._devices[container] = frozenset(json.loads(reply.body)["devices"])

    def doubles(self) -> list[str]:
        """Each time that a device had two holders. Raises: whatever kept the events from being followed."""
        if self._problem is not None:
            raise self._problem
        return overlaps(self._moments, self._devices)

    def most_at_once(self) -> int:
        """How many devices were held at the same time, at most."""
        held = most = 0
        for moment in self._moments:
            number = len(self._devices[moment.container])
            held += number if moment.begins else -number
            most = max(most, held)
        return most

    def _follow(self) -> None:
        try:
            while line := self._answer.readline():
                event = json.loads(line)
                container, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
                if event["Action"] == "create":
                    self._begin(container, attributes.get("ds01.lease", ""))
                elif container in self._devices or container in self._leases:
                    self._moments.append(Moment(container=container, begins=False))
        except (OSError, http.client.HTTPException):
            pass  # the body has ended
        except BaseException as error:  # noqa: BLE001  told by `doubles`, not lost in a thread
            self._problem = error

    def _begin(self, container: str, lease: str) -> None:
        if container in self._devices or container in self._leases:
            return  # listed, and told as well
        found = self._look(container)
        if found is not None:
            self._devices[container] = frozenset(found)
            self.looked_at += 1
        elif lease:
            self._leases[container] = lease
        else:
            self._devices[container] = frozenset()
        self._moments.append(Moment(container=container, begins=True))

    def _look(self, container: str) -> list[str] | None:
        """None: it is gone. While the plugin is away dockerd cannot say."""
        until = time.monotonic() + _LOOK_SECONDS
        while True:
            reply = unix_http.call(self._engine, "GET", f"/containers/{container}/json")
            if reply.status == 200:
                return devices_of(json.loads(reply.body))
            if reply.status == 404:
                return None
            assert time.monotonic() < until, reply
            time.sleep(0.1)
