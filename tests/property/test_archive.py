"""Laws of the archive filter, against Python's tarfile: what passes is the same tree without what is dangerous."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.dockerapi.archive import ArchiveFilter, Destination
from policy.dockerapi.compressed import Plain
from policy.dockerapi.model import MalformedRequest

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
KINDS = (
    tarfile.REGTYPE,
    tarfile.AREGTYPE,
    tarfile.CONTTYPE,
    tarfile.DIRTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.CHRTYPE,
    tarfile.BLKTYPE,
    tarfile.FIFOTYPE,
)
PASSED = {tarfile.REGTYPE, tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE}
# No link's name is another member's folder: such tars are refused, and tested beside this.
FOLDERS = st.lists(st.sampled_from(["a", "b" * 60, "ordner-ü", "c c"]), max_size=3)
ENDS = st.text("xyz.-_é", min_size=1, max_size=120).filter(lambda end: end not in {".", ".."})


@st.composite
def members(draw: st.DrawFn) -> tuple[tarfile.TarInfo, bytes]:
    folders, end, kind = draw(FOLDERS), draw(ENDS), draw(st.sampled_from(KINDS))
    info = tarfile.TarInfo("/".join([*folders, end]))
    info.type = kind
    info.mode = draw(st.integers(0, 0o7777))
    info.uid = draw(st.sampled_from([0, 1000, 2097151, 2097152, 4294967294]))
    info.gid = draw(st.sampled_from([0, 1000, 2097152]))
    info.mtime = draw(st.integers(0, 2**33 - 1) | st.just(2**34))
    data = b""
    if kind in {tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE}:
        data = draw(st.binary(max_size=1500))
        info.size = len(data)
    if kind in {tarfile.SYMTYPE, tarfile.LNKTYPE}:
        info.linkname = draw(st.text("lmn/é", min_size=1, max_size=150))
    if kind in {tarfile.CHRTYPE, tarfile.BLKTYPE}:
        info.devmajor, info.devminor = 1, 3
    return info, data


@st.composite
def archives(draw: st.DrawFn) -> tuple[list[tuple[tarfile.TarInfo, bytes]], bytes]:
    """Members and the tar that holds them, as tarfile writes it."""
    made = draw(st.lists(members(), max_size=5))
    form = draw(st.sampled_from(sorted(FORMATS)))
    buffer = io.BytesIO()
    kept = []
    with tarfile.open(fileobj=buffer, mode="w", format=FORMATS[form]) as tar:
        for info, data in made:
            if form == "pax" and draw(st.booleans()):
                info.pax_headers = {"SCHILY.xattr.security.capability": "x", "comment": "é"}
            try:
                tar.addfile(info, io.BytesIO(data))
            except ValueError:
                continue  # USTAR has no room for it
            kept.append((info, data))
    return kept, buffer.getvalue()


def run(tar: bytes, sizes: Iterable[int] = (), destination: Destination | None = None) -> bytes:
    """Feed a tar in pieces of the given sizes, then the rest."""
    archive = ArchiveFilter(destination or Destination(path="/"))
    passed: list[bytes] = []
    for size in sizes:
        passed.extend(archive.feed(tar[:size]))
        tar = tar[size:]
    passed.extend(archive.feed(tar))
    passed.extend(archive.close())
    return b"".join(passed)


def read(tar: bytes) -> list[tuple[tarfile.TarInfo, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        return [
            (info, (opened.extractfile(info) or io.BytesIO()).read() if info.isreg() else b"")
            for info in opened
        ]


def assert_behind_a_link(refused: MalformedRequest) -> None:
    """The one reason to refuse a whole and honest tar."""
    assert "behind a symbolic link" in str(refused)


@settings(max_examples=200, deadline=None)
@given(archives(), st.lists(st.integers(1, 2000), max_size=12))
def test_what_passes_is_the_same_tree_without_what_is_dangerous(
    archive: tuple[list[tuple[tarfile.TarInfo, bytes]], bytes], sizes: list[int]
) -> None:
    """Names, links, owners, times and data stay; device nodes and fifos go, and the setuid and setgid bits."""
    given_members, tar = archive
    try:
        passed = run(tar, sizes)
    except MalformedRequest as refused:
        assert_behind_a_link(refused)
        return
    expected = [(info, data) for info, data in given_members if not (info.isdev())]
    found = read(passed)
    assert [info.name for info, _ in found] == [info.name for info, _ in expected]
    for (now, data), (then, sent) in zip(found, expected, strict=True):
        assert data == sent
        assert now.type in PASSED
        assert now.mode == then.mode & ~0o6000
        assert (now.uid, now.gid, now.mtime, now.linkname) == (then.uid, then.gid, then.mtime, then.linkname)
        assert not {key for key in now.pax_headers if key.startswith("SCHILY")}
    assert run(passed, sizes) == passed


@settings(max_examples=200, deadline=None)
@given(archives(), st.data())
def test_damage_is_refused_or_harmless(
    archive: tuple[list[tuple[tarfile.TarInfo, bytes]], bytes], data: st.DataObject
) -> None:
    """A tar that was cut or changed gives MalformedRequest or a tar of harmless members; nothing else."""
    tar = bytearray(archive[1])
    for _ in range(data.draw(st.integers(0, 4))):
        tar[data.draw(st.integers(0, len(tar) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(tar[: data.draw(st.integers(0, len(tar)))])
    try:
        passed = run(cut, destination=Destination(path="/", binds=("/a",), uid=1000, gid=1000))
    except MalformedRequest:
        return
    for info, _ in read(passed):
        assert info.type in PASSED
        assert not info.mode & 0o6000
        assert ".." not in info.name.split("/")


PACKERS: dict[str, Any] = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}


@settings(max_examples=60, deadline=None)
@given(
    st.binary(max_size=4000),
    st.sampled_from(sorted(PACKERS)),
    st.lists(st.integers(1, 400), max_size=6),
    st.booleans(),
)
def test_a_compressed_upload_is_what_was_compressed(
    data: bytes,
    packer: str,
    sizes: list[int],
    twice: bool,
) -> None:
    """In pieces of any size, one stream or two after another."""
    data = b"./" + data  # no magic of its own
    packed = PACKERS[packer](data)
    if twice and packer != "plain":
        packed, data = packed + packed, data + data
    plain = Plain()
    found = b""
    rest = packed
    for size in sizes:
        found += b"".join(plain.feed(rest[:size]))
        rest = rest[size:]
    found += b"".join(plain.feed(rest)) + b"".join(plain.close())
    assert found == data


@pytest.mark.parametrize("packer", ["gzip", "bzip2", "xz"])
@pytest.mark.parametrize("cut", [1, 5, 12, -1])
def test_a_compressed_upload_cut_short_is_refused(packer: str, cut: int) -> None:
    """Whatever came before is no whole archive."""
    plain = Plain()
    packed: bytes = PACKERS[packer](b"x" * 100_000)[:cut]

    def all_of_it() -> bytes:
        return b"".join(plain.feed(packed)) + b"".join(plain.close())

    if cut == 1:  # too short to say what it is: no tar either, and the tar's reader refuses it
        assert len(all_of_it()) == 1
        return
    if cut == 5 and packer == "xz":
        assert len(all_of_it()) == 5
        return
    with pytest.raises(MalformedRequest):
        all_of_it()
