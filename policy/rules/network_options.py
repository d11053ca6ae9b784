"""User networks are plain bridges: no driver, option or address pool that reaches the host's own network."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_bool, as_list, as_object, as_text, shown
from policy.model import Json, Reason, SetField

RULE_ID = "network_options"
OPERATIONS = frozenset({Operation.NETWORK_CREATE})
NEEDS_FACTS = False

OPTIONS = frozenset(
    {
        "com.docker.network.driver.mtu",
        "com.docker.network.bridge.enable_icc",
        "com.docker.network.bridge.enable_ip_masquerade",
        "com.docker.network.container_iface_prefix",
    }
)
WIDEST_PREFIX = {4: 16, 6: 48}
PREDEFINED = frozenset({"bridge", "host", "none", "default"})


def decide(ask: Ask) -> Iterable[Finding]:
    """Driver, options, IPAM and swarm fields."""
    body = ask.body
    if (name := as_text(body.get("Name"))) in PREDEFINED:
        yield _refused("Name", name, "names that the engine does not use", "choose another name")
    if (driver := as_text(body.get("Driver"))) not in {"", "bridge"}:
        yield _refused("Driver", driver, "bridge", "leave out --driver")
    for key in as_object(body.get("Options")):
        if key not in OPTIONS:
            yield _refused("Options", key, ", ".join(sorted(OPTIONS)), "leave out --opt")
    yield from _ipam(ask, as_object(body.get("IPAM")))
    for key in ("Ingress", "ConfigOnly"):
        if as_bool(body.get(key)):
            yield _refused(key, "true", "false", "leave it out")
    if source := as_object(body.get("ConfigFrom")):
        yield _refused("ConfigFrom", shown(source.get("Network")), "none", "leave out --config-from")
    if (scope := as_text(body.get("Scope"))) not in {"", "local"}:
        yield _refused("Scope", scope, "local", "leave out --scope")
    # Engines up to 24 permit two networks of one name unless asked to look.
    yield SetField(path=("CheckDuplicate",), value=True)


def _ipam(ask: Ask, ipam: Mapping[str, Json]) -> Iterable[Finding]:
    if (driver := as_text(ipam.get("Driver"))) not in {"", "default"}:
        yield _refused("IPAM.Driver", driver, "default", "leave out --ipam-driver")
    if options := as_object(ipam.get("Options")):
        yield _refused("IPAM.Options", ", ".join(sorted(options)), "none", "leave out --ipam-opt")
    for item in as_list(ipam.get("Config")):
        config = as_object(item)
        for key in ("Subnet", "IPRange"):
            if (text := as_text(config.get(key))) and not _is_permitted(text, ask.grants.subnets):
                permitted = f"subnets of at most /16 in {', '.join(sorted(ask.grants.subnets))}"
                yield _refused(f"IPAM.Config.{key}", text, permitted, "leave out --subnet")


def _is_permitted(text: str, pools: Iterable[str]) -> bool:
    # SECURITY: a bridge with the addresses of the server's own network takes those over on the server.
    try:
        subnet = ipaddress.ip_network(text, strict=False)
    except ValueError:
        return False
    networks = [ipaddress.ip_network(pool) for pool in pools]
    inside = any(subnet.version == one.version and subnet.subnet_of(one) for one in networks)  # type: ignore[arg-type]  # versions are equal
    return inside and subnet.prefixlen >= WIDEST_PREFIX[subnet.version]


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
