"""Which code answers which operation: a handler of its own, or the one for its kind of answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.dockerapi.model import Operation
from policy.dockerapi.routes import ROUTE_OF
from policy.sharing import NEEDS
from socket_proxy.answers import Answers
from socket_proxy.containers import Containers
from socket_proxy.fulfil import Fulfilled
from socket_proxy.tethers import Tethers
from socket_proxy.transaction import Handler


class Handlers:
    """A table with exactly one handler for each operation that can be allowed."""

    def __init__(
        self,
        *,
        answers: Answers,
        containers: Containers,
        others: Iterable[Mapping[Operation, Handler]],
        tethers: Tethers | None = None,
    ) -> None:
        """`others`: the tables of all other rooms that handle operations; `tethers` ends what a share permitted."""
        self._containers = containers
        own: dict[Operation, Handler] = dict(containers.by_operation)
        for table in others:
            own |= table
        self._table: dict[Operation, Handler] = {
            operation: own.get(operation) or answers.by_kind[route.answer]
            for operation, route in ROUTE_OF.items()
        }
        if tethers is not None:
            self._table |= {operation: tethers.holding(self._table[operation]) for operation in NEEDS}

    def of(self, operation: Operation) -> Handler:
        return self._table[operation]

    async def give_back(self, fulfilled: Fulfilled) -> None:
        """The request will not be sent after all: its lease goes back."""
        if fulfilled.lease is not None:
            await self._containers.release(fulfilled.lease, "the request was not sent")
