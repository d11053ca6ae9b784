"""Images and the registries they come from."""

from __future__ import annotations

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey
from policy.dockerapi.table.row import (
    PLATFORM,
    PLATFORM_LIST,
    PLATFORM_TEXT,
    PLATFORMS,
    REGISTRY_AUTH,
    Route,
    filters,
    flag,
    ignored,
    integer,
    on,
    text,
    texts,
)


def _image(
    method: str,
    template: str,
    operation: Operation,
    query: tuple[QueryKey, ...] = (),
    *,
    payload: Payload = Payload.NONE,
    headers: frozenset[str] = frozenset(),
    answer: Answer = Answer.RELAY,
) -> Route:
    return Route(
        method=method,
        template=template,
        operation=operation,
        outcome=Outcome.IMAGE,
        query=query,
        payload=payload,
        headers=headers,
        answer=answer,
    )


ROUTES = (
    Route(
        method="GET",
        template="/images/json",
        operation=Operation.IMAGE_LIST,
        outcome=Outcome.LIST,
        answer=Answer.IMAGE_LIST,
        query=flag("all", "shared-size", "digests", "manifests")
        + text("filter")
        + filters("before dangling label label! reference since until")
        + ignored("only_ids"),
    ),
    Route(
        method="GET",
        template="/images/search",
        operation=Operation.IMAGE_SEARCH,
        outcome=Outcome.SYSTEM,
        query=text("term") + integer("limit") + filters("is-automated is-official stars"),
        headers=REGISTRY_AUTH,
    ),
    _image("GET", "/images/get", Operation.IMAGE_GET_ALL, texts("names") + PLATFORM_LIST),
    _image("POST", "/images/load", Operation.IMAGE_LOAD, on("quiet") + PLATFORM_LIST, payload=Payload.STREAM),
    _image(
        "POST",
        "/images/create",
        Operation.IMAGE_CREATE,
        text("fromImage", "fromSrc", "repo", "tag", "message") + texts("changes") + PLATFORM_TEXT,
        payload=Payload.STREAM,
        headers=REGISTRY_AUTH,
    ),
    Route(
        method="POST",
        template="/images/prune",
        operation=Operation.IMAGE_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=filters("dangling label label! until"),
    ),
    _image("GET", "/images/{image...}/get", Operation.IMAGE_GET, PLATFORM_LIST),
    _image(
        "GET",
        "/images/{image...}/history",
        Operation.IMAGE_HISTORY,
        PLATFORM,
        answer=Answer.IMAGE_HISTORY,
    ),
    _image(
        "GET",
        "/images/{image...}/json",
        Operation.IMAGE_INSPECT,
        PLATFORM + flag("manifests", "size"),
        answer=Answer.IMAGE_INSPECT,
    ),
    _image(
        "POST", "/images/{image...}/push", Operation.IMAGE_PUSH, text("tag") + PLATFORM, headers=REGISTRY_AUTH
    ),
    _image("POST", "/images/{image...}/tag", Operation.IMAGE_TAG, text("repo", "tag") + ignored("force")),
    _image("DELETE", "/images/{image...}", Operation.IMAGE_DELETE, flag("force", "noprune") + PLATFORMS),
    Route(
        method="GET",
        template="/distribution/{image...}/json",
        operation=Operation.DISTRIBUTION_INSPECT,
        outcome=Outcome.SYSTEM,
        since=(1, 30),
        headers=REGISTRY_AUTH,
    ),
    Route(
        method="POST",
        template="/commit",
        operation=Operation.IMAGE_COMMIT,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        query=text("container", "repo", "tag", "comment", "author") + on("pause") + texts("changes"),
        body=bodies.CONFIG,
    ),
)
