"""The rule `network_mode`: what it refuses and what it lets through."""

from __future__ import annotations

from typing import Any

import pytest

from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Effect, JoinOwnNetwork, Kind, ObjectFact, Uid
from tests.fakes.policy_world import (
    ALICE,
    OWN_NETWORK,
    POLICY,
    create,
    decide,
    facts,
    own,
    policy,
    request,
    rewrite,
    second_look,
)

REFUSED: list[tuple[Request, str]] = [
    (create({"NetworkMode": "host"}), "HostConfig.NetworkMode"),
    (create(NetworkingConfig={"EndpointsConfig": {"host": {}}}), "NetworkingConfig.EndpointsConfig"),
    (request(Operation.NETWORK_CONNECT, {"Container": "c"}, network="bridge"), "network"),
    (request(Operation.NETWORK_CONNECT, {"Container": "c"}, network="host"), "network"),
    (create(MacAddress="02:42:ac:11:00:02"), "MacAddress"),
    (
        create(NetworkingConfig={"EndpointsConfig": {"bridge": {"DriverOpts": {"x": "y"}}}}),
        "NetworkingConfig.EndpointsConfig.DriverOpts",
    ),
]
ACCEPTED: list[Request] = [
    create(),
    create({"NetworkMode": "default"}, NetworkingConfig={"EndpointsConfig": {"default": {"Aliases": ["a"]}}}),
    request(Operation.IMAGE_BUILD),
    request(Operation.IMAGE_BUILD, query={"networkmode": ("none",)}),
    create({"NetworkMode": "bridge"}),
    create({"NetworkMode": "none"}),
]


@pytest.mark.parametrize(("asked", "field"), REFUSED)
def test_refuses(asked: Request, field: str) -> None:
    """It is refused by this rule, and the message names the field."""
    decision = decide(asked)
    assert decision.effect is Effect.DENY
    assert ("network_mode", field) in {(reason.rule, reason.field) for reason in decision.reasons}


@pytest.mark.parametrize("asked", ACCEPTED)
def test_accepts(asked: Request) -> None:
    """It is let through, and what is written passes the second look."""
    decision = decide(asked)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(asked, decision)) == ()


SHARED = policy("defaults: {role: user, allow: {default_network: shared, host_network: drop}}")
DROP = policy("defaults: {role: user, allow: {host_network: drop}}")
HOST = ObjectFact(kind=Kind.NETWORK, id="a" * 64, owner=None, shared=True, name="host")
BRIDGE = ObjectFact(kind=Kind.NETWORK, id="b" * 64, owner=None, shared=True, name="bridge")
LAN = ObjectFact(kind=Kind.NETWORK, id="c" * 64, owner=None, shared=True, name="lan")


@pytest.mark.parametrize(
    ("mode", "endpoints"),
    [
        ("", {}),
        ("default", {}),
        ("bridge", {"bridge": {}}),
        ("b" * 64, {}),
        ("net", {"net": {}, "bridge": {}}),
    ],
)
def test_the_default_network_is_the_users_own(mode: str, endpoints: dict[str, object]) -> None:
    """However the engine's bridge is spelled, and in whichever place; other networks stay."""
    asked = create({"NetworkMode": mode}, NetworkingConfig={"EndpointsConfig": endpoints})
    known: dict[str, ObjectFact | None] = {"b" * 64: BRIDGE, "net": own(Kind.NETWORK)}
    decision = evaluate(POLICY, ALICE, asked, facts(asked, **known))
    assert decision.effect is Effect.ALLOW, decision.reasons
    joins = [one for one in decision.obligations if isinstance(one, JoinOwnNetwork)]
    assert [one.name for one in joins] == ["u1000.bridge"]
    if mode != "b" * 64:  # there the word is written when ids are bound
        body: dict[str, Any] = dict(rewrite(asked, decision).body or {})
        assert body["HostConfig"]["NetworkMode"] == ("net" if mode == "net" else OWN_NETWORK)
        written = body.get("NetworkingConfig", {}).get("EndpointsConfig", {})
        assert set(written) == {name if name == "net" else OWN_NETWORK for name in endpoints}


