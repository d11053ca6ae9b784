"""Which networks a container or build joins, and how it may look on them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.buildkit.builder import is_buildkit
from policy.dockerapi.model import Operation
from policy.dockerapi.references import DEFAULT_WORDS
from policy.fields import as_list, as_object, as_text, shown
from policy.grants import DefaultNetwork, Handling
from policy.model import JoinOwnNetwork, Json, Kind, ObjectFact, Reason, Reference, SetField
from policy.ownership import default_network
from policy.rules.sysctls import listed

RULE_ID = "network_mode"
OPERATIONS = frozenset(
    {
        Operation.CONTAINER_CREATE,
        Operation.IMAGE_BUILD,
        Operation.NETWORK_CONNECT,
        Operation.NETWORK_DELETE,
    }
)
NEEDS_FACTS = False

IFNAME = "com.docker.network.endpoint.ifname"
SYSCTLS = "com.docker.network.endpoint.sysctls"
ENDPOINTS = ("NetworkingConfig", "EndpointsConfig")
_HOST_LEFT = "--network host replaced by a network of your own; publish ports with -p"
_NO_HOST = "leave out --network host and publish ports with -p"


def decide(ask: Ask) -> Iterable[Finding]:
    """The host's network only by policy; networks and containers by name are the ownership rule's."""
    match ask.request.operation:
        case Operation.CONTAINER_CREATE:
            yield from _create(ask)
        case Operation.IMAGE_BUILD:
            mode = (ask.request.query.get("networkmode") or ("",))[0]
            by_buildkit = is_buildkit(ask.request.query)  # which knows no networks
            if not by_buildkit and _own_is_default(ask) and _is(ask, mode, "bridge"):
                yield JoinOwnNetwork(name=default_network(ask.actor.uid))
        case Operation.NETWORK_CONNECT:
            yield from _connect(ask)
        case _:
            yield from _delete(ask)


def _create(ask: Ask) -> Iterable[Finding]:
    mode = as_text(ask.host_config.get("NetworkMode"))
    endpoints = as_object(as_object(ask.body.get("NetworkingConfig")).get("EndpointsConfig"))
    named = [mode, *endpoints, *(as_text(as_object(one).get("NetworkID")) for one in endpoints.values())]
    host = any(_is(ask, name, "host") for name in named) and "host" not in ask.grants.networks
    if host and ask.grants.host_network is Handling.DENY:
        field = "HostConfig.NetworkMode" if _is(ask, mode, "host") else ".".join(ENDPOINTS)
        yield _refused(field, "host", "none and networks of your own", _NO_HOST)
    elif host:
        yield SetField(path=("HostConfig", "NetworkMode"), value="bridge", note=_HOST_LEFT)
        if endpoints:
            yield SetField(path=ENDPOINTS, value=None)
    if _own_is_default(ask) and (host or any(_is(ask, name, "bridge") for name in (mode, *endpoints))):
        yield JoinOwnNetwork(name=default_network(ask.actor.uid))
    for name, endpoint in endpoints.items():
        yield from _endpoint(ask, as_object(endpoint), (*ENDPOINTS, name), shared=_is_shared(ask, name))
    if mac := as_text(ask.body.get("MacAddress")):
        yield _refused("MacAddress", mac, "the engine's choice", "leave out --mac-address")


def _connect(ask: Ask) -> Iterable[Finding]:
    network = ask.request.params.get("network", "")
    if _is(ask, network, "host") and "host" not in ask.grants.networks:
        yield _refused("network", "host", "networks of your own", _NO_HOST)
    if _own_is_default(ask) and _is(ask, network, "bridge"):
        yield _refused("network", "bridge", "networks of your own", "make one with docker network create")
    endpoint = as_object(ask.body.get("EndpointConfig"))
    yield from _endpoint(ask, endpoint, ("EndpointConfig",), shared=_is_shared(ask, network))


def _delete(ask: Ask) -> Iterable[Finding]:
    """A stopped container would not start again without the network it was made on."""
    fact = _fact(ask, ask.request.params.get("network", ""))
    if fact is not None and not ask.grants.admin and fact.name == default_network(ask.actor.uid):
        yield _refused(
            "network", "your default network", "networks you have made", "leave it; it costs nothing"
        )


def _own_is_default(ask: Ask) -> bool:
    return ask.grants.default_network is DefaultNetwork.OWN


def _fact(ask: Ask, network: str) -> ObjectFact | None:
    return ask.facts.objects.get(Reference(kind=Kind.NETWORK, text=network)) if ask.facts else None


def _is(ask: Ask, network: str, word: str) -> bool:
    """SECURITY: by its id or the beginning of its id, the host's network is the host's network as well."""
    fact = _fact(ask, network)
    if fact is not None:  # a user's own bridge is called `bridge` too
        return fact.shared and fact.name == word
    return network in DEFAULT_WORDS if word == "bridge" else network == word


def _is_shared(ask: Ask, network: str) -> bool:
    fact = _fact(ask, network)
    return fact is not None and fact.shared


def _endpoint(
    ask: Ask, endpoint: Mapping[str, Json], path: tuple[str, ...], *, shared: bool
) -> Iterable[Finding]:
    field = ".".join(path[:2])
    # SECURITY: a chosen address takes over a neighbour's on a shared bridge, a chosen name its visitors.
    if mac := as_text(endpoint.get("MacAddress")):
        yield _refused(f"{field}.MacAddress", mac, "the engine's choice", "leave out mac_address")
    if shared and as_list(endpoint.get("Aliases")):
        yield SetField(path=(*path, "Aliases"), value=None, note="Aliases left out on a network of all users")
    if shared and (address := as_object(endpoint.get("IPAMConfig"))):
        yield _refused(f"{field}.IPAMConfig", shown(dict(address)), "the engine's choice", "leave out --ip")
    for name, value in as_object(endpoint.get("DriverOpts")).items():
        if name == SYSCTLS:
            yield from _sysctls(ask, as_text(value), field)
        elif name != IFNAME:
            yield _refused(f"{field}.DriverOpts", name, f"{IFNAME} and {SYSCTLS}", "leave out driver_opts")


def _sysctls(ask: Ask, text: str, field: str) -> Iterable[Finding]:
    """One interface's kernel parameters, `name=value` between commas."""
    for name in (assignment.partition("=")[0].strip() for assignment in text.split(",")):
        if name not in listed(ask):
            permitted = ", ".join(sorted(listed(ask)))
            yield _refused(
                f"{field}.DriverOpts", name, permitted, "leave it out, or ask the admin to list it"
            )


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
