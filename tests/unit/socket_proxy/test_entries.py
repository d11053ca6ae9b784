"""What the index is told of an object: its owner by seal, by adoption or by record, in that order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policy.model import Adopted, ContainerId, Kind, LeaseId, Uid
from socket_proxy.adoptions import Adoption
from tests.fakes.proxy_world import ALICE, proxy_world

if TYPE_CHECKING:
    from pathlib import Path

ONE = "a" * 64


async def test_a_seal_says_owner_lease_and_request(tmp_path: Path) -> None:
    """It says more than an adoption; without either nothing is known but the name."""
    async with proxy_world(tmp_path) as world:
        world.adoptions.add(Adoption(container=ContainerId(ONE), owner=Uid(1002), lease=LeaseId("L7")))
        sealed = world.entries.container(ONE, "web", world.labels(lease="L1", request="r1"), state="running")
        assert (sealed.owner, sealed.lease, sealed.created_by, sealed.adopted) == (
            ALICE.uid,
            "L1",
            "r1",
            None,
        )
        adopted = world.entries.container(ONE, "web", {"ds01.uid": "0"}, state="running")
        assert (adopted.owner, adopted.lease, adopted.created_by, adopted.adopted) == (
            1002,
            "L7",
            "",
            Adopted(),
        )
        for labels in (None, {}, {"ds01.uid": "0"}):
            unknown = world.entries.container("b" * 64, "web", labels, state="created")
            assert (unknown.owner, unknown.lease, unknown.name) == (None, None, "web")


async def test_a_volume_has_its_seal_or_its_record(tmp_path: Path) -> None:
    """An anonymous one carries no label; what nobody recorded is nobody's."""
    async with proxy_world(tmp_path) as world:
        world.records.claim_volume("anonymous", Uid(1002))
        owners = [
            world.entries.volume(name, labels).owner
            for name, labels in (
                ("sealed", world.labels()),
                ("anonymous", world.labels()),
                ("anonymous", None),
                ("old", {}),
            )
        ]
        assert owners == [ALICE.uid, ALICE.uid, 1002, None]


async def test_a_network_has_its_seal(tmp_path: Path) -> None:
    """dockerd's own have none."""
    async with proxy_world(tmp_path) as world:
        assert world.entries.network("n1", "app", world.labels()).owner == ALICE.uid
        bridge = world.entries.network("n2", "bridge", None)
        assert (bridge.kind, bridge.owner) == (Kind.NETWORK, None)
