"""`POST /build/prune` of a user, as `docker system prune` asks: the own records of BuildKit's cache, one by one.

SOURCE: moby v28.5, builder/builder-next/builder.go, toBuildkitPruneInfo: `until` counts from the last use, other filters are
compared with fields; what is in use stays.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping

import msgspec

from policy.dockerapi import responses, strict_json
from policy.dockerapi.model import Operation
from policy.dockerapi.responses import CacheRecord
from policy.dockerapi.selection import Candidate, moment, select
from socket_proxy.engine import Engine
from socket_proxy.transaction import Transaction

_TYPE_SINCE = (1, 42)  # before, /system/df measures every volume
_TYPES = ("build-cache", "container")  # engine 26.1 panics where the build cache alone is asked for
_KEEPING = ("keep-storage", "reserved-space", "max-used-space")

Filters = Mapping[str, Mapping[str, bool]]


class _Report(msgspec.Struct):
    CachesDeleted: list[str] | None = None
    SpaceReclaimed: int = 0


async def prune_own(engine: Engine, transaction: Transaction) -> tuple[list[str], int]:
    """Remove what the query selects. Returns: ids and bytes. Raises: EngineError, MalformedRequest, Upstream*."""
    usage = await engine.ask(Operation.SYSTEM_DATA_USAGE, query={"type": _TYPES}, version=_TYPE_SINCE)
    own = (record for record, _ in responses.own_records(responses.cache_of(usage), transaction.actor.uid))
    removed: list[str] = []
    reclaimed = 0
    for record in selected(own, transaction.asked.query, now_seconds=time.time()):
        filters = strict_json.write({"id": {record.ID: True}})
        answer = await engine.ask(
            Operation.BUILD_PRUNE, query={"all": ("1",), "filters": (filters,)}, version=_TYPE_SINCE
        )
        report = msgspec.json.decode(answer, type=_Report)
        removed += report.CachesDeleted or ()
        reclaimed += report.SpaceReclaimed
    return removed, reclaimed


def selected(
    records: Iterable[CacheRecord], query: Mapping[str, tuple[str, ...]], *, now_seconds: float
) -> list[CacheRecord]:
    """What a prune takes of them, longest unused first. Raises: MalformedRequest: an `until` that is no time."""
    if "min-free-space" in query:
        return []  # of the disk, which is everybody's
    filters = msgspec.json.decode(next(iter(query.get("filters", ())), "{}"), type=dict[str, dict[str, bool]])
    keep = max(int(next(iter(query.get(key, ())), "0")) for key in _KEEPING)
    found = sorted(records, key=_last_used)
    size = sum(record.Size for record in found)
    taken: list[CacheRecord] = []
    for record in found:
        if size <= keep and keep:
            break
        if not record.InUse and _is_chosen(record, filters, now_seconds):
            taken.append(record)
            size -= record.Size
    return taken


def _is_chosen(record: CacheRecord, filters: Filters, now_seconds: float) -> bool:
    fields = {
        "id": record.ID,
        "type": record.Type,
        "description": record.Description,
        "inuse": _word(is_true=record.InUse),
        "shared": _word(is_true=record.Shared),
        "private": _word(is_true=not record.Shared),
        "parent": "",
    }
    if any(fields[name] != value for name in fields for value in filters.get(name, ())):
        return False
    candidate = Candidate(labels={}, created_seconds=_last_used(record))
    return select({"until": filters.get("until", {})}, candidate, now_seconds=now_seconds)


def _last_used(record: CacheRecord) -> float:
    return moment(record.LastUsedAt or record.CreatedAt)


def _word(*, is_true: bool) -> str:
    return "true" if is_true else "false"
