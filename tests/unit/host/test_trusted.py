"""Key and engine id are believed only from files that nobody else could have written."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.trusted import Untrusted, Watched, parse_engine_id, parse_public_key

if TYPE_CHECKING:
    from pathlib import Path

OWN = frozenset({os.geteuid()})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "engine-id"
    path.write_bytes(b"ENGINE\n")
    path.chmod(0o644)
    return path


def test_a_changed_file_is_read_again(file: Path) -> None:
    """A new key or engine counts from the next request on."""
    watched = Watched(file, parse_engine_id, owners=OWN)
    assert watched.get() == "ENGINE"
    fresh = file.with_name("fresh")
    fresh.write_bytes(b"OTHER\n")
    fresh.rename(file)
    assert watched.get() == "OTHER"


def test_an_unchanged_file_is_read_once(file: Path) -> None:
    """The hot path is one stat."""
    reads: list[bytes] = []
    watched = Watched(file, lambda content: reads.append(content) or "x", owners=OWN)  # type: ignore[func-returns-value]  # append gives None on purpose
    assert [watched.get() for _ in range(3)] == ["x", "x", "x"]
    assert len(reads) == 1


@pytest.mark.parametrize("mode", [0o664, 0o646, 0o666])
def test_a_file_others_may_write_is_not_believed(file: Path, mode: int) -> None:
    """Also when it was good a moment ago: there is no last good key."""
    watched = Watched(file, parse_engine_id, owners=OWN)
    watched.get()
    file.chmod(mode)
    for _ in range(2):
        with pytest.raises(Untrusted, match="others may write"):
            watched.get()


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
def test_a_users_file_is_not_believed(file: Path) -> None:
    """A break-glass file put there by a user opens nothing."""
    os.chown(file, 1000, 1000)
    with pytest.raises(Untrusted, match="uid 1000"):
        Watched(file, parse_engine_id, owners=OWN).get()


def test_a_symbolic_link_is_not_followed(file: Path) -> None:
    """The name must be the file."""
    link = file.with_name("link")
    link.symlink_to(file)
    with pytest.raises(Untrusted, match="symbolic"):
        Watched(link, parse_engine_id, owners=OWN).get()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_only_regular_files_are_read(tmp_path: Path, make: object) -> None:
    """A fifo would hang, a directory says nothing."""
    make(tmp_path / "x")  # type: ignore[operator]  # a table of two system calls
    with pytest.raises(Untrusted):
        Watched(tmp_path / "x", parse_engine_id, owners=OWN).get()


def test_a_missing_file_is_no_value(file: Path) -> None:
    """Nothing is remembered of a file that is gone."""
    watched = Watched(file, parse_engine_id, owners=OWN)
    watched.get()
    file.unlink()
    with pytest.raises(Untrusted, match="missing"):
        watched.get()


@pytest.mark.parametrize("content", [b"", b"\n", b"a b", b"a\nb", "é".encode(), b"x" * 257])
def test_an_engine_id_is_one_word(content: bytes) -> None:
    """Anything else is not guessed at."""
    with pytest.raises(ValueError):
        parse_engine_id(content)


def test_a_key_is_read_raw_or_as_pem() -> None:
    """Both forms give the same key, which knows its own signatures only."""
    private = Ed25519PrivateKey.generate()
    pem = private.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    signature = private.sign(b"m")
    for content in (private.public_key().public_bytes_raw(), pem):
        key = parse_public_key(content)
        assert key.verify(signature, b"m")
        assert not key.verify(signature, b"n")
        assert not key.verify(b"", b"m")


def test_other_keys_are_refused() -> None:
    """Ed25519 only, and never a private key."""
    other = generate_private_key(SECP256R1()).public_key()
    pem = other.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    for content in (pem, b"", b"x" * 31):
        with pytest.raises(ValueError):
            parse_public_key(content)
