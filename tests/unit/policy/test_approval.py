"""An approval holds all the mounts of a create and nothing that was not looked at; its file has one form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy import approval
from policy.approval import Approval, ApprovalInvalid, ApprovedMount, Source
from policy.model import CheckBind, ContainerId, DeviceUuid, LeaseId, Uid

ID = ContainerId("a" * 64)
OTHER = ContainerId("b" * 64)
SOCKET = "/run/ds01/users/alice/docker.sock"
FULL = Approval(
    container=ID,
    engine_id="e" * 32,
    uid=Uid(1000),
    mounts=(
        ApprovedMount(kind=Source.PATH, source="/home/alice/d", target="/d", create=True),
        ApprovedMount(kind=Source.VOLUME, source="v", target="/v", read_only=True),
    ),
    nodes=("/dev/fuse",),
    joined=(OTHER,),
    lease=LeaseId("L1"),
    devices=(DeviceUuid("GPU-1"),),
)


def looked(source: str, target: str, **how: Any) -> CheckBind:
    plain: dict[str, Any] = {"read_only": False, "create": False, "setuid_ok": False, "field": "x"}
    return CheckBind(source=source, target=target, **(plain | how))


def body(**host: Any) -> dict[str, Any]:
    return {"HostConfig": host}


def test_every_source_of_a_create_is_in_it() -> None:
    """Paths as they were looked at, volumes by name, the own socket as a socket; anonymous volumes have no source."""
    mounts = approval.approved_mounts(
        body(
            Binds=["/home/alice/d:/d", "v:/v:ro", "/anon", f"{SOCKET}:/var/run/docker.sock"],
            Mounts=[
                {"Type": "bind", "Source": "/data", "Target": "/m", "ReadOnly": True},
                {"Type": "volume", "Source": "w", "Target": "/w"},
                {"Type": "volume", "Target": "/anonymous"},
                {"Type": "volume", "Source": "w", "Target": "/p", "VolumeOptions": {"Subpath": "x"}},
                {"Type": "image", "Source": "busybox", "Target": "/i", "ReadOnly": True},
                {"Type": "image", "Source": "busybox", "Target": "/s", "ImageOptions": {"Subpath": "x"}},
                {"Type": "tmpfs", "Target": "/t"},
            ],
        ),
        [
            looked("/home/alice/d", "/d", create=True),
            looked("/data", "/m", read_only=True, setuid_ok=True),
        ],
        user_socket=SOCKET,
    )
    assert mounts == (
        ApprovedMount(kind=Source.PATH, source="/home/alice/d", target="/d", create=True),
        ApprovedMount(kind=Source.VOLUME, source="v", target="/v", read_only=True),
        ApprovedMount(kind=Source.SOCKET, source=SOCKET, target="/var/run/docker.sock"),
        ApprovedMount(kind=Source.PATH, source="/data", target="/m", read_only=True, setuid_ok=True),
        ApprovedMount(kind=Source.VOLUME, source="w", target="/w"),
        ApprovedMount(kind=Source.VOLUME, source="w", target="/p", subpath=True),
        ApprovedMount(kind=Source.IMAGE, source="busybox", target="/i", read_only=True),
        ApprovedMount(kind=Source.IMAGE, source="busybox", target="/s", subpath=True),
    )


@pytest.mark.parametrize(
    "seen",
    [
        [],
        [looked("/home/alice/e", "/d")],
        [looked("/home/alice/d", "/e")],
        [looked("/home/alice/d", "/d", read_only=True)],
    ],
    ids=["nothing", "another source", "another target", "read-only, and it is written to"],
)
def test_what_nobody_looked_at_is_not_approved(seen: list[CheckBind]) -> None:
    """A mistake of the proxy's makes no approval."""
    with pytest.raises(ValueError, match="nobody looked at"):
        approval.approved_mounts(body(Binds=["/home/alice/d:/d"]), seen, user_socket=SOCKET)


@pytest.mark.parametrize("socket", ["", "/run/ds01/users/bob/docker.sock"])
def test_another_socket_is_a_path_like_any_other(socket: str) -> None:
    """Only the actor's own door is one."""
    with pytest.raises(ValueError):
        approval.approved_mounts(body(Binds=[f"{SOCKET}:/s"]), [], user_socket=socket)


