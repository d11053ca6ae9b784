"""What dockerd builds is the Dockerfile that was judged, whatever the context holds."""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Callable

import pytest

from socket_proxy.build_context import Dockerfile, dockerfile_in, with_dockerfile
from socket_proxy.refusals import Refusal
from tests.unit.socket_proxy.test_image_tar import FILE, tar

GOOD, EVIL = "FROM good\n", "FROM evil\n"
LINK = tarfile.SYMTYPE


def found(content: bytes, asked: str = "") -> Dockerfile | Refusal:
    return dockerfile_in(io.BytesIO(content), asked)


def built(content: bytes, asked: str = "") -> tuple[str, bytes]:
    """What dockerd would open after unpacking: the last member of the name, and that name."""
    dockerfile = found(content, asked)
    assert isinstance(dockerfile, Dockerfile)
    fresh = b"".join(with_dockerfile(io.BytesIO(content), dockerfile))
    with tarfile.open(fileobj=io.BytesIO(fresh)) as archive:
        last = archive.getmembers()[-1]
        opened = archive.extractfile(last)
        assert opened is not None
        return last.name, opened.read()


@pytest.mark.parametrize(
    ("content", "asked", "path", "text"),
    [
        pytest.param(tar(("Dockerfile", GOOD, FILE)), "", "Dockerfile", GOOD, id="plain"),
        pytest.param(gzip.compress(tar(("Dockerfile", GOOD, FILE))), "", "Dockerfile", GOOD, id="gzip"),
        pytest.param(tar(("dockerfile", GOOD, FILE)), "", "dockerfile", GOOD, id="lower"),
        pytest.param(tar(("dockerfile", EVIL, FILE), ("Dockerfile", GOOD, FILE)), "", "Dockerfile", GOOD, id="both"),
        pytest.param(tar(("a/Dockerfile.x", GOOD, FILE)), "a/Dockerfile.x", "a/Dockerfile.x", GOOD, id="named"),
        pytest.param(tar(("build", GOOD, FILE)), "./build", "build", GOOD, id="other-name"),
        pytest.param(tar(("Dockerfile", EVIL, FILE), ("./Dockerfile", GOOD, FILE)), "", "Dockerfile", GOOD, id="twice"),
        pytest.param(tar(("x/Dockerfile", GOOD, FILE), ("Dockerfile", "x/Dockerfile", LINK)), "", "Dockerfile", GOOD, id="link"),
        pytest.param(tar(("a/Dockerfile", "../Dockerfile.b", LINK), ("Dockerfile.b", GOOD, FILE)), "a/Dockerfile", "a/Dockerfile", GOOD, id="link-up"),
    ],
)  # fmt: skip
def test_the_dockerfile_is_found_and_goes_last(content: bytes, asked: str, path: str, text: str) -> None:
    """By the key, by the default, by either case of the default, through links."""
    assert built(content, asked) == (path, text.encode())


@pytest.mark.parametrize(
    "content",
    [tar(("a", "x", FILE)), tar(("Dockerfile", "nowhere", LINK)), tar(("Dockerfile", "Dockerfile", LINK)),
     tar(("d", ".", LINK), ("d/Dockerfile", GOOD, FILE))],
)  # fmt: skip
def test_one_that_is_not_there_is_missed_in_dockerds_words(content: bytes) -> None:
    """Also one that only dockerd would find, through a linked directory: what is not read is not built."""
    refusal = found(content)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.message) == (500, "Cannot locate specified Dockerfile: Dockerfile")


@pytest.mark.parametrize("content", [b"no tar", tar(("Dockerfile", GOOD, FILE))[:520], b""])
def test_a_context_in_doubt_is_refused(content: bytes) -> None:
    """A 400 with the rule's name."""
    refusal = found(content)
    assert isinstance(refusal, Refusal)
    assert (refusal.status, refusal.rules) == (400, ("build",))


@pytest.mark.parametrize("packed", [bytes, gzip.compress])
@pytest.mark.parametrize("padding", [0, 1, 501, 502, 600])
def test_a_context_without_its_last_padding_is_whole(packed: Callable[[bytes], bytes], padding: int) -> None:
    """The docker CLI ends there when the Dockerfile comes from elsewhere (`-f`); a content that is cut is refused."""
    whole = tar(("a", "x", FILE), ("Dockerfile", GOOD, FILE))
    end = whole.index(GOOD.encode()) + len(GOOD)
    assert built(packed(whole[: end + padding])) == ("Dockerfile", GOOD.encode())
    assert isinstance(found(packed(whole[: end - 1])), Refusal)


def test_the_files_of_the_context_stay_as_they_are() -> None:
    """Contents, modes, links, and extended attributes."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, mode in (("Dockerfile", 0o600), ("tool", 0o755)):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, 4
            info.pax_headers = {"SCHILY.xattr.security.capability": "cap", "comment": "no"}
            archive.addfile(info, io.BytesIO(b"FROM"))
    dockerfile = found(spool.getvalue())
    assert isinstance(dockerfile, Dockerfile)
    fresh = b"".join(with_dockerfile(spool, dockerfile))
    with tarfile.open(fileobj=io.BytesIO(fresh)) as archive:
        members = [(each.name, each.mode, each.pax_headers) for each in archive]
    attributes = {"SCHILY.xattr.security.capability": "cap"}
    assert members == [
        ("Dockerfile", 0o600, attributes),
        ("tool", 0o755, attributes),
        ("Dockerfile", 0o600, {}),
    ]
