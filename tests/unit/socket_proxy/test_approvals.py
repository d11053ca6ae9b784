"""What a create was let have is on disk, signed, before its answer goes out, and gone with its container."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.trusted import Ed25519Key
from policy.approval import ApprovedMount, Source
from policy.dockerapi.model import Operation
from policy.model import CheckBind, ContainerId, DeviceUuid, LeaseId
from policy.stand_ins import StandIns
from runtime.approvals import Approvals as Reader
from socket_proxy.approvals import Approvals
from socket_proxy.fulfil import Fulfilled
from socket_proxy.keys import Keys
from tests.fakes.proxy_world import ALICE
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from pathlib import Path

    from socket_proxy.transaction import Transaction

ID, OTHER = ContainerId("a" * 64), ContainerId("b" * 64)
SOCKET = "/run/ds01/users/alice/docker.sock"
STAND_INS = StandIns("/var/lib/ds01/sources")
MINE = CheckBind(source="/home/alice/d", target="/d", read_only=False, create=True, setuid_ok=True, field="x")


@pytest.fixture
def keys() -> Keys:
    private = Ed25519PrivateKey.generate()
    return Keys(private=private, public=private.public_key(), engine_id="e" * 32)


@pytest.fixture
def approvals(tmp_path: Path, keys: Keys) -> Approvals:
    return Approvals(tmp_path / "approvals", keys, STAND_INS)


def create(host: dict[str, Any], **fulfilled: Any) -> Transaction:
    made, _ = transaction(Operation.CONTAINER_CREATE, {"Image": "busybox", "HostConfig": host})
    return replace(made, fulfilled=Fulfilled(labels={}, **fulfilled), user_socket=SOCKET)


async def test_the_guard_reads_what_the_proxy_wrote(approvals: Approvals, tmp_path: Path, keys: Keys) -> None:
    """Owner, mounts, nodes, joined containers, lease and devices."""
    asked = create(
        {
            "Binds": ["/home/alice/d:/d", f"{SOCKET}:/var/run/docker.sock"],
            "Devices": [{"PathOnHost": "/dev/fuse", "PathInContainer": "/dev/fuse"}],
            "NetworkMode": f"container:{OTHER}",
        },
        binds=(MINE,),
        lease=LeaseId("L1"),
        devices=(DeviceUuid("GPU-2"), DeviceUuid("GPU-1")),
    )
    await approvals.record(asked, ID)
    reader = Reader(
        tmp_path / "approvals",
        key=lambda: Ed25519Key(keys.public),
        engine_id=lambda: keys.engine_id,
        owners=frozenset({os.geteuid()}),
    )
    found = reader.find(ID)
    assert found is not None
    assert found == approvals.find(ID)
    assert (found.uid, found.lease, found.devices) == (ALICE.uid, "L1", ("GPU-1", "GPU-2"))
    assert [(mount.kind, mount.create, mount.setuid_ok) for mount in found.mounts] == [
        (Source.PATH, True, True),
        (Source.SOCKET, False, False),
    ]
    assert (found.nodes, found.joined) == (("/dev/fuse",), (OTHER,))


async def test_nobody_else_can_read_or_write_it(approvals: Approvals, tmp_path: Path) -> None:
    """It says what somebody has of the host."""
    await approvals.record(create({}), ID)
    assert (tmp_path / "approvals").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "approvals" / ID).stat().st_mode & 0o777 == 0o600


async def test_mounts_of_another_container_are_taken_over(approvals: Approvals) -> None:
    """Of those that were approved; a container without an approval brings nothing."""
    await approvals.record(create({"Binds": ["/home/alice/d:/d"]}, binds=(MINE,)), OTHER)
    await approvals.record(create({"VolumesFrom": [f"{OTHER}:ro", "c" * 64]}), ID)
    found = approvals.find(ID)
    assert found is not None
    assert found.mounts == (
        ApprovedMount(
            kind=Source.PATH,
            source="/home/alice/d",
            target="/d",
            read_only=True,
            create=True,
            setuid_ok=True,
            told=f"/var/lib/ds01/sources/{ALICE.uid}/3rw/home/alice/d",
        ),
    )


async def test_what_nobody_looked_at_is_not_recorded(approvals: Approvals) -> None:
    """Nothing is written then."""
    with pytest.raises(ValueError):
        await approvals.record(create({"Binds": ["/home/alice/d:/d"]}), ID)
    assert approvals.kept() == frozenset()


async def test_it_goes_with_its_container(approvals: Approvals, tmp_path: Path) -> None:
    """Once or twice; half-written files are no containers."""
    await approvals.record(create({}), ID)
    (tmp_path / "approvals" / f".{ID}.0123").touch()
    assert approvals.kept() == {ID}
    approvals.drop(ID)
    approvals.drop(ID)
    assert approvals.kept() == frozenset()
    assert approvals.find(ID) is None


async def test_a_changed_file_brings_nothing(approvals: Approvals, tmp_path: Path) -> None:
    """Also one that was moved to another's name."""
    await approvals.record(create({"Binds": ["/home/alice/d:/d"]}, binds=(MINE,)), ID)
    path = tmp_path / "approvals" / ID
    path.write_bytes(path.read_bytes().replace(b"/home/alice", b"/home/bobby"))
    assert approvals.find(ID) is None
    await approvals.record(create({}), ID)
    path.rename(tmp_path / "approvals" / OTHER)
    assert approvals.find(OTHER) is None


async def test_stand_ins_and_the_words_of_the_create_are_kept(approvals: Approvals) -> None:
    """Words only where they differ from what was looked at; a proxy that starts anew reads them from the file."""
    told = f"/var/lib/ds01/sources/{ALICE.uid}/3rw/home/alice/d"
    asked = {"Binds": ["/home/alice/link/:/d", "/run/docker.sock:/s"]}
    made = create({"Binds": ["/home/alice/d:/d", f"{SOCKET}:/s"]}, binds=(MINE,))
    body: Any = {"Image": "busybox", "HostConfig": asked}
    await approvals.record(replace(made, asked=replace(made.asked, body=body)), ID)
    found = approvals.find(ID)
    assert found is not None
    assert [(mount.told, mount.asked) for mount in found.mounts] == [
        (told, "/home/alice/link/"),
        ("", "/run/docker.sock"),
    ]
    assert approvals.words(ID) == {"/d": "/home/alice/link/", "/s": "/run/docker.sock"}
    assert approvals.host_paths(ID).told == {told}
    assert approvals.told() == {told}
    approvals.drop(ID)
    assert approvals.host_paths(ID).told == frozenset()
    assert approvals.told() == frozenset()


async def test_plain_words_are_not_kept(approvals: Approvals) -> None:
    """Most creates write what is there."""
    await approvals.record(create({"Binds": ["/home/alice/d:/d"]}, binds=(MINE,)), ID)
    assert approvals.words(ID) == {}
