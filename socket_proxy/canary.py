"""The canary: a raw request on the engine socket must be denied, or the second gate is open.

dockerd drops an AuthZ plugin silently on some reloads. So ds01 asks the engine without a stamp, once a minute and whenever
the engine has started or reloaded its settings, and expects the plugin's refusal; anything else closes the doors until it
is right again.
"""

from __future__ import annotations

import asyncio

from http1.client import Pool
from http1.errors import UpstreamLost, UpstreamUnavailable
from observability import events
from observability.logging import log
from policy.stamp import CANARY

_EVERY_SECONDS = 60
_AGAIN_SECONDS = 1
_ANSWER_SECONDS = 5
_BODY_BYTES = 65536


class Canary:
    """Watches that the plugin is in dockerd's path."""

    def __init__(self, engine_socket: str, *, wake: asyncio.Event) -> None:
        """Ask the engine on `engine_socket`; whoever sets `wake` has it asked at once."""
        self._pool = Pool(engine_socket)
        self._wake = wake
        self.singing: bool | None = None  # None: the engine gave no answer; nothing is forwarded then either
        self.asked = asyncio.Event()  # `singing` says what was found, and not that nobody has looked yet

    async def run(self) -> None:
        """Probe until cancelled."""
        while True:
            self._wake.clear()  # before the probe: a reload during it wants another
            denied = await self.probe()
            if denied != self.singing or not denied:
                self._tell(denied=denied)
            self.singing = denied
            self.asked.set()
            try:
                await asyncio.wait_for(self._wake.wait(), _EVERY_SECONDS if denied else _AGAIN_SECONDS)
            except TimeoutError:
                continue

    @staticmethod
    def _tell(*, denied: bool | None) -> None:
        if denied:
            log(events.CANARY_PASSED, status=403)
        elif denied is False:
            log(
                events.CANARY_FAILED, status=None, problem="an unstamped request was not denied by the plugin"
            )

    async def probe(self) -> bool | None:
        """True when dockerd refused an unstamped request in the plugin's words, None when there is no dockerd."""
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                response = await self._pool.request("GET", "/v1.41/version", ((CANARY, "1"),), body=None)
                body = await response.read(_BODY_BYTES)
        except (UpstreamLost, UpstreamUnavailable):
            return None
        except TimeoutError:
            return False  # dockerd waits for a plugin that does not answer
        return response.head.status == 403 and b"authorization denied by plugin" in body and b"ds01" in body
