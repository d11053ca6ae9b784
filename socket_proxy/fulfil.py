"""What must happen for an allow to hold: bind sources looked at, volumes made, devices leased, labels sealed."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace

import msgspec

from host.binds import BindRefused, examine
from observability.metrics import LeaseResult, Metrics
from policy.dockerapi.model import Operation
from policy.model import (
    Actor,
    CheckBind,
    DeviceUuid,
    EnsureVolume,
    Facts,
    JoinOwnNetwork,
    Kind,
    LeaseGpus,
    LeaseId,
    Obligation,
    Reference,
    RequestId,
)
from policy.names import real
from socket_proxy.engine import Engine
from socket_proxy.index import Entry, Index
from socket_proxy.networks import OwnNetworks
from socket_proxy.ports import Leaser, LeaseRefused
from socket_proxy.refusals import Refusal
from socket_proxy.seal import Sealer


@dataclass(frozen=True, slots=True, kw_only=True)
class Fulfilled:
    """What the obligations brought, to be written into the request."""

    labels: dict[str, str]
    lease: LeaseId | None = None
    devices: tuple[DeviceUuid, ...] = ()
    network: str | None = None  # the id to put where the default network is meant
    binds: tuple[CheckBind, ...] = ()  # host paths that were looked at; `source` is the real path


class _Volume(msgspec.Struct):
    Labels: dict[str, str] | None = None


class Fulfiller:
    """Carries obligations out, in an order in which a refusal leaves nothing behind: looks first, the lease last."""

    def __init__(
        self, *, engine: Engine, index: Index, sealer: Sealer, leaser: Leaser, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._index = index
        self._sealer = sealer
        self._leaser = leaser
        self._metrics = metrics
        self._networks = OwnNetworks(engine=engine, index=index, sealer=sealer)

    async def look(
        self, actor: Actor, obligations: tuple[Obligation, ...]
    ) -> tuple[CheckBind, ...] | Refusal:
        """Look at every bind source; the answers name real paths, in the order of the obligations."""
        looked: list[CheckBind] = []
        for obligation in obligations:
            if isinstance(obligation, CheckBind):
                seen = await look_at(actor, obligation)
                if isinstance(seen, Refusal):
                    return seen
                looked.append(seen)
        return tuple(looked)

    async def fulfil(
        self, actor: Actor, obligations: tuple[Obligation, ...], facts: Facts, request_id: RequestId
    ) -> Fulfilled | Refusal:
        """Make the volumes that `facts` do not have and the network, lease the devices, seal the labels.

        Returns: what to write into the request, or why it may not go on. On a refusal no lease is held.
        Raises: Unavailable, UpstreamUnavailable, UpstreamLost.
        """
        for obligation in obligations:
            if isinstance(obligation, EnsureVolume) and not _is_there(obligation, facts):
                refusal = await self._ensure_volume(actor, obligation.name, request_id)
                if refusal is not None:
                    return refusal
        join = next((item for item in obligations if isinstance(item, JoinOwnNetwork)), None)
        network = await self._networks.ensure(actor, join, request_id) if join else None
        if isinstance(network, Refusal):
            return network
        want = next((item for item in obligations if isinstance(item, LeaseGpus)), None)
        if want is None:
            labels = self._sealer.labels(actor, lease=None, request_id=request_id)
            return Fulfilled(labels=labels, network=network)
        return await self._lease(actor, want, network, request_id)

    async def _lease(
        self, actor: Actor, want: LeaseGpus, network: str | None, request_id: RequestId
    ) -> Fulfilled | Refusal:
        lease = await self._leaser.reserve(uid=actor.uid, name=actor.name, want=want, request_id=request_id)
        if isinstance(lease, LeaseRefused):
            self._metrics.leased(LeaseResult.REFUSED if lease.status == 409 else LeaseResult.UNAVAILABLE)
            return Refusal(status=lease.status, message=lease.message, rules=("gpu_lease",))
        self._metrics.leased(LeaseResult.GRANTED)
        return Fulfilled(
            labels=self._sealer.labels(actor, lease=lease.id, request_id=request_id),
            lease=lease.id,
            devices=lease.devices,
            network=network,
        )

    async def _ensure_volume(self, actor: Actor, name: str, request_id: RequestId) -> Refusal | None:
        """Make the volume before the container that names it: dockerd would make it without labels.

        SECURITY: creating a volume that exists returns it, whoever made it (root can, in anybody's namespace), so what is
        somebody else's is refused before dockerd is asked.
        """
        real_name = real(actor.uid, name)
        known = self._index.get(Kind.VOLUME, real_name)
        if known is not None:
            return None if known.owner == actor.uid else volume_name_taken(name)
        self._index.put(Entry(kind=Kind.VOLUME, id=real_name, name=real_name, owner=actor.uid))
        try:
            labels = self._sealer.labels(actor, lease=None, request_id=request_id)
            answer = await self._engine.ask(
                Operation.VOLUME_CREATE,
                body={"Name": real_name, "Driver": "local", "Labels": {**labels}},
                uid=actor.uid,
            )
            owner = self._sealer.owner(msgspec.json.decode(answer, type=_Volume).Labels)
        except BaseException:
            self._index.drop(Kind.VOLUME, real_name)
            raise
        if owner != actor.uid:
            self._index.put(Entry(kind=Kind.VOLUME, id=real_name, name=real_name, owner=owner))
            return volume_name_taken(name)
        return None


def _is_there(obligation: EnsureVolume, facts: Facts) -> bool:
    return facts.objects.get(Reference(kind=Kind.VOLUME, text=obligation.name)) is not None


def volume_name_taken(name: str) -> Refusal:
    """The answer to a volume name under which something is that ds01 did not make for this user."""
    return Refusal(
        status=409,
        message=f"ds01: the volume name {name} is not available (rule volume_names); choose another name",
        rules=("volume_names",),
    )


async def look_at(actor: Actor, bind: CheckBind) -> CheckBind | Refusal:
    """Look at a bind source as its owner; what comes back names the real path."""
    seen = await asyncio.to_thread(
        examine,
        bind.source,
        owner_uid=actor.uid,
        owner_gid=actor.gid,
        owner_gids=actor.gids,
        read_only=bind.read_only,
        create=bind.create,
        setuid_ok=bind.setuid_ok,
    )
    if isinstance(seen, BindRefused):
        return Refusal(
            status=403,
            message=f"ds01: {bind.field}={bind.source} is not permitted: {seen.problem} (rule bind_mounts); "
            f"{seen.next_step}",
            rules=("bind_mounts",),
        )
    return replace(bind, source=seen.source)
