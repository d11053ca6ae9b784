"""The few request headers that reach dockerd, and the upgrades a call may ask for.

Owns the allow-list and the form of each value. Everything else a client sends is dropped, a stamp of its
own making first of all; framing headers are `http1`'s.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from policy.dockerapi.model import Incoming, MalformedRequest, Payload
from policy.dockerapi.routes import Route

Headers = tuple[tuple[str, str], ...]

_VALUE_CHARACTERS_MAX = 64 * 1024
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")  # SECURITY: forwarded as it is, so nothing but a token
_VISIBLE = re.compile(r"[\x21-\x7e]+(?: [\x21-\x7e]+)*")
_METHOD_NAME = re.compile(r"[A-Za-z0-9_.:/-]+")
_SESSION_METHOD = "x-docker-expose-session-grpc-method"  # the one header that is given many times
_FORMS = {
    "x-registry-auth": _BASE64URL,
    "x-registry-config": _BASE64URL,
}
_MEDIA_TYPES = frozenset(
    {
        "application/json",
        "application/jsonl",
        "application/x-ndjson",
        "application/json-seq",
        "application/vnd.docker.raw-stream",
        "application/vnd.docker.multiplexed-stream",
    }
)
_FORM_TYPES = frozenset({"application/x-www-form-urlencoded", "multipart/form-data"})


def all_values(headers: Headers, name: str) -> list[str]:
    """The non-empty values of one header, in order; `name` is lower-case."""
    return [value.strip() for key, value in headers if key == name and value.strip()]


def one_value(headers: Headers, name: str) -> str | None:
    """The value of a header that may be given once.

    Raises: MalformedRequest: given twice with different values.
    """
    values = set(all_values(headers, name))
    if len(values) > 1:
        raise MalformedRequest(f"header {name} is given more than once")
    return values.pop() if values else None


def media_type(headers: Headers) -> str | None:
    """The content type without its parameters, lower-case.

    Raises: MalformedRequest: a form, whose fields dockerd takes before the query's; a charset that is not UTF-8.
    """
    value = one_value(headers, "content-type")
    if value is None:
        return None
    kind, _, parameters = value.partition(";")
    kind = kind.strip().lower()
    if kind in _FORM_TYPES:
        raise MalformedRequest(f"content type {kind} is not accepted, send application/json or a tar stream")
    charset = re.search(r'charset\s*=\s*"?([^\s;"]*)', parameters.lower())
    if kind == "application/json" and charset and charset[1] not in {"utf-8", "utf8", "us-ascii"}:
        raise MalformedRequest("a JSON body must be UTF-8")
    return kind


def read_upgrade(route: Route, headers: Headers) -> str | None:
    """The protocol a hijacked call asks for; other calls never upgrade, whatever they offer."""
    if not route.upgrades:
        return None
    value = one_value(headers, "upgrade")
    if value is None:
        return None
    if value.lower() not in route.upgrades:
        raise MalformedRequest(f"this call can upgrade to {', '.join(sorted(route.upgrades))} only")
    return value.lower()


def read(route: Route, incoming: Incoming) -> Mapping[str, str]:
    """The forwarded headers of a call, names lower-case, in sorted order.

    Raises: MalformedRequest: a forwarded header is given twice, or holds what it must not.
    """
    kept: dict[str, str] = {}
    for name in sorted(route.headers):
        value = _read_one(name, incoming.headers)
        if value is not None:
            kept[name] = value
    return kept


def _read_one(name: str, headers: Headers) -> str | None:
    if name == "accept":
        return _accepted(headers)
    if name == _SESSION_METHOD:
        return _session_methods(headers)
    value = one_value(headers, name)
    if value is None:
        return None
    form = _FORMS.get(name, _VISIBLE)
    if len(value) > _VALUE_CHARACTERS_MAX or not form.fullmatch(value):
        raise MalformedRequest(f"header {name} holds characters it must not hold, or too many")
    return value


def _accepted(headers: Headers) -> str | None:
    """The first media type asked for that changes an answer; the rest of Accept is noise."""
    for value in all_values(headers, "accept"):
        for offer in value.split(","):
            kind = offer.partition(";")[0].strip().lower()
            if kind in _MEDIA_TYPES:
                return kind
    return None


def _session_methods(headers: Headers) -> str | None:
    methods = [
        method.strip() for value in all_values(headers, _SESSION_METHOD) for method in value.split(",")
    ]
    if not all(_METHOD_NAME.fullmatch(method) for method in methods):
        raise MalformedRequest(f"header {_SESSION_METHOD} must hold gRPC method names")
    return ",".join(methods) or None


def write(route: Route, headers: Mapping[str, str], upgrade: str | None) -> Headers:
    """The headers to send: content type by the kind of body, then the forwarded ones in sorted order."""
    written: list[tuple[str, str]] = []
    if route.payload is Payload.JSON:
        written.append(("content-type", "application/json"))
    elif route.payload is Payload.STREAM:
        written.append(("content-type", "application/x-tar"))
    for name in sorted(headers):
        values = headers[name].split(",") if name == _SESSION_METHOD else [headers[name]]
        written.extend((name, value) for value in values)
    if upgrade is not None:
        written.append(("upgrade", upgrade))
    return tuple(written)
