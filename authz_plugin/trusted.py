"""Files the plugin believes: the proxy's public key, the engine's id, break-glass. Read again when they change."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from host.files import FileUntrusted, Version, read_trusted, version_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
BREAK_GLASS_LIMIT_MS = 60 * 60 * 1000
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
        self._version: Version | None = None
        self._value: T | None = None

    def get(self) -> T:
        """The present value. Raises: Untrusted."""
        version = version_of(self.path)
        if version is None:
            self._version = self._value = None
            raise Untrusted(f"{self.path} is missing")
        if self._value is None or version != self._version:
            self._version = self._value = None
            self._value = self._read()
            self._version = version
        return self._value

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


class _BreakGlassFile(msgspec.Struct, forbid_unknown_fields=True):
    until_boottime_ms: int
    reason: str
    by: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BreakGlass:
    """Root's permission to use dockerd directly, until a moment of CLOCK_BOOTTIME."""

    until_boottime_ms: int
    reason: str
    by: str

    def is_open(self, now_ms: int) -> bool:
        """Open now. A file that reaches more than 60 minutes ahead is not open."""
        return now_ms < self.until_boottime_ms <= now_ms + BREAK_GLASS_LIMIT_MS


def parse_break_glass(content: bytes) -> BreakGlass:
    """`{"until_boottime_ms", "reason", "by"}`, nothing else. Raises: ValueError."""
    try:
        read = msgspec.json.decode(content, type=_BreakGlassFile)
    except msgspec.DecodeError as error:
        raise ValueError(str(error)) from error
    if not read.reason.strip() or not read.by.strip():
        raise ValueError("reason and by must say something")
    return BreakGlass(until_boottime_ms=read.until_boottime_ms, reason=read.reason, by=read.by)
