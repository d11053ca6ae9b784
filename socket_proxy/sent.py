"""What dockerd is asked for a request: names and host paths in its own form, and a container list as wide as filters need it."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from policy import ownership
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.name_filters import for_engine
from policy.model import Uid
from policy.stand_ins import StandIns
from socket_proxy.transaction import Transaction


def sent(transaction: Transaction, stand_ins: StandIns | None) -> Request:
    """The request that goes to dockerd."""
    request, uid = transaction.request, transaction.actor.uid
    asked = for_engine(request, uid, stand_ins)
    if request.operation is not Operation.CONTAINER_LIST:
        return asked
    if not transaction.everything:
        return narrowed(uncut(asked), uid)
    return asked if asked is request else uncut(asked)


def uncut(request: Request) -> Request:
    """A container list that dockerd does not cut short: `limit` counts what the user sees, so it is applied after filtering.

    dockerd takes `limit` to mean stopped ones too.
    """
    query = {**request.query}
    if int(next(iter(query.pop("limit", ())), "0")) > 0:
        query["all"] = ("1",)
    return replace(request, query=query)


def narrowed(request: Request, uid: Uid) -> Request:
    """One owner's containers. The label is only a quicker way to the same list: the filter judges by the seal."""
    text = next(iter(request.query.get("filters", ())), "{}")
    filters = msgspec.json.decode(text, type=dict[str, dict[str, bool]])
    filters["label"] = {**filters.get("label", {}), f"{ownership.UID}={uid}": True}
    return replace(request, query={**request.query, "filters": (msgspec.json.encode(filters).decode(),)})
