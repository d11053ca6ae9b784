"""`etc/daemon.yaml`: its blocks, one for each daemon that has settings of its own; the other keys are the proxy's."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

BLOCKS = frozenset({"allocator", "lifecycle"})


def load_block(path: Path, name: str, keys: Collection[str]) -> dict[str, Any]:
    """One block, which may have these keys; empty without a file or a block.

    Raises: OSError, ValueError, YAMLError.
    """
    if not path.exists():
        return {}
    document = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    block = document.get(name) or {} if isinstance(document, dict) else None
    if not isinstance(block, dict) or block.keys() - set(keys):
        raise ValueError(f"{name}: a mapping of {', '.join(sorted(keys))} is needed")
    return block
