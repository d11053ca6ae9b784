"""Networks."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.table.row import Route, filters, flag, text

ROUTES = (
    *(
        Route(
            method="GET",
            template=template,
            operation=Operation.NETWORK_LIST,
            outcome=Outcome.LIST,
            answer=Answer.NETWORK_LIST,
            query=filters("dangling driver id label name scope type"),
        )
        for template in ("/networks", "/networks/")
    ),
    Route(
        method="GET",
        template="/networks/{network...}",
        operation=Operation.NETWORK_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.NETWORK_INSPECT,
        query=flag("verbose") + text("scope"),
    ),
    Route(
        method="POST",
        template="/networks/create",
        operation=Operation.NETWORK_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.NETWORK_CREATE,
    ),
    Route(
        method="POST",
        template="/networks/prune",
        operation=Operation.NETWORK_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=filters("label label! until"),
    ),
    Route(
        method="POST",
        template="/networks/{network...}/connect",
        operation=Operation.NETWORK_CONNECT,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        body=bodies.NETWORK_CONNECT,
    ),
    Route(
        method="POST",
        template="/networks/{network...}/disconnect",
        operation=Operation.NETWORK_DISCONNECT,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        body=bodies.NETWORK_DISCONNECT,
    ),
    Route(
        method="DELETE",
        template="/networks/{network...}",
        operation=Operation.NETWORK_DELETE,
        outcome=Outcome.OWN,
    ),
)