@pytest.mark.parametrize(("mode", "read_only"), [("", [False, True]), (":ro", [True, True])])
def test_mounts_of_other_containers_come_as_they_were_approved(mode: str, read_only: list[bool]) -> None:
    """`ro` makes them all read-only, and `rw` would not make one writable."""
    found = approval.inherited_mounts(body(VolumesFrom=[f"{ID}{mode}", OTHER]), {ID: FULL})
    assert [each.read_only for each in found] == read_only
    assert [each.source for each in found] == ["/home/alice/d", "v"]


def test_what_else_a_create_names_is_found() -> None:
    """Containers whose namespaces it shares, once each, and where devices appear."""
    asked = body(
        NetworkMode=f"container:{ID}",
        IpcMode=f"container:{ID}",
        PidMode=f"container:{OTHER}",
        Devices=[{"PathOnHost": "/dev/fuse"}, {"PathOnHost": "/dev/a", "PathInContainer": "/dev/b"}],
        VolumesFrom=[f"{ID}:ro"],
    )
    assert approval.joined_containers(asked) == (ID, OTHER)
    assert approval.device_nodes(asked) == ("/dev/fuse", "/dev/b")
    assert approval.volumes_from(asked) == (ID,)
    assert approval.joined_containers(body(NetworkMode="bridge")) == ()


@pytest.mark.parametrize("made", [FULL, Approval(container=ID, engine_id="e", uid=Uid(0))])
def test_what_was_written_is_read(made: Approval) -> None:
    """Sealed, unsealed, read: the same approval."""
    signature, text = approval.unseal(approval.seal(approval.write(made), b"s" * 64))
    assert signature == b"s" * 64
    assert approval.read(text) == made


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text[:-1],
        lambda text: text + b"{}",
        lambda text: text.replace(b'"uid":1000', b'"uid":"1000"'),
        lambda text: text.replace(b'"uid":1000', b'"uid":1000,"uid":0'),
        lambda text: text.replace(b'"path"', b'"paths"'),
        lambda text: text.replace(b',"uid":1000', b""),
        lambda text: text.replace(b'"uid":1000', b'"uid":null'),
        lambda text: text.replace(b'"read_only":true,', b""),
        lambda text: text.replace(b'"read_only":true,', b'"read_only":true,"only_at_night":true,'),
        lambda text: text.replace(b"a" * 64, b"a" * 63),
        lambda text: text.replace(b'"nodes"', b'"x":1,"nodes"'),
        lambda _: b"",
        lambda _: b"\xff",
        lambda _: b"[]",
    ],
)
def test_any_other_text_is_none(change: Any) -> None:
    """There is one form, and nothing is guessed at."""
    with pytest.raises(ApprovalInvalid):
        approval.read(change(approval.write(FULL)))


def test_what_an_older_version_did_not_know_is_at_its_default() -> None:
    """An upgrade leaves the containers that are there."""
    text = approval.write(FULL).replace(b',"subpath":false', b"").replace(b'"nodes":["/dev/fuse"],', b"")
    assert b"subpath" not in text
    assert approval.read(text) == replace(FULL, nodes=())


@pytest.mark.parametrize("content", [b"", b"v1.\n{}", b"v2." + b"0" * 128 + b"\n{}", b"v1." + b"0" * 128])
def test_a_file_without_a_signature_is_none(content: bytes) -> None:
    """The first line is the signature's."""
    with pytest.raises(ApprovalInvalid):
        approval.unseal(content)


def test_every_field_is_signed() -> None:
    """No two approvals have the same message, and no other thing of ds01's has it."""
    others = [
        replace(FULL, uid=Uid(0)),
        replace(FULL, engine_id="f"),
        replace(FULL, container=OTHER),
        replace(FULL, mounts=()),
        replace(FULL, nodes=()),
        replace(FULL, joined=()),
        replace(FULL, lease=None),
        replace(FULL, devices=()),
    ]
    messages = {approval.message(approval.write(each)) for each in (FULL, *others)}
    assert len(messages) == 9
    assert all(each.startswith(b"ds01-approval-v1\0") for each in messages)
