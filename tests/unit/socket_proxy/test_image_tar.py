"""What of an image tar reaches dockerd, and which tags it would move."""

from __future__ import annotations

import io
import tarfile

import pytest

from socket_proxy.image_tar import rewrite
from socket_proxy.refusals import Refusal

MANIFEST = b'[{"Config":"c.json","RepoTags":["mine:1","mine:2"],"Layers":["l/layer.tar"]}]'
FOREIGN = b'[{"Config":"c.json","RepoTags":["theirs:1"],"Layers":[]}]'


def member(name: str, content: bytes = b"", *, kind: bytes = tarfile.REGTYPE, link: str = "") -> bytes:
    """One member, head and content, without the end of the archive."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size = kind, link, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content + b"\0" * (-len(content) % 512)


def loaded(*members: bytes) -> tuple[tuple[str, ...] | Refusal, list[str]]:
    """What `rewrite` says of a tar, and the names in what it wrote."""
    written = io.BytesIO()
    tags = rewrite(io.BytesIO(b"".join(members) + b"\0" * 1024), written)
    if isinstance(tags, Refusal):
        return tags, []
    with tarfile.open(fileobj=written) as archive:
        return tags, archive.getnames()


def damaged(head: bytes) -> bytes:
    """A head that Go reads and Python does not: an owner of 57 bits in binary."""
    changed = bytearray(head[:512])
    changed[108:116] = b"\x81" + b"\0" * 7
    changed[148:156] = b" " * 8
    changed[148:156] = b"%06o\0 " % sum(changed)
    return bytes(changed) + head[512:]


def test_what_docker_save_writes_passes() -> None:
    """Members and tags come through, a layer that is a link included."""
    tags, names = loaded(
        member("manifest.json", MANIFEST),
        member("l", kind=tarfile.DIRTYPE),
        member("l/layer.tar", b"x" * 700),
        member("m/layer.tar", kind=tarfile.SYMTYPE, link="../l/layer.tar"),
        member("repositories", b'{"mine":{"V1":"a","v1":"b"}}'),
    )
    assert tags == ("mine:1", "mine:2", "mine:V1", "mine:v1")
    assert names == ["manifest.json", "l", "l/layer.tar", "m/layer.tar", "repositories"]


@pytest.mark.parametrize(
    "name", ["x/../manifest.json", "././manifest.json", "//manifest.json", "/manifest.json"]
)
def test_another_spelling_of_the_manifest_is_the_manifest(name: str) -> None:
    """Dockerd cleans names before it writes the members to disk."""
    assert loaded(member(name, FOREIGN)) == (("theirs:1",), ["manifest.json"])


def test_what_is_hidden_behind_a_damaged_head_does_not_go_on() -> None:
    """Python ends there and Go reads on: what was not read is not written."""
    tags, names = loaded(
        member("manifest.json", MANIFEST), damaged(member("x")), member("manifest.json", FOREIGN)
    )
    assert (tags, names) == (("mine:1", "mine:2"), ["manifest.json"])


def test_two_manifests_count_both() -> None:
    """Whichever dockerd takes, its tags were looked at."""
    tags, _ = loaded(member("manifest.json", MANIFEST), member("manifest.json", FOREIGN))
    assert tags == ("mine:1", "mine:2", "theirs:1")


@pytest.mark.parametrize(
    "members",
    [
        [member("d", kind=tarfile.SYMTYPE, link="."), member("d/manifest.json", FOREIGN)],
        [member("layer.tar", kind=tarfile.SYMTYPE, link="."), member("layer.tar/manifest.json", FOREIGN)],
        [member("manifest.json", kind=tarfile.SYMTYPE, link="x"), member("x", FOREIGN)],
        [member("x", FOREIGN), member("manifest.json", kind=tarfile.LNKTYPE, link="x")],
        [member("null", kind=tarfile.CHRTYPE)],
        [member("manifest.json", b'[{"RepoTags":["mine"],"repotags":["theirs"]}]')],
        [member("manifest.json", '[{"RepoTag\u017f":["theirs"]}]'.encode())],
        [member("manifest.json", b'[{"RepoTags":["mine"],"RepoTags":["theirs"]}]')],
        [member("manifest.json", MANIFEST + FOREIGN)],
        [member("manifest.json", MANIFEST.decode().encode("utf-16"))],
        [member("manifest.json", b"[1]")],
        [b"no tar at all"],
    ],
    ids=lambda members: members[0][:16].rstrip(b"\0").decode("latin-1"),
)
def test_what_two_readers_could_read_differently_is_refused(members: list[bytes]) -> None:
    """Links that names lead through, keys of two spellings, two documents: nothing goes to dockerd."""
    refusal, _ = loaded(*members)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rules) == (400, ("image_tags",))


def test_a_name_of_endless_length_is_not_read() -> None:
    """A long name would be held in memory whole."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 8 * 1024 * 1024 * 1024
    refusal, _ = loaded(info.tobuf(tarfile.GNU_FORMAT))
    assert isinstance(refusal, Refusal)
