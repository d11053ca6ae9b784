"""Which networks a container joins, and how it may look on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown
from policy.model import Json, Kind, Reason, Reference

RULE_ID = "network_mode"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.NETWORK_CONNECT})
NEEDS_FACTS = False

IFNAME = "com.docker.network.endpoint.ifname"


def decide(ask: Ask) -> Iterable[Finding]:
    """The host's network only by policy; networks and containers by name are the ownership rule's."""
    if ask.request.operation is Operation.NETWORK_CONNECT:
        yield from _endpoint(as_object(ask.body.get("EndpointConfig")), "EndpointConfig")
        if _is_host(ask, ask.request.params.get("network", "")):
            yield from _host(ask, "network")
        return
    if _is_host(ask, as_text(ask.host_config.get("NetworkMode"))):
        yield from _host(ask, "HostConfig.NetworkMode")
    endpoints = as_object(as_object(ask.body.get("NetworkingConfig")).get("EndpointsConfig"))
    for name, endpoint in endpoints.items():
        if _is_host(ask, name) or _is_host(ask, as_text(as_object(endpoint).get("NetworkID"))):
            yield from _host(ask, "NetworkingConfig.EndpointsConfig")
        yield from _endpoint(as_object(endpoint), "NetworkingConfig.EndpointsConfig")
    if mac := as_text(ask.body.get("MacAddress")):
        yield _refused("MacAddress", mac, "the engine's choice", "leave out --mac-address")


def _is_host(ask: Ask, network: str) -> bool:
    """SECURITY: by its id or the beginning of its id, the host's network is the host's network as well."""
    fact = ask.facts.objects.get(Reference(kind=Kind.NETWORK, text=network)) if ask.facts else None
    return network == "host" or (fact is not None and fact.shared and fact.name == "host")


def _host(ask: Ask, field: str) -> Iterable[Finding]:
    if "host" not in ask.grants.networks:
        step = "leave out --network host and publish ports with -p"
        yield _refused(field, "host", "bridge, none and networks of your own", step)


def _endpoint(endpoint: Mapping[str, Json], field: str) -> Iterable[Finding]:
    # SECURITY: a chosen address takes over a neighbour's on a shared bridge.
    if mac := as_text(endpoint.get("MacAddress")):
        yield _refused(f"{field}.MacAddress", mac, "the engine's choice", "leave out mac_address")
    for name in as_object(endpoint.get("DriverOpts")):
        if name != IFNAME:
            yield _refused(f"{field}.DriverOpts", name, IFNAME, "leave out driver_opts")


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