def test_the_plugin_lets_nothing_onto_the_engines_bridge() -> None:
    """A signed create that names no network is not what ds01 writes."""
    asked = create({"NetworkMode": "bridge"})
    assert "network_mode" in {reason.rule for reason in second_look(asked)}
    assert "network_mode" not in {reason.rule for reason in second_look(asked, under=SHARED)}


def test_the_shared_bridge_by_policy() -> None:
    """Nothing is made, and a container stays on the engine's own bridge."""
    decision = decide(create(), under=SHARED)
    assert decision.effect is Effect.ALLOW
    assert not [one for one in decision.obligations if isinstance(one, JoinOwnNetwork)]


@pytest.mark.parametrize("mode", ["host", "a" * 64])
def test_the_hosts_network_may_be_dropped(mode: str) -> None:
    """Where policy says so the default network takes its place, and the user is told."""
    asked = create({"NetworkMode": mode}, NetworkingConfig={"EndpointsConfig": {mode: {}}})
    for under, network in ((DROP, OWN_NETWORK), (SHARED, "bridge")):
        known: dict[str, ObjectFact | None] = {"a" * 64: HOST}
        decision = evaluate(under, ALICE, asked, facts(asked, **known))
        assert decision.effect is Effect.ALLOW, decision.reasons
        assert any("--network host replaced" in getattr(one, "note", "") for one in decision.obligations)
        body: dict[str, Any] = dict(rewrite(asked, decision).body or {})
        assert body["HostConfig"]["NetworkMode"] == network
        assert not body.get("NetworkingConfig", {}).get("EndpointsConfig")


def test_on_a_shared_network_nobody_chooses_an_address_or_a_name() -> None:
    """Aliases are left out, since clients send them unasked; a chosen address is refused."""
    endpoint = {"lan": {"Aliases": ["db"]}}
    asked = create({"NetworkMode": "lan"}, NetworkingConfig={"EndpointsConfig": endpoint})
    decision = decide(asked, lan=LAN)
    assert decision.effect is Effect.ALLOW, decision.reasons
    body = dict(rewrite(asked, decision).body or {})
    assert body["NetworkingConfig"] == {"EndpointsConfig": {"lan": {}}}
    chosen = {"lan": {"IPAMConfig": {"IPv4Address": "172.20.0.2"}}}
    asked = create({"NetworkMode": "lan"}, NetworkingConfig={"EndpointsConfig": chosen})
    assert decide(asked, lan=LAN).effect is Effect.DENY


def test_the_own_default_network_is_not_removed() -> None:
    """A stopped container would not start again; another own network may go."""
    asked = request(Operation.NETWORK_DELETE, network="x")
    default = ObjectFact(kind=Kind.NETWORK, id="e" * 64, owner=Uid(1000), name="u1000.bridge")
    assert decide(asked, x=default).effect is Effect.DENY
    assert decide(asked, x=own(Kind.NETWORK)).effect is Effect.ALLOW


@pytest.mark.parametrize(
    ("sysctls", "allowed"),
    [("net.ipv4.conf.IFNAME.log_martians=1", True), ("net.ipv4.conf.IFNAME.forwarding=1", False)],
)
def test_an_interfaces_sysctls_are_listed_like_a_containers(sysctls: str, *, allowed: bool) -> None:
    """By the same list of the policy."""
    under = policy("defaults: {role: user, allow: {sysctls: [net.ipv4.conf.IFNAME.log_martians]}}")
    options = {"com.docker.network.endpoint.sysctls": sysctls}
    asked = create(
        {"NetworkMode": "net"}, NetworkingConfig={"EndpointsConfig": {"net": {"DriverOpts": options}}}
    )
    assert (decide(asked, under=under, net=own(Kind.NETWORK)).effect is Effect.ALLOW) == allowed
