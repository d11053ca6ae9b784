"""Which records of the build cache a user's prune removes."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.responses import CacheRecord
from socket_proxy.build_prune import prune_own, selected
from tests.fakes.policy_world import ALICE
from tests.fakes.proxy_world import proxy_world

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.transaction import Transaction

NOW = 1_767_268_800.0  # 2026-01-01T12:00:00Z
OLD = CacheRecord(ID="old", Type="exec.cachemount", Size=10, LastUsedAt="2026-01-01T00:00:00Z")
NEW = CacheRecord(ID="new", Type="exec.cachemount", Size=5, CreatedAt="2026-01-01T11:00:00Z", Shared=True)
BUSY = CacheRecord(ID="busy", Type="exec.cachemount", Size=1, CreatedAt="2026-01-01T11:30:00Z", InUse=True)


def chosen(**keys: str) -> list[str]:
    query = {key.replace("_", "-"): (value,) for key, value in keys.items()}
    return [one.ID for one in selected([BUSY, NEW, OLD], query, now_seconds=NOW)]


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, ["old", "new"]),
        ({"all": "1"}, ["old", "new"]),
        ({"filters": '{"until":{"2h":true}}'}, ["old"]),
        ({"filters": '{"id":{"new":true}}'}, ["new"]),
        ({"filters": '{"id":{"new":true,"old":true}}'}, []),
        ({"filters": '{"type":{"regular":true}}'}, []),
        ({"filters": '{"shared":{"true":true}}'}, ["new"]),
        ({"filters": '{"private":{"true":true}}'}, ["old"]),
        ({"filters": '{"inuse":{"true":true}}'}, []),
        ({"filters": '{"parent":{"x":true}}'}, []),
        ({"keep_storage": "6"}, ["old"]),
        ({"reserved_space": "1000"}, []),
        ({"max_used_space": "8"}, ["old"]),
        ({"min_free_space": "1"}, []),
    ],
)
def test_what_is_selected(keys: dict[str, str], expected: list[str]) -> None:
    """Longest unused first, never what is in use, and no more than is asked for."""
    assert chosen(**keys) == expected


def test_a_time_that_is_none_is_malformed() -> None:
    """Rather than all or nothing."""
    with pytest.raises(MalformedRequest):
        chosen(filters='{"until":{"yesterday":true}}')


async def test_own_records_are_removed_one_by_one(tmp_path: Path) -> None:
    """By id, so that nothing of another's can go with them."""
    own = {"ID": "a1", "Type": "exec.cachemount", "Size": 5, "CreatedAt": "2026-01-01T00:00:00Z",
           "Description": f'RUN x with id "ds01-{ALICE.uid}/c"'}  # fmt: skip
    his = own | {"ID": "b1", "Description": 'RUN x with id "ds01-4711/c"'}
    async with proxy_world(tmp_path) as world:
        world.answers["GET /v1.42/system/df"] = (200, {"Images": None, "BuildCache": [his, own]})
        world.answers["POST /v1.42/build/prune"] = (200, {"CachesDeleted": ["a1"], "SpaceReclaimed": 5})
        asked = cast("Transaction", SimpleNamespace(actor=ALICE, asked=SimpleNamespace(query={})))
        assert await prune_own(world.engine, asked) == (["a1"], 5)
        pruned = [line for line in world.asked if line.startswith("POST")]
    assert len(pruned) == 1
    assert json.dumps("a1").strip('"') in pruned[0]
    assert "b1" not in pruned[0]
