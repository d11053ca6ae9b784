"""The request as dockerd is to get it, of what was asked, decided, known and fulfilled."""

from __future__ import annotations

from collections.abc import Sequence

from policy.dockerapi.aliases import with_aliases
from policy.dockerapi.bind import bind
from policy.dockerapi.model import Request
from policy.model import Decision, Facts, JoinOwnNetwork, SetField, SetQuery, Uid
from policy.obligations import apply, join
from policy.ownership import changed_label
from socket_proxy.fulfil import Fulfilled


def rewritten(
    asked: Request,
    decision: Decision,
    facts: Facts,
    fulfilled: Fulfilled,
    *,
    uid: Uid,
    everything: bool,
    notes: Sequence[str],
) -> Request:
    """Obligations applied, references bound to full ids; the very request, where there is nothing to do.

    Args: everything: the actor is an admin, whose names are those inside dockerd. notes: what the container's label says.
    """
    shaped = asked
    if decision.obligations:
        shaped = apply(
            asked,
            decision.obligations,
            labels=fulfilled.labels | changed_label(notes),
            devices=fulfilled.devices,
            engine=facts.engine,
        )
    if facts.objects:
        shaped = bind(shaped, facts, uid=uid, everything=everything)
    if fulfilled.network is not None:
        shaped = join(shaped, fulfilled.network)
    if facts.objects:
        shaped = with_aliases(shaped, asked, facts)
    return shaped


def notes(decision: Decision) -> tuple[str, ...]:
    """What was changed of the request, one sentence each."""
    return tuple(
        item.note
        for item in decision.obligations
        if isinstance(item, SetField | SetQuery | JoinOwnNetwork) and item.note
    )
