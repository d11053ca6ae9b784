"""Containers and what runs in them."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey
from policy.dockerapi.schema import Struct
from policy.dockerapi.table.row import (
    ACCEPT,
    PLATFORM_TEXT,
    TCP,
    WEBSOCKET,
    Route,
    filters,
    flag,
    ignored,
    integer,
    on,
    refused,
    text,
)

_ONE = "/containers/{container}"


_CONTAINER_FILTERS = filters(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume"
)


_ATTACH = flag("stream", "stdin", "stdout", "stderr", "logs") + text("detachKeys")
_STOP = text("signal") + integer("t")
_SIZE = integer("h", "w")


WEBSOCKET_HEADERS = frozenset(
    {
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
    }
)


def _own(
    method: str,
    suffix: str,
    operation: Operation,
    query: tuple[QueryKey, ...] = (),
    *,
    answer: Answer = Answer.RELAY,
    payload: Payload = Payload.NONE,
    body: Struct | None = None,
    upgrades: frozenset[str] = frozenset(),
    headers: frozenset[str] = frozenset(),
) -> Route:
    """A call on one container of the actor's."""
    return Route(
        method=method,
        template=_ONE + suffix,
        operation=operation,
        outcome=Outcome.OWN,
        query=query,
        answer=answer,
        payload=payload,
        body=body,
        upgrades=upgrades,
        headers=headers,
    )


ROUTES = (
    Route(
        method="GET",
        template="/containers/json",
        operation=Operation.CONTAINER_LIST,
        outcome=Outcome.LIST,
        answer=Answer.CONTAINER_LIST,
        query=flag("all", "size") + integer("limit") + _CONTAINER_FILTERS + ignored("trunc_cmd"),
    ),
    Route(
        method="POST",
        template="/containers/create",
        operation=Operation.CONTAINER_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        answer=Answer.CONTAINER_CREATE,
        query=text("name") + PLATFORM_TEXT,
        body=bodies.CONTAINER_CREATE,
    ),
    Route(
        method="POST",
        template="/containers/prune",
        operation=Operation.CONTAINER_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=filters("label label! until"),
    ),
    _own("GET", "/json", Operation.CONTAINER_INSPECT, flag("size"), answer=Answer.CONTAINER_INSPECT),
    _own("GET", "/top", Operation.CONTAINER_TOP, text("ps_args")),
    _own(
        "GET",
        "/logs",
        Operation.CONTAINER_LOGS,
        flag("follow", "stdout", "stderr", "timestamps", "details") + text("since", "until", "tail"),
        headers=ACCEPT,
    ),
    _own("GET", "/changes", Operation.CONTAINER_CHANGES),
    _own("GET", "/export", Operation.CONTAINER_EXPORT),
    _own("GET", "/stats", Operation.CONTAINER_STATS, on("stream") + flag("one-shot"), answer=Answer.STATS),
    _own("HEAD", "/archive", Operation.CONTAINER_ARCHIVE_INFO, text("path")),
    _own("GET", "/archive", Operation.CONTAINER_ARCHIVE, text("path")),
    _own(
        "PUT",
        "/archive",
        Operation.PUT_CONTAINER_ARCHIVE,
        text("path") + flag("noOverwriteDirNonDir", "copyUIDGID"),
        payload=Payload.STREAM,
    ),
    _own("POST", "/start", Operation.CONTAINER_START, ignored("detachKeys")),
    _own("POST", "/stop", Operation.CONTAINER_STOP, _STOP),
    _own("POST", "/restart", Operation.CONTAINER_RESTART, _STOP),
    _own("POST", "/kill", Operation.CONTAINER_KILL, text("signal")),
    _own("POST", "/pause", Operation.CONTAINER_PAUSE),
    _own("POST", "/unpause", Operation.CONTAINER_UNPAUSE),
    _own("POST", "/wait", Operation.CONTAINER_WAIT, text("condition"), answer=Answer.WAIT),
    _own("POST", "/resize", Operation.CONTAINER_RESIZE, _SIZE),
    _own(
        "POST",
        "/attach",
        Operation.CONTAINER_ATTACH,
        _ATTACH,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=TCP,
    ),
    _own(
        "GET",
        "/attach/ws",
        Operation.CONTAINER_ATTACH_WEBSOCKET,
        _ATTACH,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=WEBSOCKET,
        headers=WEBSOCKET_HEADERS,
    ),
    _own("POST", "/rename", Operation.CONTAINER_RENAME, text("name")),
    Route(
        method="POST",
        template=_ONE + "/update",
        operation=Operation.CONTAINER_UPDATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.CONTAINER_UPDATE,
    ),
    Route(
        method="POST",
        template=_ONE + "/exec",
        operation=Operation.CONTAINER_EXEC,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        answer=Answer.EXEC_CREATE,
        body=bodies.EXEC_CREATE,
    ),
    _own("DELETE", "", Operation.CONTAINER_DELETE, flag("v", "force", "link")),
    Route(
        method="POST",
        template="/exec/{exec}/start",
        operation=Operation.EXEC_START,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        answer=Answer.HIJACK,
        body=bodies.EXEC_START,
        upgrades=TCP,
    ),
    Route(
        method="POST",
        template="/exec/{exec}/resize",
        operation=Operation.EXEC_RESIZE,
        outcome=Outcome.OWN,
        query=_SIZE,
    ),
    Route(
        method="GET",
        template="/exec/{exec}/json",
        operation=Operation.EXEC_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.EXEC_INSPECT,
    ),
    *refused(
        Operation.CHECKPOINT,
        "POST /containers/{container}/copy",
        "GET /containers/{container}/checkpoints",
        "POST /containers/{container}/checkpoints",
        "DELETE /containers/{container}/checkpoints/{checkpoint}",
    ),
)
