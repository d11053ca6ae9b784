"""Where ds01's files are: four directories, in production or all under one root (the lab)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The directories of docs/architecture.md."""

    run: Path
    etc: Path
    lib: Path
    log: Path

    @classmethod
    def under(cls, root: Path) -> Tree:
        """Everything below one directory."""
        return cls(run=root / "run", etc=root / "etc", lib=root / "lib", log=root / "log")


PRODUCTION = Tree(
    run=Path("/run/ds01"), etc=Path("/etc/ds01"), lib=Path("/var/lib/ds01"), log=Path("/var/log/ds01")
)
