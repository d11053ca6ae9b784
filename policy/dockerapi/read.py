"""From a request as it came to the one canonical `Request` that is decided on.

Owns the path, the version and the order of checks; `query`, `headers`, `schema` and `strict_json` read the
parts. Whatever two readers could read differently is refused here, before any rule is asked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policy.dockerapi import headers, query, strict_json
from policy.dockerapi.model import (
    Incoming,
    MalformedRequest,
    Operation,
    Outcome,
    Payload,
    Request,
    UnknownField,
    UnknownRoute,
)
from policy.dockerapi.references import Place, walk
from policy.dockerapi.routes import VERSION_MAX, VERSION_MIN, Match, Route, Version, match
from policy.model import Json

__all__ = ["MalformedRequest", "UnknownField", "UnknownRoute", "read"]

_TARGET = re.compile(r"/[\x21-\x7e]*")
_PATH = re.compile(r"(?:/[A-Za-z0-9_.:@+~=,\[\]-]+)+/?")
_DOT_SEGMENT = re.compile(r"/\.\.?(?:/|$)")
_VERSIONED = re.compile(r"/v([0-9.]+)(/.*)?")  # SOURCE: dockerd's own matcher, which also takes v01.041
_VERSION = re.compile(r"([1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})")
_HARMLESS_ESCAPES = re.compile(r"%(40|3[Aa])")
_NO_BODY = frozenset({b"", b"{}", b"null"})


def read(incoming: Incoming, *, engine_max: Version) -> Request:
    """The canonical request.

    Args:
        incoming: Head and JSON body as parsed off the wire.
        engine_max: The highest API version the engine serves; a path without version means it.

    Raises:
        MalformedRequest: the bytes can be read in two ways, or in none (400).
        UnknownRoute: no row in the table (404).
        UnknownField: a field or query key with an unknown meaning is not zero (403).
    """
    path, query_text = _split_target(incoming.target)
    version, path = _split_version(path, engine_max)
    found = match(incoming.method, path)
    if found is None or found.route.since > version:
        raise UnknownRoute
    if not found.route.versioned:
        version = min(engine_max, VERSION_MAX)
    if found.route.collective:
        return _collective(incoming.method, path, version, found.route, query_text)
    return _read_parts(incoming, found, version, query_text)


def _collective(method: str, path: str, version: Version, route: Route, query_text: str) -> Request:
    """What is decided on by name alone is not read any further; its body, if any, is dropped."""
    return Request(
        operation=route.operation,
        version=version,
        params={"method": method, "path": path},
        query={} if route.outcome is Outcome.NOBODY else query.read(query_text, route.query),
    )


def _read_parts(incoming: Incoming, found: Match, version: Version, query_text: str) -> Request:
    route = found.route
    request = Request(
        operation=route.operation,
        version=version,
        params=found.params,
        query=query.read(query_text, route.query),
        body=_read_body(route, incoming),
        upgrade=headers.read_upgrade(route, incoming.headers),
        headers=headers.read(route, incoming),
    )
    walk(request, _not_empty)
    return request


def _not_empty(place: Place) -> str:
    # SECURITY: an empty reference is a prefix of every id.
    if not place.reference.text:
        raise MalformedRequest(f"the request names a {place.reference.kind} by an empty name")
    return place.reference.text


# --- path and version ----------------------------------------------------------------------------------


def _split_target(target: str) -> tuple[str, str]:
    """Path and query text of an origin-form target.

    SECURITY: dockerd routes on the decoded path (`cre%61te` creates) and answers `//` and dot segments by
    itself. Only `%40` and `%3A` are decoded, the characters of image references that clients encode.
    """
    if not _TARGET.fullmatch(target) or "#" in target:
        raise MalformedRequest("the request target must be a path of visible ASCII characters")
    raw, _, query_text = target.partition("?")
    path = _HARMLESS_ESCAPES.sub(lambda escape: chr(int(escape[1], 16)), raw)
    if "%" in path:
        raise MalformedRequest("the path holds '%', no name or reference needs it")
    if "//" in path or _DOT_SEGMENT.search(path):
        raise MalformedRequest("the path holds empty or dot segments")
    if path != "/" and not _PATH.fullmatch(path):
        raise MalformedRequest("the path holds characters that no name or reference has")
    return path, query_text


def _split_version(path: str, engine_max: Version) -> tuple[Version, str]:
    versioned = _VERSIONED.fullmatch(path)
    if versioned is None:
        return min(engine_max, VERSION_MAX), path
    text = versioned[1]
    exact = _VERSION.fullmatch(text)
    if exact is None:
        raise MalformedRequest(f"API version v{text} is not spelled as v1.NN")
    version = (int(exact[1]), int(exact[2]))
    if version < VERSION_MIN:
        raise MalformedRequest(
            f"client version {text} is too old. Minimum supported API version is "
            f"{_dotted(VERSION_MIN)}, please upgrade your client to a newer version"
        )
    if version > VERSION_MAX:
        raise MalformedRequest(
            f"client version {text} is too new. Maximum supported API version is {_dotted(VERSION_MAX)}"
        )
    return version, versioned[2] or "/"


def _dotted(version: Version) -> str:
    return f"{version[0]}.{version[1]}"


# --- body ------------------------------------------------------------------------------------------------


def _read_body(route: Route, incoming: Incoming) -> Mapping[str, Json] | None:
    media = headers.media_type(incoming.headers)
    if route.payload is Payload.STREAM:
        if incoming.body:
            raise MalformedRequest("this call takes a stream, not a JSON body")
        return None
    if incoming.body is None and _body_announced(incoming.headers):
        # SECURITY: a body that the plugin is not shown reaches dockerd all the same.
        raise MalformedRequest("a body was announced but cannot be seen")
    body = incoming.body or b""
    if body and media != "application/json":
        raise MalformedRequest("the body must be application/json")
    if route.payload is Payload.JSON:
        return _read_json(route, body)
    if route.operation is Operation.CONTAINER_START and body.strip() not in _NO_BODY:
        # SECURITY: below API 1.24 this body replaced the whole HostConfig.
        raise MalformedRequest("starting a container takes no body, set HostConfig when it is created")
    return None  # some clients repeat their query as a JSON body: it is dropped


def _body_announced(given: headers.Headers) -> bool:
    lengths = headers.all_values(given, "content-length")
    return any(length.strip("0") for length in lengths) or bool(
        headers.all_values(given, "transfer-encoding")
    )


def _read_json(route: Route, body: bytes) -> Mapping[str, Json]:
    value = strict_json.parse_bytes(body, what="the body") if body.strip() else None
    if route.body is None:
        raise MalformedRequest("this call takes no body")
    canonical = route.body.read({} if value is None else value, "")
    return canonical if isinstance(canonical, dict) else {}
