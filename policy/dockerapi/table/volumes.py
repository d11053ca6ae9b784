"""Volumes."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.table.row import Route, filters, flag, refused

ROUTES = (
    Route(
        method="GET",
        template="/volumes",
        operation=Operation.VOLUME_LIST,
        outcome=Outcome.LIST,
        answer=Answer.VOLUME_LIST,
        query=filters("dangling driver label name"),
    ),
    Route(
        method="POST",
        template="/volumes/create",
        operation=Operation.VOLUME_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.VOLUME_CREATE,
    ),
    Route(
        method="POST",
        template="/volumes/prune",
        operation=Operation.VOLUME_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=filters("all label label!"),
    ),
    Route(
        method="GET",
        template="/volumes/{volume}",
        operation=Operation.VOLUME_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.VOLUME_INSPECT,
    ),
    Route(
        method="DELETE",
        template="/volumes/{volume}",
        operation=Operation.VOLUME_DELETE,
        outcome=Outcome.OWN,
        query=flag("force"),
    ),
    *refused(Operation.SWARM_WRITE, "PUT /volumes/{volume} 1.42"),
)
