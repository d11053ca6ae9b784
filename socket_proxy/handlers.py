"""Which code answers which operation: a handler of its own, or the one for its kind of answer."""

from __future__ import annotations

from policy.dockerapi.model import Operation
from policy.dockerapi.routes import ROUTE_OF
from socket_proxy.answers import Answers
from socket_proxy.builds import Builds
from socket_proxy.containers import Containers
from socket_proxy.fulfil import Fulfilled
from socket_proxy.images import Images
from socket_proxy.prune import Prunes
from socket_proxy.stores import Stores
from socket_proxy.transaction import Handler


class Handlers:
    """A table with exactly one handler for each operation that can be allowed."""

    def __init__(
        self,
        *,
        answers: Answers,
        builds: Builds,
        containers: Containers,
        images: Images,
        stores: Stores,
        prunes: Prunes,
    ) -> None:
        self._containers = containers
        own = (
            containers.by_operation
            | images.by_operation
            | stores.by_operation
            | prunes.by_operation
            | builds.by_operation
        )
        self._table: dict[Operation, Handler] = {
            operation: own.get(operation) or answers.by_kind[route.answer]
            for operation, route in ROUTE_OF.items()
        }

    def of(self, operation: Operation) -> Handler:
        return self._table[operation]

    async def give_back(self, fulfilled: Fulfilled) -> None:
        """The request will not be sent after all: its lease goes back."""
        if fulfilled.lease is not None:
            await self._containers.release(fulfilled.lease, "the request was not sent")
