"""The policy in force: loaded from disk, swapped as a whole, and kept when a newer file is wrong (I8)."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from typing import Generic, TypeVar

from host.files import FileUntrusted, Version, read_trusted, version_of

P = TypeVar("P")
_OVERLAP_SECONDS = 5.0


class PolicyMissing(Exception):  # noqa: N818  the name says what is missing
    """There is no policy that could be in force, so nothing may start."""


class PolicyFiles(Generic[P]):
    """Holds one compiled policy. `current` is one attribute, so that a request sees one policy throughout."""

    def __init__(
        self,
        directory: Path,
        build: Callable[[Mapping[str, str]], P],
        *,
        on_loaded: Callable[[str, list[str]], None],
        on_rejected: Callable[[str], None],
        owners: frozenset[int] = frozenset({0}),
    ) -> None:
        """Load `policy.yaml` and `policy.d/*.yaml` of `directory`.

        Args:
            build: texts by path, in order, to a policy; raises anything when they are wrong.
            on_loaded, on_rejected: told of each load (digest, paths) and of each failure (all mistakes).
        Raises: PolicyMissing: the files are missing, untrusted or wrong.
        """
        self._directory = directory
        self._build = build
        self._on_loaded = on_loaded
        self._on_rejected = on_rejected
        self._owners = owners
        self._versions = self._look()
        self._former: tuple[P, float] | None = None
        self.in_force = True  # False: the files have mistakes, and the last good policy stays
        try:
            self.current = self._load()
        except Exception as error:
            on_rejected(str(error))
            raise PolicyMissing(f"no usable policy in {directory}: {error}") from error

    def reload_if_changed(self) -> bool:
        """Load again when a file changed. A wrong one changes nothing and is reported once. True when swapped."""
        versions = self._look()
        if versions == self._versions:
            return False
        self._versions = versions
        try:
            loaded = self._load()
        except Exception as error:  # noqa: BLE001  whatever is wrong with the files, the last good policy stays
            self._on_rejected(str(error))
            self.in_force = False
            return False
        self.in_force = True
        self._former = (self.current, time.monotonic() + _OVERLAP_SECONDS)
        self.current = loaded
        return True

    @property
    def former(self) -> P | None:
        """The policy before the current one, for 5 s after the swap; then None.

        Daemons read the same files, each in its own time: what one has decided on the former policy is on its way
        when another already has the current one.
        """
        if self._former is not None and time.monotonic() > self._former[1]:
            self._former = None
        return self._former[0] if self._former is not None else None

    def _paths(self) -> list[Path]:
        extra = self._directory / "policy.d"
        return [self._directory / "policy.yaml", *sorted(extra.glob("*.yaml"))]

    def _look(self) -> dict[Path, Version | None]:
        return {path: version_of(path) for path in self._paths()}

    def _load(self) -> P:
        texts = {str(path): _text(path, self._owners) for path in self._paths()}
        policy = self._build(texts)
        digest = sha256("\0".join(f"{name}\0{text}" for name, text in texts.items()).encode()).hexdigest()
        self._on_loaded(digest, list(texts))
        return policy


def _text(path: Path, owners: frozenset[int]) -> str:
    try:
        return read_trusted(path, owners=owners).decode()
    except UnicodeDecodeError as error:
        raise FileUntrusted(f"{path} is not UTF-8") from error
