"""Files that daemons believe because only root can have written them: keys, the engine's id. Read again when they change."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from host.files import FileUntrusted, Version, read_trusted, version_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_ENGINE_ID_LIMIT = 256


class Untrusted(Exception):  # noqa: N818  the name says what is wrong
    """A file that decides who may do what is missing, wrong, or somebody else's."""


class Watched(Generic[T]):
    """A file's content as a value, read again only when the file's version changes.

    A file that went bad gives no value: unlike the policy, an old key or an old engine is not "last good".
    """

    def __init__(self, path: Path, parse: Callable[[bytes], T], *, owners: frozenset[int]) -> None:
        """Watch `path`; `parse` raises ValueError; only `owners` may own the file."""
        self.path = path
        self._parse = parse
        self._owners = owners
        self._kept: tuple[Version, T] | None = None  # one attribute, so that threads never see half of it

    def get(self) -> T:
        """The present value. Raises: Untrusted."""
        version = version_of(self.path)
        kept = self._kept
        if version is None:
            self._kept = None
            raise Untrusted(f"{self.path} is missing")
        if kept is not None and kept[0] == version:
            return kept[1]
        self._kept = None
        value = self._read()
        self._kept = (version, value)
        return value

    def _read(self) -> T:
        try:
            return self._parse(read_trusted(self.path, owners=self._owners))
        except FileUntrusted as error:
            raise Untrusted(str(error)) from error
        except (OSError, ValueError) as error:
            raise Untrusted(f"{self.path} cannot be read: {error}") from error


class Ed25519Key:
    """The proxy's public key."""

    def __init__(self, key: Ed25519PublicKey) -> None:
        """Wrap a loaded key."""
        self._key = key

    def verify(self, signature: bytes, message: bytes) -> bool:
        """Whether the key made this signature over this message."""
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            return False
        return True


def parse_public_key(content: bytes) -> Ed25519Key:
    """32 raw bytes, or PEM. Raises: ValueError."""
    if len(content) == 32:
        return Ed25519Key(Ed25519PublicKey.from_public_bytes(content))
    key = load_pem_public_key(content)
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 public key")  # noqa: TRY004  the content is wrong, not a caller's type
    return Ed25519Key(key)


def parse_engine_id(content: bytes) -> str:
    """One line of printable ASCII. Raises: ValueError."""
    text = content.decode("ascii").removesuffix("\n")
    if not 0 < len(text) <= _ENGINE_ID_LIMIT or not text.isprintable() or " " in text:
        raise ValueError("no engine id")
    return text
