"""What is not unpacked is refused in words, and an upload of nothing is nothing. The rest is a property."""

from __future__ import annotations

import gzip

import pytest

from policy.dockerapi.compressed import PIECE_BYTES, Plain
from policy.dockerapi.model import MalformedRequest


@pytest.mark.parametrize("start", [b"\x28\xb5\x2f\xfd", b"\x50\x2a\x4d\x18", b"\x5f\x2a\x4d\x18"])
def test_zstd_is_refused(start: bytes) -> None:
    """With what to send instead; its skippable frames too, which stand before the first real one."""
    with pytest.raises(MalformedRequest, match="plain tar, or gzip"):
        list(Plain().feed(start + b"\0" * 600))


def test_what_is_no_gzip_after_all_is_refused() -> None:
    """The first bytes promise what the others do not keep."""
    with pytest.raises(MalformedRequest, match="not what its first bytes say"):
        list(Plain().feed(b"\x1f\x8b\x08" + b"x" * 600))


def test_an_empty_upload_is_empty() -> None:
    """Neither compressed nor anything."""
    assert list(Plain().close()) == []


def test_a_bomb_comes_in_small_pieces() -> None:
    """A thousand times larger than what was sent, and never more than a piece at once."""
    plain = Plain()
    sizes = [len(piece) for piece in plain.feed(gzip.compress(b"\0" * (64 * PIECE_BYTES)))]
    assert sum(sizes) == 64 * PIECE_BYTES
    assert max(sizes) <= PIECE_BYTES


def test_padding_after_a_compressed_stream_is_left_out() -> None:
    """Tape writers pad with zeros."""
    plain = Plain()
    assert b"".join(plain.feed(gzip.compress(b"data") + b"\0" * 512)) == b"data"
    assert list(plain.close()) == []
