"""A renamed container in DNS: its new plain name becomes an alias, as its first one did when it was made.

dockerd changes no aliases of a network that a container is in, so the container leaves and joins again; one that runs would
lose its address and its connections, so there the new name answers when it joins a network next.
"""

from __future__ import annotations

from typing import Any

import msgspec

from policy.dockerapi.model import Operation
from policy.model import Json, Kind
from policy.names import plain
from socket_proxy.engine import Engine
from socket_proxy.index import Entry, Index


class _Endpoint(msgspec.Struct, rename="pascal"):
    """What a user can have asked for; all else of an endpoint is dockerd's report."""

    ipam_config: dict[str, Any] | None = msgspec.field(name="IPAMConfig", default=None)
    links: list[str] | None = None
    aliases: list[str] | None = None
    driver_opts: dict[str, str] | None = None


class _Settings(msgspec.Struct, rename="pascal"):
    networks: dict[str, _Endpoint] | None = None


class _State(msgspec.Struct, rename="pascal"):
    running: bool = False


class _Inspected(msgspec.Struct, rename="pascal"):
    state: _State
    network_settings: _Settings


async def take_alias(engine: Engine, index: Index, renamed: Entry) -> None:
    """Let a container that does not run answer to its new name on each network of its owner's.

    Args: renamed: as it is since the rename.
    Raises: EngineError, UpstreamUnavailable, UpstreamLost: then it may have left a network without joining it again.
    """
    alias = plain(renamed.owner, renamed.name)
    if renamed.owner is None or alias == renamed.name:
        return  # dockerd answers for that name itself
    answer = await engine.ask(Operation.CONTAINER_INSPECT, params={"container": renamed.id})
    inspected = msgspec.json.decode(answer, type=_Inspected)
    if inspected.state.running:
        return
    for real_name, endpoint in (inspected.network_settings.networks or {}).items():
        network = index.named(Kind.NETWORK, plain(renamed.owner, real_name), renamed.owner)
        if network is not None and alias not in (endpoint.aliases or ()):
            endpoint.aliases = [*(endpoint.aliases or ()), alias]
            await _join_again(engine, network, renamed, endpoint)


async def _join_again(engine: Engine, network: Entry, container: Entry, endpoint: _Endpoint) -> None:
    asked: dict[str, Json] = {"Container": container.id}
    config: dict[str, Json] = {key: value for key, value in msgspec.to_builtins(endpoint).items() if value}
    for operation, body in (
        (Operation.NETWORK_DISCONNECT, asked),
        (Operation.NETWORK_CONNECT, {**asked, "EndpointConfig": config}),
    ):
        await engine.ask(operation, params={"network": network.id}, body=body)
