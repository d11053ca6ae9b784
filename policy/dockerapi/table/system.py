"""The engine itself: what it is, what it does, whom it knows."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.table.row import ACCEPT, Route, filters, flag, text, texts

_EVENT_FILTERS = filters(
    "config container daemon event image label network node plugin scope secret service type volume"
)


ROUTES = (
    Route(
        method="GET",
        template="/_ping",
        operation=Operation.SYSTEM_PING,
        outcome=Outcome.SYSTEM,
        answer=Answer.PING,
    ),
    Route(
        method="HEAD",
        template="/_ping",
        operation=Operation.SYSTEM_PING_HEAD,
        outcome=Outcome.SYSTEM,
        answer=Answer.PING,
    ),
    Route(
        method="GET",
        template="/version",
        operation=Operation.SYSTEM_VERSION,
        outcome=Outcome.SYSTEM,
        answer=Answer.VERSION,
    ),
    Route(
        method="GET",
        template="/info",
        operation=Operation.SYSTEM_INFO,
        outcome=Outcome.SYSTEM,
        answer=Answer.INFO,
    ),
    Route(
        method="GET",
        template="/system/df",
        operation=Operation.SYSTEM_DATA_USAGE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.DISK_USAGE,
        query=texts("type") + flag("verbose"),
    ),
    Route(
        method="GET",
        template="/events",
        operation=Operation.SYSTEM_EVENTS,
        outcome=Outcome.STREAM,
        answer=Answer.EVENTS,
        query=text("since", "until") + _EVENT_FILTERS,
        headers=ACCEPT,
    ),
    Route(
        method="POST",
        template="/auth",
        operation=Operation.SYSTEM_AUTH,
        outcome=Outcome.SYSTEM,
        payload=Payload.JSON,
        body=bodies.AUTH,
    ),
)
