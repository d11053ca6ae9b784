"""The guard's front for a lab: compiled here, because it knows its guard's socket by heart."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from host.tree import Tree

SOURCE = Path(__file__).resolve().parent.parent / "runtime" / "ds01-runtime.c"
FLAGS = ("-O2", "-static", "-Wall", "-Wextra", "-Werror")


def build(program: Path, tree: Tree) -> Path:
    """Compile `program` to ask the guard of `tree`. Returns: the same path.

    Raises: OSError. subprocess.CalledProcessError: gcc refused, as it does a socket's path that is too long.
    """
    program.parent.mkdir(mode=0o755, exist_ok=True)
    fresh = program.with_name(f".{program.name}")
    define = f'-DGUARD_SOCKET="{tree.guard_socket}"'
    subprocess.run(["gcc", *FLAGS, define, "-o", str(fresh), str(SOURCE)], check=True)
    fresh.replace(program)
    return program
