"""Carry out what a decision obliges to, on the canonical request. Pure: leases and labels are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from policy import gpus
from policy.dockerapi import strict_json
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.references import DEFAULT_WORDS
from policy.fields import as_object, as_strings
from policy.model import (
    DeviceUuid,
    EngineFacts,
    Json,
    LeaseGpus,
    Obligation,
    SealLabels,
    SetField,
    SetHeader,
    SetQuery,
)
from policy.ownership import OWNER, is_reserved_label

_SHORT_ID = 12  # digits of an id that dockerd answers for in DNS


def apply(
    request: Request,
    obligations: Sequence[Obligation],
    *,
    labels: Mapping[str, str],
    devices: tuple[DeviceUuid, ...],
    engine: EngineFacts,
) -> Request:
    """The request as dockerd may see it.

    Args:
        labels: the sealed ds01 labels, used where an obligation asks for them.
        devices: UUIDs of the lease; exactly those are written if LeaseGpus is among the obligations.
    Raises: ValueError: a lease is obliged and no device given, or the other way round.
    """
    leases = [one for one in obligations if isinstance(one, LeaseGpus)]
    if bool(leases) != bool(devices):
        raise ValueError("devices are written exactly where a lease is obliged")
    for obligation in obligations:
        match obligation:
            case SetField(path=path, value=value):
                request = replace(request, body=put(request.body or {}, path, value))
            case SetQuery(key=key, values=values):
                request = replace(request, query=_put_query(request.query, key, values))
            case SetHeader(name=name, value=value):
                request = replace(request, headers=_put_header(request.headers, name, value))
            case SealLabels(path=()):
                request = replace(request, query=_seal_query(request.query, _for_image(labels)))
            case SealLabels(path=path):
                request = replace(request, body=_seal(request.body or {}, path, labels))
            case _:
                pass  # the proxy's deeds; LeaseGpus is written below, and `join` by the proxy once ids are bound
    for lease in leases:
        # INVARIANT: after every SetField, so that no rule's Env or Runtime undoes the grant.
        body = gpus.granted(request.body or {}, devices, engine=engine, capabilities=lease.capabilities)
        request = replace(request, body=body)
    return request


def join(request: Request, network_id: str) -> Request:
    """The bound request with the default network's words replaced by the id of its user's own network.

    dockerd knows links between containers in `HostConfig` for its own bridge alone, so they become the endpoint's; DNS, which
    they are then looked up in, knows short ids and no full ones.
    """
    if request.operation is Operation.IMAGE_BUILD:
        return replace(request, query=_put_query(request.query, "networkmode", (network_id,)))
    body = request.body or {}
    at = ("NetworkingConfig", "EndpointsConfig")
    host = as_object(body.get("HostConfig"))
    if host.get("NetworkMode", "") in DEFAULT_WORDS:
        body = put(body, ("HostConfig", "NetworkMode"), network_id)
        if links := [_in_dns(link) for link in as_strings(host.get("Links"))]:
            word = next(iter(DEFAULT_WORDS & as_object(get(body, at)).keys()), network_id)
            given = as_object(get(body, (*at, word)))
            body = put(body, ("HostConfig", "Links"), None)
            body = put(body, (*at, word), {**given, "Links": [*as_strings(given.get("Links")), *links]})
    endpoints = as_object(get(body, at))
    if endpoints.keys() & DEFAULT_WORDS:
        joined = {(network_id if name in DEFAULT_WORDS else name): one for name, one in endpoints.items()}
        body = put(body, at, joined)
    return replace(request, body=body)


def _in_dns(link: str) -> str:
    container, _, alias = link.partition(":")
    return f"{container[:_SHORT_ID]}:{alias}"


def put(body: Mapping[str, Json], path: tuple[str, ...], value: Json) -> dict[str, Json]:
    """A copy of `body` with `value` at `path`; None or empty removes the key, since canonical bodies hold neither."""
    key, rest = path[0], path[1:]
    if rest:
        return {**body, key: put(as_object(body.get(key)), rest, value)}
    if value in (None, [], {}):
        return {name: kept for name, kept in body.items() if name != key}
    return {**body, key: value}


def get(body: Mapping[str, Json], path: tuple[str, ...]) -> Json:
    """What is at `path`, None if nothing is."""
    value: Json = as_object(body).get(path[0])
    for key in path[1:]:
        value = as_object(value).get(key)
    return value


def _put_query(
    query: Mapping[str, tuple[str, ...]], key: str, values: tuple[str, ...]
) -> dict[str, tuple[str, ...]]:
    others = {name: kept for name, kept in query.items() if name != key}
    return {**others, key: values} if values else others


def _put_header(headers: Mapping[str, str], name: str, value: str) -> dict[str, str]:
    others = {other: kept for other, kept in headers.items() if other != name}
    return {**others, name: value} if value else others


def _seal(body: Mapping[str, Json], path: tuple[str, ...], labels: Mapping[str, str]) -> dict[str, Json]:
    return put(body, path, _sealed(as_object(get(body, path)), labels))


def _sealed(asked: Mapping[str, Json], labels: Mapping[str, str]) -> dict[str, Json]:
    return {**{key: value for key, value in asked.items() if not is_reserved_label(key)}, **labels}


def _for_image(labels: Mapping[str, str]) -> dict[str, str]:
    """An image shows its maker and proves nothing: a seal on it would be inherited by whoever builds on it.

    One label, because the classic builder makes a build step of each.
    """
    return {key: value for key, value in labels.items() if key == OWNER}


def _seal_query(
    query: Mapping[str, tuple[str, ...]], labels: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    asked = strict_json.parse(query["labels"][0], what="labels") if query.get("labels") else {}
    return _put_query(query, "labels", (strict_json.write(_sealed(as_object(asked), labels)),))
