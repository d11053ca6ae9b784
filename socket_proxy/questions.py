"""What dockerd is asked for a request: names and host paths in its own form, lists and events as wide as filters need them."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from policy import ownership
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.name_filters import for_engine
from policy.dockerapi.query import filters
from policy.model import Uid
from policy.stand_ins import StandIns
from socket_proxy.index import Index
from socket_proxy.shared_containers import SharedContainers
from socket_proxy.transaction import Transaction

# Filters by what is shown of a shared container. SECURITY: any other would tell of what is not: a label, a mount, a network.
_OF_SHARED = {
    Operation.CONTAINER_LIST: frozenset({"before", "exited", "health", "id", "name", "since", "status"}),
    Operation.SYSTEM_EVENTS: frozenset({"container", "event", "type"}),
}


class Questions:
    """Writes what dockerd is asked."""

    def __init__(
        self, index: Index, shared: SharedContainers | None, stand_ins: StandIns | None = None
    ) -> None:
        self._index = index
        self._shared = shared
        self._stand_ins = stand_ins

    def holds_shared(self, transaction: Transaction) -> bool:
        """Whether the answer of a list or event stream may tell of containers that are shared with the user.

        For an event stream: or will be.
        """
        request = transaction.request
        shown = _OF_SHARED.get(request.operation)
        if shown is None or self._shared is None or transaction.everything:
            return False
        if not filters(request).keys() <= shown:
            return False
        return (
            request.operation is Operation.SYSTEM_EVENTS
            or next(self._shared.all(transaction.reader), None) is not None
        )

    def written(self, transaction: Transaction) -> Request:
        """The request as it goes out."""
        request, uid = transaction.request, transaction.actor.uid
        sent = for_engine(request, uid, self._stand_ins)
        match request.operation:
            case Operation.CONTAINER_LIST if transaction.everything:
                return sent if sent is request else uncut(sent)
            case Operation.CONTAINER_LIST:
                wide = self.holds_shared(transaction) or self._index.has_adopted(uid)
                return uncut(sent) if wide else narrowed(uncut(sent), uid)
            case Operation.SYSTEM_EVENTS if self.holds_shared(transaction):
                return self._with_ids(sent, transaction)
        return sent

    def _with_ids(self, request: Request, transaction: Transaction) -> Request:
        """An event stream of named containers: dockerd knows shared ones by their ids."""
        given = filters(request)
        if self._shared is None or not given.get("container"):
            return request
        found = [self._shared.find(transaction.reader, text) for text in given["container"]]
        ids = [each[0].id for each in found if each is not None]
        if not ids:
            return request
        wanted = {key: dict.fromkeys(values, True) for key, values in given.items()}
        wanted["container"] |= dict.fromkeys(ids, True)
        return _filtered(request, wanted)


def uncut(request: Request) -> Request:
    """A container list that dockerd does not cut short: `limit` counts what the user sees, so it is applied after filtering.

    dockerd takes `limit` to mean stopped ones too.
    """
    query = {**request.query}
    if int(next(iter(query.pop("limit", ())), "0")) > 0:
        query["all"] = ("1",)
    return replace(request, query=query)


def narrowed(request: Request, uid: Uid) -> Request:
    """One owner's containers, but for adopted ones. The label is only a quicker way: the filter judges by the index."""
    text = next(iter(request.query.get("filters", ())), "{}")
    wanted = msgspec.json.decode(text, type=dict[str, dict[str, bool]])
    wanted["label"] = {**wanted.get("label", {}), f"{ownership.UID}={uid}": True}
    return _filtered(request, wanted)


def _filtered(request: Request, wanted: dict[str, dict[str, bool]]) -> Request:
    return replace(request, query={**request.query, "filters": (msgspec.json.encode(wanted).decode(),)})
