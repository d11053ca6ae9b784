"""Routes about containers that ds01 did not make."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from allocator.adoption import Evidence, Inspected, Ownership
from allocator.api_foreign import ForeignRoutes
from allocator.foreign_owners import ForeignOwners
from policy.model import Uid
from tests.fakes.fake_nvml import FakeNvml, gpu
from tests.fakes.leasing import Clock, foreign, service
from tests.fakes.routes import NOBODY, TRUSTED, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from allocator.service import Allocator

WISH: dict[str, Any] = {
    "owner_uid": 1000,
    "owner_name": "alice",
    "groups": [],
    "restarts": True,
    "session": "one",
    "request_id": "0123456789ab",
}
LEASE = f"/v1/foreign/{'f' * 64}/lease"


def _alices(_: Inspected) -> Ownership:
    return Ownership(owner=Uid(1000), evidence=Evidence.NAME, why="name old")


@pytest.fixture
async def allocator(tmp_path: Path) -> AsyncIterator[Allocator]:
    one = service(tmp_path / "ledger", FakeNvml(gpu(0), gpu(1)), Clock())
    yield one
    await one.close()


def routes(allocator: Allocator, owners: ForeignOwners, trusted: frozenset[int] = TRUSTED) -> Any:
    return ForeignRoutes(allocator, owners, trusted_uids=trusted, now=Clock()).routes()


async def test_all_are_listed_with_whose_they_may_be(tmp_path: Path, allocator: Allocator) -> None:
    """And with their devices, once somebody has looked; a container that nobody looked at yet says nothing of an owner."""
    owners = ForeignOwners(_alices)
    seen = Inspected(id=foreign().id, name="old", labels={})
    allocator.foreign.tell([replace(foreign("1"), inspected=seen, adopted_by=Uid(7))])
    async with served(tmp_path, routes(allocator, owners)) as call:
        status, told = await call("GET", "/v1/foreign")
        (one,) = told["containers"]
        assert (status, one["devices"], one["probable_owner_uid"], one["why"]) == (200, None, None, None)
        await allocator.sweep()
        owners.tell(allocator.foreign.inspected())
        while owners.of(seen.id) is None:
            await call("GET", "/v1/foreign")
        _, told = await call("GET", "/v1/foreign")
    (one,) = told["containers"]
    assert one == {
        "container": "old",
        "container_id": "f" * 64,
        "runs": True,
        "adopted_by": 7,
        "probable_owner_uid": 1000,
        "evidence": "name",
        "why": "name old",
        "devices": [gpu(1).uuid],
    }


async def test_one_gets_a_lease(tmp_path: Path, allocator: Allocator) -> None:
    """What cannot be read, and what is not there, get none."""
    await allocator.sweep()
    allocator.foreign.tell([foreign("1")])
    async with served(tmp_path, routes(allocator, ForeignOwners(_alices))) as call:
        for wrong in ({**WISH, "restarts": 1}, {**WISH, "groups": [1]}, {**WISH, "owner_uid": None}):
            assert (await call("POST", LEASE, wrong))[0] == 400
        assert (await call("POST", "/v1/foreign/short/lease", WISH))[0] == 400
        assert (await call("POST", f"/v1/foreign/{'e' * 64}/lease", WISH))[0] == 404
        assert await allocator.leases(None) == ()
        status, said = await call("POST", LEASE, WISH)
    assert (status, said["left_out"]) == (200, [])
    (lease,) = said["leases"]
    assert (lease["devices"], lease["state"], lease["owner_name"]) == ([gpu(1).uuid], "active", "alice")


async def test_both_are_for_the_trusted(tmp_path: Path, allocator: Allocator) -> None:
    """Names and owners of others' containers are nobody's business."""
    allocator.foreign.tell([foreign("1")])
    async with served(tmp_path, routes(allocator, ForeignOwners(_alices), NOBODY)) as call:
        assert (await call("GET", "/v1/foreign"))[0] == 403
        assert (await call("POST", LEASE, WISH))[0] == 403
