"""A saved tar carries the names its user knows, however its bytes are cut."""

from __future__ import annotations

import io
import json
import tarfile

import pytest

from policy.dockerapi.responses import SavedTar, UnreadableAnswer
from policy.image_names import prefix
from policy.model import Uid

BEGINNING = prefix(Uid(1001))
NAME = f"{BEGINNING}app:1"
FULL = "io.containerd.image.name"
MEMBERS: list[tuple[str, bytes]] = [
    ("blobs/sha256/1/layer.tar", NAME.encode() * 100),
    ("manifest.json", json.dumps([{"RepoTags": [NAME, "alice/app:1"]}]).encode()),
    ("deep/" + "x" * 150, b"y" * 512),
    ("repositories", json.dumps({f"{BEGINNING}app": {"1": "i"}}).encode()),
    ("index.json", json.dumps({"manifests": [{"annotations": {FULL: NAME}}]}).encode()),
    ("blobs/index.json", NAME.encode()),
]


def tar(form: int = tarfile.PAX_FORMAT) -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=form) as archive:
        folder = tarfile.TarInfo("blobs")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, content in MEMBERS:
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(content), 1.5
            archive.addfile(info, io.BytesIO(content))
        link = tarfile.TarInfo("link")
        link.type, link.linkname = tarfile.SYMTYPE, "blobs"
        archive.addfile(link)
    return spool.getvalue()


def through(content: bytes, step: int) -> bytes:
    saved = SavedTar(BEGINNING)
    pieces = [piece for at in range(0, len(content), step) for piece in saved.feed(content[at : at + step])]
    saved.close()
    return b"".join(pieces)


@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
@pytest.mark.parametrize("step", [1, 100, 511, 512, 513, 10_000, 10**9])
def test_names_are_plain_and_all_else_is_as_it_was(step: int, form: int) -> None:
    """Layers too, whatever they hold."""
    with tarfile.open(fileobj=io.BytesIO(through(tar(form), step))) as archive:
        found = {
            member.name: (archive.extractfile(member) or io.BytesIO()).read()
            for member in archive
            if member.isreg()
        }
        assert archive.getmember("link").linkname == "blobs"
    assert list(found) == [name for name, _ in MEMBERS]
    assert json.loads(found["manifest.json"]) == [{"RepoTags": ["app:1", "alice/app:1"]}]
    assert json.loads(found["repositories"]) == {"app": {"1": "i"}}
    index = json.loads(found["index.json"])
    assert index["manifests"][0]["annotations"][FULL] == "docker.io/library/app:1"
    for name, content in MEMBERS:
        if "/" in name:
            assert found[name] == content


def test_a_tar_without_own_names_keeps_its_bytes() -> None:
    """But for the heads of the naming members."""
    content = tar()
    other = SavedTar(prefix(Uid(7)))
    assert len(b"".join(other.feed(content))) == len(content)


@pytest.mark.parametrize("content", [b"x" * 512, tar()[:700], tar()[:100]])
def test_what_is_no_whole_tar_is_not_passed_on(content: bytes) -> None:
    """The engine broke off."""
    with pytest.raises(UnreadableAnswer):
        through(content, 512)
