"""The one table of Engine API calls: what each method and path means, and what it may carry.

Owns the rows of every call ds01 has heard of, the refused ones included, and matching a path to a row.
A method and path without a row is refused. SOURCE: engine routers 20.10-28.5; API reference 1.24-1.51.

In a template `{x}` is one segment and `{x...}` any number of them: names of images and networks hold `/`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from policy.dockerapi import bodies
from policy.dockerapi.model import Answer, Operation, Outcome, Payload
from policy.dockerapi.query import QueryKey, QueryKind
from policy.dockerapi.schema import BUILD_ARGS, STRING_MAP, STRINGS, Shape, Struct

Version = tuple[int, int]
VERSION_MIN: Version = (1, 24)
VERSION_MAX: Version = (1, 51)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One row. `upgrades` are the protocols a hijacked call may ask for; `headers` are forwarded."""

    method: str
    template: str
    operation: Operation
    outcome: Outcome
    since: Version = VERSION_MIN
    payload: Payload = Payload.NONE
    answer: Answer = Answer.RELAY
    query: tuple[QueryKey, ...] = ()
    body: Struct | None = None
    upgrades: frozenset[str] = frozenset()
    headers: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The row a path belongs to, and what stands at the places of its template."""

    route: Route
    params: Mapping[str, str] = field(default_factory=dict)


# --- words the table is written in -------------------------------------------------------------------


def _flag(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.FLAG) for name in names)


def _on(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.FLAG_ON) for name in names)


def _int(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.INT) for name in names)


def _text(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.TEXT) for name in names)


def _list(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.LIST) for name in names)


def _ignored(*names: str) -> tuple[QueryKey, ...]:
    return tuple(QueryKey(name=name, kind=QueryKind.IGNORED) for name in names)


def _json(name: str, shape: Shape) -> tuple[QueryKey, ...]:
    return (QueryKey(name=name, kind=QueryKind.JSON, shape=shape),)


def _filters(names: str) -> tuple[QueryKey, ...]:
    return (QueryKey(name="filters", kind=QueryKind.FILTERS, filters=frozenset(names.split())),)


_PLATFORM = _json("platform", bodies.PLATFORM)
_PLATFORM_TEXT = _text("platform")  # os/arch/variant, where the API takes it as text
_PLATFORM_LIST = (QueryKey(name="platform", kind=QueryKind.JSON_LIST, shape=bodies.PLATFORM),)
_PLATFORMS = (QueryKey(name="platforms", kind=QueryKind.JSON_LIST, shape=bodies.PLATFORM),)

_CONTAINER_FILTERS = _filters(
    "ancestor before exited expose health id is-task isolation label name network publish since status volume"
)
_EVENT_FILTERS = _filters(
    "config container daemon event image label network node plugin scope secret service type volume"
)
_ATTACH = _flag("stream", "stdin", "stdout", "stderr", "logs") + _text("detachKeys")
_STOP = _text("signal") + _int("t")
_SIZE = _int("h", "w")
_BUILD = (
    _list("t")
    + _text("dockerfile", "remote", "target", "platform", "session", "buildid", "version")
    + _flag("q", "nocache", "pull", "forcerm", "squash")
    + (QueryKey(name="rm", kind=QueryKind.FLAG_ON_EMPTY),)
    + _int("memory", "memswap", "cpushares", "cpuperiod", "cpuquota", "shmsize")
    + _text("cpusetcpus", "cpusetmems", "cgroupparent", "networkmode", "isolation")
    + _list("extrahosts", "securityopt")
    + _json("buildargs", BUILD_ARGS)
    + _json("labels", STRING_MAP)
    + _json("cachefrom", STRINGS)
    + _json("ulimits", bodies.ULIMITS)
    + _json("outputs", bodies.BUILD_OUTPUTS)
)

_TCP = frozenset({"tcp"})
_H2C = frozenset({"h2c"})
_WEBSOCKET = frozenset({"websocket"})
_REGISTRY_AUTH = frozenset({"x-registry-auth"})
_REGISTRY_CONFIG = frozenset({"x-registry-config"})
_ACCEPT = frozenset({"accept"})
_SESSION_HEADERS = frozenset(
    {
        "x-docker-expose-session-uuid",
        "x-docker-expose-session-name",
        "x-docker-expose-session-sharedkey",
        "x-docker-expose-session-grpc-method",
    }
)
_WEBSOCKET_HEADERS = frozenset(
    {
        "origin",
        "sec-websocket-key",
        "sec-websocket-version",
        "sec-websocket-protocol",
        "sec-websocket-extensions",
    }
)

_O = Operation
_ONE = "/containers/{container}"


def _refused(operation: Operation, *lines: str) -> tuple[Route, ...]:
    """Rows that are named only to be refused by name; each line is a method and a template."""
    pairs = (line.split() for line in lines)
    return tuple(
        Route(method=method, template=template, operation=operation, outcome=Outcome.NOBODY)
        for method, template in pairs
    )


# --- the table -----------------------------------------------------------------------------------------

_SYSTEM = (
    Route(
        method="GET",
        template="/_ping",
        operation=_O.SYSTEM_PING,
        outcome=Outcome.SYSTEM,
        answer=Answer.PING,
    ),
    Route(
        method="HEAD",
        template="/_ping",
        operation=_O.SYSTEM_PING_HEAD,
        outcome=Outcome.SYSTEM,
        answer=Answer.PING,
    ),
    Route(
        method="GET",
        template="/version",
        operation=_O.SYSTEM_VERSION,
        outcome=Outcome.SYSTEM,
        answer=Answer.VERSION,
    ),
    Route(
        method="GET", template="/info", operation=_O.SYSTEM_INFO, outcome=Outcome.SYSTEM, answer=Answer.INFO
    ),
    Route(
        method="GET",
        template="/system/df",
        operation=_O.SYSTEM_DATA_USAGE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.DISK_USAGE,
        query=_list("type") + _flag("verbose"),
    ),
    Route(
        method="GET",
        template="/events",
        operation=_O.SYSTEM_EVENTS,
        outcome=Outcome.STREAM,
        answer=Answer.EVENTS,
        query=_text("since", "until") + _EVENT_FILTERS,
        headers=_ACCEPT,
    ),
    Route(
        method="POST",
        template="/auth",
        operation=_O.SYSTEM_AUTH,
        outcome=Outcome.SYSTEM,
        payload=Payload.JSON,
        body=bodies.AUTH,
    ),
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


_CONTAINERS = (
    Route(
        method="GET",
        template="/containers/json",
        operation=_O.CONTAINER_LIST,
        outcome=Outcome.LIST,
        answer=Answer.CONTAINER_LIST,
        query=_flag("all", "size") + _int("limit") + _CONTAINER_FILTERS + _ignored("trunc_cmd"),
    ),
    Route(
        method="POST",
        template="/containers/create",
        operation=_O.CONTAINER_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        answer=Answer.CONTAINER_CREATE,
        query=_text("name") + _PLATFORM_TEXT,
        body=bodies.CONTAINER_CREATE,
    ),
    Route(
        method="POST",
        template="/containers/prune",
        operation=_O.CONTAINER_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=_filters("label label! until"),
    ),
    _own("GET", "/json", _O.CONTAINER_INSPECT, _flag("size"), answer=Answer.CONTAINER_INSPECT),
    _own("GET", "/top", _O.CONTAINER_TOP, _text("ps_args")),
    _own(
        "GET",
        "/logs",
        _O.CONTAINER_LOGS,
        _flag("follow", "stdout", "stderr", "timestamps", "details") + _text("since", "until", "tail"),
        headers=_ACCEPT,
    ),
    _own("GET", "/changes", _O.CONTAINER_CHANGES),
    _own("GET", "/export", _O.CONTAINER_EXPORT),
    _own("GET", "/stats", _O.CONTAINER_STATS, _on("stream") + _flag("one-shot")),
    _own("HEAD", "/archive", _O.CONTAINER_ARCHIVE_INFO, _text("path")),
    _own("GET", "/archive", _O.CONTAINER_ARCHIVE, _text("path")),
    _own(
        "PUT",
        "/archive",
        _O.PUT_CONTAINER_ARCHIVE,
        _text("path") + _flag("noOverwriteDirNonDir", "copyUIDGID"),
        payload=Payload.STREAM,
    ),
    _own("POST", "/start", _O.CONTAINER_START),
    _own("POST", "/stop", _O.CONTAINER_STOP, _STOP),
    _own("POST", "/restart", _O.CONTAINER_RESTART, _STOP),
    _own("POST", "/kill", _O.CONTAINER_KILL, _text("signal")),
    _own("POST", "/pause", _O.CONTAINER_PAUSE),
    _own("POST", "/unpause", _O.CONTAINER_UNPAUSE),
    _own("POST", "/wait", _O.CONTAINER_WAIT, _text("condition")),
    _own("POST", "/resize", _O.CONTAINER_RESIZE, _SIZE),
    _own(
        "POST",
        "/attach",
        _O.CONTAINER_ATTACH,
        _ATTACH,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=_TCP,
    ),
    _own(
        "GET",
        "/attach/ws",
        _O.CONTAINER_ATTACH_WEBSOCKET,
        _ATTACH,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=_WEBSOCKET,
        headers=_WEBSOCKET_HEADERS,
    ),
    _own("POST", "/rename", _O.CONTAINER_RENAME, _text("name")),
    Route(
        method="POST",
        template=_ONE + "/update",
        operation=_O.CONTAINER_UPDATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.CONTAINER_UPDATE,
    ),
    Route(
        method="POST",
        template=_ONE + "/exec",
        operation=_O.CONTAINER_EXEC,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        answer=Answer.EXEC_CREATE,
        body=bodies.EXEC_CREATE,
    ),
    _own("DELETE", "", _O.CONTAINER_DELETE, _flag("v", "force", "link")),
    Route(
        method="POST",
        template="/exec/{exec}/start",
        operation=_O.EXEC_START,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        answer=Answer.HIJACK,
        body=bodies.EXEC_START,
        upgrades=_TCP,
    ),
    Route(
        method="POST",
        template="/exec/{exec}/resize",
        operation=_O.EXEC_RESIZE,
        outcome=Outcome.OWN,
        query=_SIZE,
    ),
    Route(
        method="GET",
        template="/exec/{exec}/json",
        operation=_O.EXEC_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.EXEC_INSPECT,
    ),
    *_refused(
        _O.CHECKPOINT,
        "POST /containers/{container}/copy",
        "GET /containers/{container}/checkpoints",
        "POST /containers/{container}/checkpoints",
        "DELETE /containers/{container}/checkpoints/{checkpoint}",
    ),
)


def _image(
    method: str,
    template: str,
    operation: Operation,
    query: tuple[QueryKey, ...] = (),
    *,
    payload: Payload = Payload.NONE,
    headers: frozenset[str] = frozenset(),
) -> Route:
    return Route(
        method=method,
        template=template,
        operation=operation,
        outcome=Outcome.IMAGE,
        query=query,
        payload=payload,
        headers=headers,
    )


_IMAGES = (
    Route(
        method="GET",
        template="/images/json",
        operation=_O.IMAGE_LIST,
        outcome=Outcome.LIST,
        answer=Answer.IMAGE_LIST,
        query=_flag("all", "shared-size", "digests", "manifests")
        + _text("filter")
        + _filters("before dangling label label! reference since until")
        + _ignored("only_ids"),
    ),
    Route(
        method="GET",
        template="/images/search",
        operation=_O.IMAGE_SEARCH,
        outcome=Outcome.SYSTEM,
        query=_text("term") + _int("limit") + _filters("is-automated is-official stars"),
        headers=_REGISTRY_AUTH,
    ),
    _image("GET", "/images/get", _O.IMAGE_GET_ALL, _list("names") + _PLATFORM_LIST),
    _image("POST", "/images/load", _O.IMAGE_LOAD, _on("quiet") + _PLATFORM_LIST, payload=Payload.STREAM),
    _image(
        "POST",
        "/images/create",
        _O.IMAGE_CREATE,
        _text("fromImage", "fromSrc", "repo", "tag", "message") + _list("changes") + _PLATFORM_TEXT,
        payload=Payload.STREAM,
        headers=_REGISTRY_AUTH,
    ),
    Route(
        method="POST",
        template="/images/prune",
        operation=_O.IMAGE_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=_filters("dangling label label! until"),
    ),
    _image("GET", "/images/{image...}/get", _O.IMAGE_GET, _PLATFORM_LIST),
    _image("GET", "/images/{image...}/history", _O.IMAGE_HISTORY, _PLATFORM),
    _image("GET", "/images/{image...}/json", _O.IMAGE_INSPECT, _PLATFORM + _flag("manifests", "size")),
    _image(
        "POST", "/images/{image...}/push", _O.IMAGE_PUSH, _text("tag") + _PLATFORM, headers=_REGISTRY_AUTH
    ),
    _image("POST", "/images/{image...}/tag", _O.IMAGE_TAG, _text("repo", "tag") + _ignored("force")),
    _image("DELETE", "/images/{image...}", _O.IMAGE_DELETE, _flag("force", "noprune") + _PLATFORMS),
    Route(
        method="GET",
        template="/distribution/{image...}/json",
        operation=_O.DISTRIBUTION_INSPECT,
        outcome=Outcome.SYSTEM,
        since=(1, 30),
        headers=_REGISTRY_AUTH,
    ),
    Route(
        method="POST",
        template="/commit",
        operation=_O.IMAGE_COMMIT,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        query=_text("container", "repo", "tag", "comment", "author") + _on("pause") + _list("changes"),
        body=bodies.CONFIG,
    ),
)

_BUILDS = (
    Route(
        method="POST",
        template="/build",
        operation=_O.IMAGE_BUILD,
        outcome=Outcome.CREATE,
        payload=Payload.STREAM,
        query=_BUILD,
        headers=_REGISTRY_CONFIG,
    ),
    Route(
        method="POST",
        template="/build/prune",
        operation=_O.BUILD_PRUNE,
        outcome=Outcome.ADMIN,
        since=(1, 31),
        query=_flag("all")
        + _int("keep-storage", "reserved-space", "max-used-space", "min-free-space")
        + _filters("id parent type description inuse shared private until"),
    ),
    Route(
        method="POST",
        template="/build/cancel",
        operation=_O.BUILD_CANCEL,
        outcome=Outcome.OWN,
        query=_text("id"),
    ),
    Route(
        method="POST",
        template="/session",
        operation=_O.SESSION,
        outcome=Outcome.OWN,
        since=(1, 31),
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=_H2C,
        headers=_SESSION_HEADERS,
    ),
    Route(
        method="POST",
        template="/grpc",
        operation=_O.GRPC,
        outcome=Outcome.OWN,
        payload=Payload.HIJACK,
        answer=Answer.HIJACK,
        upgrades=_H2C,
    ),
)

_NETWORKS = (
    *(
        Route(
            method="GET",
            template=template,
            operation=_O.NETWORK_LIST,
            outcome=Outcome.LIST,
            answer=Answer.NETWORK_LIST,
            query=_filters("dangling driver id label name scope type"),
        )
        for template in ("/networks", "/networks/")
    ),
    Route(
        method="GET",
        template="/networks/{network...}",
        operation=_O.NETWORK_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.NETWORK_INSPECT,
        query=_flag("verbose") + _text("scope"),
    ),
    Route(
        method="POST",
        template="/networks/create",
        operation=_O.NETWORK_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.NETWORK_CREATE,
    ),
    Route(
        method="POST",
        template="/networks/prune",
        operation=_O.NETWORK_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=_filters("label label! until"),
    ),
    Route(
        method="POST",
        template="/networks/{network...}/connect",
        operation=_O.NETWORK_CONNECT,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        body=bodies.NETWORK_CONNECT,
    ),
    Route(
        method="POST",
        template="/networks/{network...}/disconnect",
        operation=_O.NETWORK_DISCONNECT,
        outcome=Outcome.OWN,
        payload=Payload.JSON,
        body=bodies.NETWORK_DISCONNECT,
    ),
    Route(
        method="DELETE",
        template="/networks/{network...}",
        operation=_O.NETWORK_DELETE,
        outcome=Outcome.OWN,
    ),
)

_VOLUMES = (
    Route(
        method="GET",
        template="/volumes",
        operation=_O.VOLUME_LIST,
        outcome=Outcome.LIST,
        answer=Answer.VOLUME_LIST,
        query=_filters("dangling driver label name"),
    ),
    Route(
        method="POST",
        template="/volumes/create",
        operation=_O.VOLUME_CREATE,
        outcome=Outcome.CREATE,
        payload=Payload.JSON,
        body=bodies.VOLUME_CREATE,
    ),
    Route(
        method="POST",
        template="/volumes/prune",
        operation=_O.VOLUME_PRUNE,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=_filters("all label label!"),
    ),
    Route(
        method="GET",
        template="/volumes/{volume}",
        operation=_O.VOLUME_INSPECT,
        outcome=Outcome.OWN,
        answer=Answer.VOLUME_INSPECT,
    ),
    Route(
        method="DELETE",
        template="/volumes/{volume}",
        operation=_O.VOLUME_DELETE,
        outcome=Outcome.OWN,
        query=_flag("force"),
    ),
    *_refused(_O.SWARM_WRITE, "PUT /volumes/{volume}"),
)

_PLUGINS = (
    Route(
        method="GET",
        template="/plugins",
        operation=_O.PLUGIN_LIST,
        outcome=Outcome.LIST,
        since=(1, 25),
        answer=Answer.BUILT_HERE,
        query=_filters("capability enabled"),
    ),
    *_refused(
        _O.PLUGIN_ADMIN,
        "GET /plugins/{plugin...}/json",
        "GET /plugins/privileges",
        "POST /plugins/pull",
        "POST /plugins/create",
        "POST /plugins/{plugin...}/enable",
        "POST /plugins/{plugin...}/disable",
        "POST /plugins/{plugin...}/set",
        "POST /plugins/{plugin...}/upgrade",
        "POST /plugins/{plugin...}/push",
        "DELETE /plugins/{plugin...}",
    ),
)

_SWARM = (
    *_refused(
        _O.SWARM_READ,
        "GET /swarm",
        "GET /swarm/unlockkey",
        "GET /services",
        "GET /services/{service}",
        "GET /services/{service}/logs",
        "GET /nodes",
        "GET /nodes/{node}",
        "GET /tasks",
        "GET /tasks/{task}",
        "GET /tasks/{task}/logs",
        "GET /secrets",
        "GET /secrets/{secret}",
        "GET /configs",
        "GET /configs/{config}",
    ),
    *_refused(
        _O.SWARM_WRITE,
        "POST /swarm/init",
        "POST /swarm/join",
        "POST /swarm/leave",
        "POST /swarm/update",
        "POST /swarm/unlock",
        "POST /services/create",
        "POST /services/{service}/update",
        "DELETE /services/{service}",
        "POST /nodes/{node}/update",
        "DELETE /nodes/{node}",
        "POST /secrets/create",
        "POST /secrets/{secret}/update",
        "DELETE /secrets/{secret}",
        "POST /configs/create",
        "POST /configs/{config}/update",
        "DELETE /configs/{config}",
    ),
)

_DEBUG = _refused(
    _O.DEBUG,
    *(
        f"{method} /debug/{page}"
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE")  # Debian's 20.10 serves any method
        for page in ("vars", "pprof/", "pprof/{name...}")
    ),
)

ROUTES: tuple[Route, ...] = (
    *_SYSTEM,
    *_CONTAINERS,
    *_IMAGES,
    *_BUILDS,
    *_NETWORKS,
    *_VOLUMES,
    *_PLUGINS,
    *_SWARM,
    *_DEBUG,
)

# --- matching --------------------------------------------------------------------------------------------

_Key = tuple[str, str, str]  # method, first segment, last segment of the template if it is literal


def _index() -> tuple[dict[tuple[str, str], Match], dict[_Key, list[tuple[re.Pattern[str], Route]]]]:
    literal: dict[tuple[str, str], Match] = {}
    patterns: dict[_Key, list[tuple[re.Pattern[str], Route]]] = {}
    for route in ROUTES:
        segments = route.template.split("/")
        if "{" not in route.template:
            literal[route.method, route.template] = Match(route=route)
            continue
        last = "" if segments[-1].startswith("{") else segments[-1]
        patterns.setdefault((route.method, segments[1], last), []).append((_pattern(route.template), route))
    return literal, patterns


def _pattern(template: str) -> re.Pattern[str]:
    many = re.sub(r"\{(\w+)\.\.\.\}", r"(?P<\1>.+)", template)
    return re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", many))


_LITERAL, _PATTERNS = _index()

ROUTE_OF: Mapping[Operation, Route] = MappingProxyType(
    {route.operation: route for route in reversed(ROUTES)}  # the first row of an operation is the one written
)


def match(method: str, path: str) -> Match | None:
    """The row for a path without its version prefix, or None."""
    found = _LITERAL.get((method, path))
    if found is not None:
        return found
    first = path[1:].partition("/")[0]
    for last in (path.rpartition("/")[2], ""):
        for pattern, route in _PATTERNS.get((method, first, last), ()):
            if hit := pattern.fullmatch(path):
                return Match(route=route, params=hit.groupdict())
    return None
