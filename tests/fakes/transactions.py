"""An allowed request as a handler gets it, and a client that remembers the answer."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, cast

from http1.errors import ClientGone
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.routes import ROUTE_OF
from policy.model import Actor, Facts, RequestId
from socket_proxy.fulfil import Fulfilled
from socket_proxy.transaction import Transaction
from tests.fakes.proxy_world import ALICE, ENGINE

if TYPE_CHECKING:
    from collections.abc import Mapping


class Client:
    """As much of an exchange as a handler that answers as a whole needs; `left` makes the answer fail."""

    def __init__(self, operation: Operation) -> None:
        method = ROUTE_OF[operation].method
        self.head = type("Head", (), {"method": method, "chunked": False, "content_length": None})()
        self.may_hijack = False
        self.left = False
        self.status = 0
        self.body = b""

    @property
    def responded(self) -> bool:
        return self.status != 0

    def on_gone(self, callback: object) -> None:
        """Nobody leaves by himself here."""

    async def respond(self, status: int, _headers: object, body: bytes) -> None:
        if self.left:
            raise ClientGone("left")
        self.status, self.body = status, body

    def start_response(self, status: int, _headers: object, **_: object) -> None:
        self.status = status

    async def write(self, data: bytes) -> None:
        self.body += data

    async def end(self, _trailers: object) -> None:
        """The answer is whole."""

    @property
    def document(self) -> Any:
        return json.loads(self.body)


def transaction(
    operation: Operation,
    body: Mapping[str, Any] | None = None,
    *,
    actor: Actor = ALICE,
    everything: bool = False,
    query: Mapping[str, tuple[str, ...]] | None = None,
    version: tuple[int, int] = (1, 41),
    **params: str,
) -> tuple[Transaction, Client]:
    """One transaction that asks what it sends, and its client."""
    client = Client(operation)
    request = Request(operation=operation, version=version, params=params, query=query or {}, body=body)
    made = Transaction(
        exchange=cast("Any", client),
        actor=actor,
        everything=everything,
        request_id=RequestId("r1"),
        asked=request,
        request=request,
        facts=Facts(engine=ENGINE),
        fulfilled=Fulfilled(labels={}),
    )
    return made, client
