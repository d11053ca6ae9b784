"""The builder."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey, QueryKind
from policy.dockerapi.schema import BUILD_ARGS, STRING_MAP, STRINGS
from policy.dockerapi.table.row import (
    H2C,
    REGISTRY_CONFIG,
    Route,
    filters,
    flag,
    integer,
    json_of,
    text,
    texts,
)

SESSION_HEADERS = frozenset(
    {
        "x-docker-expose-session-uuid",
        "x-docker-expose-session-name",
        "x-docker-expose-session-sharedkey",
        "x-docker-expose-session-grpc-method",
    }
)


_BUILD = (
    texts("t")
    + text("dockerfile", "remote", "target", "platform", "session", "buildid", "version")
    + flag("q", "nocache", "pull", "forcerm", "squash")
    + (QueryKey(name="rm", kind=QueryKind.FLAG_ON_EMPTY),)
    + integer("memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize")
    + text("cpusetcpus", "cpusetmems", "cgroupparent", "networkmode", "isolation")
    + texts("extrahosts", "securityopt")
    + json_of("buildargs", BUILD_ARGS)
    + json_of("labels", STRING_MAP)
    + json_of("cachefrom", STRINGS)
    + json_of("ulimits", bodies.ULIMITS)
    + json_of("outputs", bodies.BUILD_OUTPUTS)
)


ROUTES = (
    Route(
        method="POST",
        template="/build",
        operation=Operation.IMAGE_BUILD,
        outcome=Outcome.CREATE,
        payload=Payload.STREAM,
        query=_BUILD,
        headers=REGISTRY_CONFIG,
    ),
    Route(
        method="POST",
        template="/build/prune",
        operation=Operation.BUILD_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 31),
        query=flag("all")
        + integer("keep-storage", "reserved-space", "max-used-space", "min-free-space")
        + filters("id parent type description inuse shared private until"),
    ),
    Route(
        method="POST",
        template="/build/cancel",
        operation=Operation.BUILD_CANCEL,
        outcome=Outcome.OWN,
        query=text("id"),
    ),
    Route(
        method="POST",
        template="/session",
        operation=Operation.SESSION,
        outcome=Outcome.OWN,
        since=(1, 31),
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=H2C,
        headers=SESSION_HEADERS,
    ),
    Route(
        method="POST",
        template="/grpc",
        operation=Operation.GRPC,
        outcome=Outcome.OWN,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=H2C,
    ),
)
