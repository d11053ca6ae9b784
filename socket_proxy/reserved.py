"""What policy says of GPUs, told to the allocator again and again: it has no policy of its own, and may have been away."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from host.users import Account
from observability import events
from observability.logging import log
from policy.compile import Policy
from policy.grants import Reservation
from policy.host_processes import HostProcesses
from policy.model import Json
from socket_proxy.refusals import Unavailable

_EVERY_SECONDS = 30
_NAME_LONGEST = 128


class Declares(Protocol):
    """The allocator, as it is told what policy says."""

    async def declare(self, reservations: Sequence[Mapping[str, Json]]) -> None: ...
    async def tell_host_rules(self, rules: Mapping[str, Json]) -> None: ...


class Declaring:
    """One task. A change of the policy arrives within its interval."""

    def __init__(
        self,
        *,
        allocator: Declares,
        policy: Callable[[], Policy],
        account: Callable[[str], Account | None],
    ) -> None:
        """Args: account: of a login name; may block."""
        self._allocator = allocator
        self._policy = policy
        self._account = account

    async def run(self) -> None:
        """Tell until cancelled."""
        while True:
            await self.tell()
            await asyncio.sleep(_EVERY_SECONDS)

    async def tell(self) -> None:
        """Tell once; what cannot be told holds up nothing else."""
        for act in (self._tell_rules, self._tell_reservations):
            try:
                await act()
            except Unavailable as error:
                log(events.EVIDENCE_UNSENT, problem=str(error))

    async def _tell_rules(self) -> None:
        await self._allocator.tell_host_rules(_rules(self._policy().document.gpu))

    async def _tell_reservations(self) -> None:
        reservations = self._policy().document.reservations
        told = [await asyncio.to_thread(self._said, item) for item in reservations]
        await self._allocator.declare([one for one in told if one is not None])

    def _said(self, item: Reservation) -> Mapping[str, Json] | None:
        """A reservation as the allocator reads it; None for a user whom this machine does not know."""
        said: dict[str, Json] = {
            "name": (item.group or item.user)[:_NAME_LONGEST],
            "count": item.gpus,
            "profile": item.profile,
            "when": item.when,
            "lead_seconds": item.lead_seconds,
        }
        if item.group:
            return said | {"group": item.group}
        account = self._account(item.user)
        return None if account is None else said | {"uid": account.uid}


def _rules(rules: HostProcesses) -> Mapping[str, Json]:
    """What becomes of GPU processes where they should not be, as the allocator reads it."""
    return {
        "host_processes": rules.host_processes.value,
        "unleased": rules.unleased.value,
        "grace_seconds": rules.grace_seconds,
        "exempt": [{"user": one.user, "until": one.until, "reason": one.reason} for one in rules.exempt],
    }
