"""Single tars: what is refused, what becomes whose, and what dockerd must not take for something else."""

from __future__ import annotations

import io
import tarfile

import pytest

from policy.dockerapi.archive import ArchiveFilter, Destination
from policy.dockerapi.model import MalformedRequest


def member(name: str, kind: bytes = tarfile.REGTYPE, **more: object) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type = kind
    for key, value in more.items():
        setattr(info, key, value)
    return info


def tar(*members: tarfile.TarInfo, form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as made:
        for info in members:
            made.addfile(info, io.BytesIO(b"x" * info.size))
    return buffer.getvalue()


def through(data: bytes, destination: Destination | None = None) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(filtered(data, destination))) as read:
        return read.getmembers()


def filtered(data: bytes, destination: Destination | None = None) -> bytes:
    archive = ArchiveFilter(destination or Destination(path="/"))
    return b"".join([*archive.feed(data), *archive.close()])


@pytest.mark.parametrize(
    ("members", "says"),
    [
        ([member("../x")], "'..'"),
        ([member("a/../../x")], "'..'"),
        ([member("l", tarfile.LNKTYPE, linkname="../../etc/passwd")], "'..'"),
        ([member("l", tarfile.SYMTYPE, linkname="/b"), member("l/x", size=3)], "behind a symbolic link"),
        ([member("./l", tarfile.SYMTYPE, linkname="b"), member("/l//x/y")], "behind a symbolic link"),
        (
            [member("l", tarfile.SYMTYPE, linkname="b"), member("h", tarfile.LNKTYPE, linkname="l/x")],
            "behind",
        ),
        ([member("l", tarfile.SYMTYPE, linkname="x" * 5000)], "too long"),
        ([member("n" * 5000)], "too long"),
        ([member("s", tarfile.GNUTYPE_SPARSE)], "type"),
        ([member("v", b"V")], "type"),
    ],
)
def test_what_leads_elsewhere_is_refused(members: list[tarfile.TarInfo], says: str) -> None:
    """By name, by a link of the same tar, or by a type that nobody knows."""
    with pytest.raises(MalformedRequest, match=says):
        filtered(tar(*members))


def test_sparse_files_are_refused() -> None:
    """In PAX they are ordinary files with records, and another reader would see another file."""
    info = member("s")
    info.pax_headers = {"GNU.sparse.major": "1"}
    with pytest.raises(MalformedRequest, match="sparse"):
        filtered(tar(info, form=tarfile.PAX_FORMAT))


def test_a_link_that_is_replaced_is_no_link_any_more() -> None:
    """As dockerd does: the file takes its place."""
    members = (
        member("l", tarfile.SYMTYPE, linkname="b"),
        member("l", tarfile.DIRTYPE),
        member("l/x", size=1),
    )
    assert [info.name for info in through(tar(*members))] == ["l", "l", "l/x"]


@pytest.mark.parametrize(
    ("path", "name", "uid"),
    [
        ("/home/alice", "a", 1000),
        ("/home", "alice/a/b", 1000),
        ("/", "home/alice", 1000),
        ("/", "/home/alice/a", 1000),
        ("/", "home/alice2/a", 5),
        ("/etc", "a", 5),
        ("/home/../etc", "a", 5),
    ],
)
def test_in_a_bind_mount_everything_is_the_owners(path: str, name: str, uid: int) -> None:
    """Where the path leads decides; elsewhere numbers are the container's own accounts (compose sets them)."""
    destination = Destination(path=path, binds=("/home/alice",), uid=1000, gid=1001)
    found = through(tar(member(name, uid=5, gid=6)), destination)
    assert (found[0].uid, found[0].gid) == (uid, 1001 if uid == 1000 else 6)


@pytest.mark.parametrize(
    ("path", "bound"),
    [("/home/alice", True), ("home/alice/a", True), ("/home/alice/..", False), ("/", False)],
)
def test_a_destination_that_is_a_bind_mount(path: str, *, bound: bool) -> None:
    """By the path alone, relative ones from the root, as dockerd takes them."""
    assert Destination(path=path, binds=("/home/alice",)).bound == bound


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd"])
def test_a_name_is_never_taken_for_a_compression(magic: bytes) -> None:
    """dockerd looks at the first bytes; they are never the first member's name."""
    name = magic.rstrip(b"\0").decode("latin-1")
    assert not filtered(tar(member(name, size=4), form=tarfile.USTAR_FORMAT)).startswith(magic[:3])


def test_global_records_change_nothing() -> None:
    """dockerd's reader applies them to no member, Python's to all."""
    buffer = io.BytesIO()
    with tarfile.open(
        fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"path": "/etc/shadow", "uid": "0"}
    ) as made:
        made.addfile(member("a", uid=7))
    assert [(info.name, info.uid) for info in through(buffer.getvalue())] == [("a", 7)]


@pytest.mark.parametrize("keep", [1, 511, 512 + 100, 1024])
def test_a_tar_that_ends_within_a_member_is_refused(keep: int) -> None:
    """dockerd would have extracted half of it."""
    with pytest.raises(MalformedRequest, match="too early"):
        filtered(tar(member("a", size=3000))[:keep])


def test_an_empty_upload_is_an_empty_archive() -> None:
    """As dockerd takes it."""
    assert through(b"") == []


def test_what_follows_the_end_is_left_out() -> None:
    """A second archive after the first is read by nobody."""
    one, two = tar(member("a")), tar(member("b"))
    assert [info.name for info in through(one + two)] == ["a"]


def test_one_empty_block_is_no_end() -> None:
    """Some readers go on after it, others do not."""
    with pytest.raises(MalformedRequest, match="empty block"):
        filtered(b"\0" * 512 + tar(member("a")))


def test_links_are_counted() -> None:
    """What is remembered of a tar is bounded."""
    links = [member(f"{number}" + "/d" * 1500, tarfile.SYMTYPE, linkname="x") for number in range(3000)]
    with pytest.raises(MalformedRequest, match="too many symbolic links"):
        filtered(tar(*links))
