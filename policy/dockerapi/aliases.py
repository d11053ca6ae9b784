"""Plain names in DNS: dockerd answers for a container's name inside dockerd, so the plain one becomes a network alias.

Works on bound requests: a network is an id or one of the words. dockerd takes no aliases on predefined networks, where it
answers for no names at all.
"""

from __future__ import annotations

from dataclasses import replace

from policy.dockerapi.model import Operation, Request
from policy.dockerapi.references import NETWORK_WORDS
from policy.model import Facts, Json, Kind, Reference
from policy.names import plain

Body = dict[str, Json]

_MANY_ENDPOINTS = (1, 44)  # before, a create takes one endpoint


def with_aliases(bound: Request, asked: Request, facts: Facts) -> Request:
    """The bound create or connect with the container's plain name among the aliases of each user-defined network.

    asked: the same request in the client's words.
    """
    match bound.operation:
        case Operation.CONTAINER_CREATE if asked.query.get("name"):
            alias = asked.query["name"][0].removeprefix("/")
            return replace(bound, body=_create(dict(bound.body or {}), bound, alias, _without_names(facts)))
        case Operation.NETWORK_CONNECT if bound.params["network"] not in _without_names(facts):
            known = _known_name(str((asked.body or {}).get("Container", "")), facts)
            if known:
                body = dict(bound.body or {})
                body["EndpointConfig"] = _endpoint(body.get("EndpointConfig"), known)
                return replace(bound, body=body)
    return bound


def _without_names(facts: Facts) -> frozenset[str]:
    """Networks as bound requests name them that get no aliases.

    SECURITY: on a network of all users a chosen name could take another's visitors.
    """
    shared = (
        fact.id for fact in facts.objects.values() if fact and fact.kind is Kind.NETWORK and fact.shared
    )
    return NETWORK_WORDS.union(shared)


def _known_name(reference: str, facts: Facts) -> str | None:
    """What its owner calls a container, if it is called otherwise inside dockerd."""
    fact = facts.objects.get(Reference(kind=Kind.CONTAINER, text=reference.removeprefix("/")))
    if fact is None or (name := plain(fact.owner, fact.name)) == fact.name:
        return None
    return name


def _create(body: Body, bound: Request, alias: str, without: frozenset[str]) -> Body:
    networking = body.get("NetworkingConfig")
    given = networking.get("EndpointsConfig") if isinstance(networking, dict) else None
    endpoints = dict(given) if isinstance(given, dict) else {}
    host = body.get("HostConfig")
    mode = host.get("NetworkMode") if isinstance(host, dict) else None
    if (
        isinstance(mode, str)
        and _is_users(mode, without)
        and (not endpoints or bound.version >= _MANY_ENDPOINTS)
    ):
        endpoints.setdefault(mode, {})
    aliased: Body = {
        network: _endpoint(endpoint, alias) if _is_users(network, without) else endpoint
        for network, endpoint in endpoints.items()
    }
    if aliased == (given or {}):
        return body
    return {**body, "NetworkingConfig": {"EndpointsConfig": aliased}}


def _is_users(network: str, without: frozenset[str]) -> bool:
    return bool(network) and network not in without and not network.startswith("container:")


def _endpoint(given: Json, alias: str) -> Body:
    endpoint = dict(given) if isinstance(given, dict) else {}
    aliases = endpoint.get("Aliases")
    known = aliases if isinstance(aliases, list) else []
    return endpoint if alias in known else {**endpoint, "Aliases": [*known, alias]}
