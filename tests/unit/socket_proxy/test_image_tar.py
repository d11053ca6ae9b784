"""Which tags a tar would move, and what of it dockerd gets to see."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest

from socket_proxy.image_tar import off_loop, tags_in, written_afresh
from socket_proxy.refusals import Refusal

MANIFEST = json.dumps([{"Config": "c.json", "RepoTags": ["mine:1"], "Layers": []}])


def tar(*members: tuple[str, str | None, bytes]) -> bytes:
    """A tar of (name, text, type); for a link the text is its target."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, text, kind in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            if kind == tarfile.REGTYPE:
                content = (text or "").encode()
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
            else:
                info.linkname = text or ""
                archive.addfile(info)
    return spool.getvalue()


FILE = tarfile.REGTYPE
_FULL, _SHORT = "io.containerd.image.name", "org.opencontainers.image.ref.name"
OCI = [
    ("saved-by-25", f'"annotations": {{"{_FULL}": "mine:1", "{_SHORT}": "1"}}', ("mine:1",)),
    ("short-alone", f'"annotations": {{"{_SHORT}": "his:1"}}', ("his:1",)),
    ("full-empty", f'"annotations": {{"{_FULL}": "", "{_SHORT}": "his:1"}}', ("his:1",)),
    ("full-null", f'"annotations": {{"{_FULL}": null, "{_SHORT}": "his:1"}}', ("his:1",)),
    (
        "full-emptied",
        f'"annotations": {{"{_FULL}": "mine:1", "{_FULL}": "", "{_SHORT}": "his:1"}}',
        ("mine:1", "his:1"),
    ),
    (
        "full-cleared",
        f'"annotations": {{"{_FULL}": "mine:1"}}, "annotations": null, "Annotations": {{"{_SHORT}": "his:1"}}',
        ("mine:1", "his:1"),
    ),
]


@pytest.mark.parametrize(
    ("content", "tags"),
    [
        pytest.param(tar(("manifest.json", MANIFEST, FILE)), ("mine:1",), id="plain"),
        pytest.param(gzip.compress(tar(("manifest.json", MANIFEST, FILE))), ("mine:1",), id="gzip"),
        pytest.param(tar(("./manifest.json", MANIFEST, FILE)), ("mine:1",), id="dot"),
        pytest.param(tar((".//./manifest.json", MANIFEST, FILE)), ("mine:1",), id="dots"),
        pytest.param(tar(("a/../manifest.json", MANIFEST, FILE)), ("mine:1",), id="up"),
        pytest.param(tar(("Manifest.JSON", MANIFEST, FILE)), ("mine:1",), id="case"),
        pytest.param(
            tar(("d", ".", tarfile.SYMTYPE), ("d/manifest.json", MANIFEST, FILE)),
            ("mine:1",),
            id="linked-dir",
        ),
        pytest.param(tar(("x" * 200 + "/manifest.json", MANIFEST, FILE)), ("mine:1",), id="pax-name"),
        pytest.param(
            tar(("manifest.json", MANIFEST, FILE), ("manifest.json", '[{"RepoTags": ["his:1"]}]', FILE)),
            ("mine:1", "his:1"),
            id="twice",
        ),
        pytest.param(
            tar(("manifest.json", '[{"repotagſ": ["his:1"], "RepoTags": ["mine:1"]}]', FILE)),
            ("his:1", "mine:1"),
            id="folded-key",
        ),
        pytest.param(
            tar(("manifest.json", '[{"RepoTags": ["his:1"], "RepoTags": ["mine:1"]}]', FILE)),
            ("his:1", "mine:1"),
            id="duplicate-key",
        ),
        *(
            pytest.param(
                tar(("index.json", f'{{"manifests": [{{{annotations}}}]}}', FILE)),
                tags,
                id=name,
            )
            for name, annotations, tags in OCI
        ),
        pytest.param(tar(("repositories", '{"his": {"1": "abc"}}', FILE)), ("his:1",), id="legacy"),
        pytest.param(
            tar(
                (
                    "index.json",
                    '{"manifests": [{"annotations": {"io.containerd.image.name": "his:1"}}]}',
                    FILE,
                )
            ),
            ("his:1",),
            id="oci",
        ),
        pytest.param(tar(("layer.tar", "x", FILE)), (), id="none"),
    ],
)
def test_every_tag_is_found(content: bytes, tags: tuple[str, ...]) -> None:
    """Whatever name, spelling or wrapping a naming member has, its tags count."""
    assert tags_in(io.BytesIO(content)) == tags


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(tar(("manifest.json", "other", tarfile.SYMTYPE)), id="symlink"),
        pytest.param(
            tar(("other", MANIFEST, FILE), ("manifest.json", "other", tarfile.LNKTYPE)), id="hardlink"
        ),
        pytest.param(tar(("manifest.json", '[{"RepoTags": ["a"]}] trailing', FILE)), id="trailing-json"),
        pytest.param(tar(("manifest.json", '{"RepoTags": "a"}', FILE)), id="wrong-shape"),
        pytest.param(tar(("null", None, tarfile.CHRTYPE)), id="device"),
        pytest.param(tar(("manifest.json", MANIFEST, FILE))[:520], id="truncated"),
        pytest.param(gzip.compress(tar(("manifest.json", MANIFEST, FILE)))[:40], id="truncated-gzip"),
        pytest.param(b"no tar at all", id="no-tar"),
        pytest.param(tar(("manifest.json", "[" * 100_000, FILE)), id="deep"),
    ],
)
def test_a_tar_in_doubt_is_refused(content: bytes) -> None:
    """What cannot be read in exactly one way is a 400, never forwarded."""
    refusal = tags_in(io.BytesIO(content))
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rules) == (400, ("image_tags",))


