"""The stamp's key pair and the engine's name: made at first start, read afterwards.

The private half is readable by the proxy alone; the plugin reads the public half and the engine's name.
"""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from host.files import write_atomic
from host.tree import Tree

_PRIVATE_BYTES = 32


class KeyUnusable(Exception):  # noqa: N818  a state of the installation, named as operators see it
    """A key file exists and does not hold what it should, or others could have read or changed it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """What the proxy signs with, and the engine its signatures are bound to."""

    private: Ed25519PrivateKey
    public: Ed25519PublicKey
    engine_id: str  # 32 hex digits


def load_or_create(tree: Tree) -> Keys:
    """Read the keys, or make them if this is the first start.

    Raises: KeyUnusable: a file is there but wrong; it is never replaced, since old seals would be lost.
    """
    tree.stamp_key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not tree.stamp_key.exists():
        write_atomic(tree.stamp_key, Ed25519PrivateKey.generate().private_bytes_raw(), mode=0o600)
    private = _read_private(tree.stamp_key)
    public = private.public_key()
    # The public half is derived, so it is written at every start: it cannot drift from the private one.
    write_atomic(
        tree.stamp_public, public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo), mode=0o644
    )
    if not tree.engine_id.exists():
        write_atomic(tree.engine_id, secrets.token_hex(16).encode() + b"\n", mode=0o644)
    engine_id = tree.engine_id.read_text().strip()
    if len(engine_id) != 32 or set(engine_id) - set("0123456789abcdef"):
        raise KeyUnusable(f"{tree.engine_id} does not hold 32 hex digits; restore it from a backup")
    return Keys(private=private, public=public, engine_id=engine_id)


def _read_private(path: Path) -> Ed25519PrivateKey:
    with path.open("rb") as file:
        status = os.fstat(file.fileno())
        content = file.read(_PRIVATE_BYTES + 1)
    if status.st_mode & 0o077 or status.st_uid != os.geteuid():
        raise KeyUnusable(f"{path} must belong to uid {os.geteuid()} with mode 0600")
    if len(content) != _PRIVATE_BYTES:
        raise KeyUnusable(f"{path} does not hold a key of {_PRIVATE_BYTES} bytes; restore it from a backup")
    return Ed25519PrivateKey.from_private_bytes(content)
