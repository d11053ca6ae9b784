"""Networks and volumes: creating and removing them changes who owns what."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

import msgspec

from host.routes import Network, routed
from http1.writer import forwardable
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.fields import as_list, as_object, as_text
from policy.model import Json, Kind
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.fulfil import volume_name_taken
from socket_proxy.index import Entry, Index
from socket_proxy.records import Records
from socket_proxy.refusals import Refusal
from socket_proxy.seal import Sealer
from socket_proxy.transaction import Handler, Transaction


class _NetworkCreated(msgspec.Struct):
    Id: str


class _VolumeCreated(msgspec.Struct):
    Name: str
    Labels: dict[str, str] | None = None


def refused_subnet(body: Mapping[str, Json], in_use: Iterable[Network]) -> Refusal | None:
    """SECURITY: the kernel would send what is meant for the machine's own network into the new bridge.

    Args: in_use: networks that the machine has routes to, container networks among them.
    """
    for item in as_list(as_object(body.get("IPAM")).get("Config")):
        text = as_text(as_object(item).get("Subnet"))
        subnet = ipaddress.ip_network(text, strict=False) if text else None
        if subnet is not None and any(_overlap(subnet, other) for other in in_use):
            return Refusal(
                status=403,
                message=f"ds01: IPAM.Config.Subnet={text} is not permitted, limit is subnets that this server does not "
                "use already (rule network_options); leave out --subnet",
                rules=("network_options",),
            )
    return None


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


class Stores:
    """Handlers by operation."""

    def __init__(self, *, index: Index, records: Records, answers: Answers, sealer: Sealer) -> None:
        self._index = index
        self._records = records
        self._answers = answers
        self._sealer = sealer
        self.by_operation: dict[Operation, Handler] = {
            Operation.NETWORK_CREATE: self.create_network,
            Operation.NETWORK_DELETE: self.delete_network,
            Operation.VOLUME_CREATE: self.create_volume,
            Operation.VOLUME_DELETE: self.delete_volume,
        }

    async def create_network(self, transaction: Transaction) -> Refusal | None:
        refusal = refused_subnet(transaction.request.body or {}, routed())
        if refusal is not None:
            return refusal
        response = await self._answers.send(transaction)
        if response.head.status >= 300:
            return await self._answers.error(transaction, response)
        body = await response.read(ANSWER_BYTES)
        network = msgspec.json.decode(body, type=_NetworkCreated)
        name = str((transaction.request.body or {}).get("Name", ""))
        self._index.put(Entry(kind=Kind.NETWORK, id=network.Id, name=name, owner=transaction.actor.uid))
        shown = responses.network_create(
            body, self._answers.sees(transaction), names=self._answers.names(transaction)
        )
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), shown)
        return None

    async def delete_network(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status < 300:
            self._index.drop(Kind.NETWORK, transaction.request.params["network"])
        return await self._answers.relay_response(transaction, response)

    async def create_volume(self, transaction: Transaction) -> Refusal | None:
        """SECURITY: dockerd answers 201 with an existing volume whoever made it, so what is not the user's stops here."""
        asked = str((transaction.asked.body or {}).get("Name", ""))
        name = str((transaction.request.body or {}).get("Name", ""))
        known = self._index.get(Kind.VOLUME, name) if name else None
        if known is not None and known.owner != transaction.actor.uid:
            return volume_name_taken(asked)
        if name and known is None:
            # In the index before dockerd's event reaches anybody.
            self._index.put(Entry(kind=Kind.VOLUME, id=name, name=name, owner=transaction.actor.uid))
        try:
            response = await self._answers.send(transaction)
            failed = response.head.status >= 300
            body = b"" if failed else await response.read(ANSWER_BYTES)
            created = _VolumeCreated(Name="") if failed else msgspec.json.decode(body, type=_VolumeCreated)
        except BaseException:
            # SECURITY: without an answer nobody knows whose this volume is; it may have been there already.
            if known is None:
                self._index.drop(Kind.VOLUME, name)
            raise
        if failed:
            if name and known is None:
                self._index.drop(Kind.VOLUME, name)
            return await self._answers.error(transaction, response)
        made, owner = created.Name, self._sealer.owner(created.Labels)
        if known is None and owner != transaction.actor.uid:
            self._index.put(Entry(kind=Kind.VOLUME, id=made, name=made, owner=owner))
            return volume_name_taken(asked)
        self._index.put(Entry(kind=Kind.VOLUME, id=made, name=made, owner=transaction.actor.uid))
        shown = responses.volume_inspect(
            body, self._answers.sees(transaction), names=self._answers.names(transaction)
        )
        await transaction.exchange.respond(response.head.status, forwardable(response.head.headers), shown)
        return None

    async def delete_volume(self, transaction: Transaction) -> Refusal | None:
        response = await self._answers.send(transaction)
        if response.head.status < 300:
            name = transaction.request.params["volume"]
            self._index.drop(Kind.VOLUME, name)
            self._records.drop_volume(name)
        return await self._answers.relay_response(transaction, response)