def test_a_hidden_member_does_not_reach_dockerd() -> None:
    """What stands behind a head that this reader takes for the end is not passed on."""
    hidden = bytearray(tar(("layer.tar", "x", FILE))[:1024] + tar(("manifest.json", MANIFEST, FILE)))
    hidden[1024 + 148 : 1024 + 156] = b"garbage!"  # the checksum of the second head
    spool = io.BytesIO(bytes(hidden))
    assert tags_in(spool) == ()
    assert b"mine:1" not in b"".join(written_afresh(spool))


async def test_a_member_of_whole_blocks_does_not_end_the_tar() -> None:
    """A file of exactly 512 bytes needs no padding, and what comes behind it still arrives."""
    content = tar(("block", "x" * 512, FILE), ("manifest.json", MANIFEST, FILE))
    fresh = b"".join([piece async for piece in off_loop(written_afresh(io.BytesIO(content)))])
    with tarfile.open(fileobj=io.BytesIO(fresh)) as archive:
        assert archive.getnames() == ["block", "manifest.json"]


def test_a_rewritten_tar_holds_the_same_files() -> None:
    """Names, contents and links of an honest tar survive."""
    members = (
        ("a" * 150 + "/layer.tar", "layer" * 300, FILE),
        ("b/layer.tar", "../a/layer.tar", tarfile.SYMTYPE),
        ("manifest.json", MANIFEST, FILE),
    )
    fresh = io.BytesIO(b"".join(written_afresh(io.BytesIO(gzip.compress(tar(*members))), rename=str)))
    with tarfile.open(fileobj=fresh) as archive:
        seen = []
        for member in archive:
            content = archive.extractfile(member) if member.isreg() else None
            seen.append((member.name, content.read().decode() if content else member.linkname, member.type))
    assert tuple(seen) == members


def test_a_loaded_image_is_nobodys_child() -> None:
    """Else the builder of another, who builds on the same parent, takes it for the result of a step."""
    manifest: list[dict[str, object]] = [
        {
            "Config": "c.json",
            "RepoTags": ["mine:1"],
            "Layers": ["l"],
            "LayerSources": {"sha256:2": {"size": 1}},
        }
    ]
    manifest[0]["parent"] = "sha256:1"
    content = tar(("./manifest.json", json.dumps(manifest), FILE), ("layer.tar", "x" * 600, FILE))
    fresh = io.BytesIO(b"".join(written_afresh(io.BytesIO(content), rename=str)))
    with tarfile.open(fileobj=fresh) as archive:
        opened = archive.extractfile("./manifest.json")
        assert opened is not None
        del manifest[0]["parent"]
        assert json.loads(opened.read()) == manifest
        assert archive.getnames() == ["./manifest.json", "layer.tar"]
