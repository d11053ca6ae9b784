"""The image the lab makes."""

from __future__ import annotations

import io
import shutil
import tarfile

import pytest

from lab.images import busybox_tar

pytestmark = pytest.mark.skipif(shutil.which("busybox") is None, reason="needs busybox")


@pytest.fixture(scope="module")
def image() -> tarfile.TarFile:
    return tarfile.open(fileobj=io.BytesIO(busybox_tar()))


def test_every_applet_is_a_link_to_busybox(image: tarfile.TarFile) -> None:
    """The usual commands are there, as links to the one program."""
    for name in ("sh", "ls", "cat", "sleep", "id", "httpd"):
        link = image.getmember(f"bin/{name}")
        assert (link.issym(), link.linkname) == (True, "busybox")


def test_nothing_is_privileged_or_repeated(image: tarfile.TarFile) -> None:
    """No name comes twice, nothing is setuid, all belongs to root."""
    names = image.getnames()
    assert len(names) == len(set(names))
    assert not [member.name for member in image if member.mode & 0o6000 or member.uid or member.gid]


def test_tmp_is_for_everybody(image: tarfile.TarFile) -> None:
    """Programs find a /tmp that is sticky and open."""
    assert image.getmember("tmp").mode == 0o1777
