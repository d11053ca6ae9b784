"""One decided request on its way to dockerd and back: what its handler needs to know, and nothing else."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace

from http1.server import Exchange
from policy.dockerapi.model import Request
from policy.model import Actor, Facts, RequestId
from socket_proxy.fulfil import Fulfilled
from socket_proxy.image_owners import Reader
from socket_proxy.refusals import Refusal
from socket_proxy.repeat import Reading


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """An allowed request.

    asked: what the client sent, canonical, references as the user wrote them.
    request: what goes to dockerd, with obligations applied and references bound to full ids.
    notes: what ds01 changed, one sentence each, for the Warnings of a create or update.
    """

    exchange: Exchange
    actor: Actor
    everything: bool  # the actor is an admin and sees all objects
    request_id: RequestId
    asked: Request
    request: Request
    facts: Facts
    fulfilled: Fulfilled
    notes: tuple[str, ...] = ()
    reading: Reading | None = None  # set when the same head comes again and `request` is just what it says
    networks: frozenset[str] = frozenset()  # names of root's networks that policy gives the actor
    user_socket: str = ""  # the actor's own ds01 socket, shown as Docker's in answers
    groups: tuple[str, ...] = ()  # policy groups of the actor: images are shared with groups

    @property
    def reader(self) -> Reader:
        return Reader.of(self.actor, groups=self.groups, networks=self.networks, everything=self.everything)

    def asking(self, query: Mapping[str, tuple[str, ...]]) -> Transaction:
        """The same, but for some query keys of what goes to dockerd."""
        if not query:
            return self
        request = replace(self.request, query={**self.request.query, **query})
        return replace(self, request=request, reading=None)


Handler = Callable[[Transaction], Awaitable[Refusal | None]]
"""Sends the request and answers the client; a Refusal means nothing was answered yet and this is the answer."""
