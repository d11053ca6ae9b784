"""Which builder a call to /build is meant for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

BUILDKIT: Final = "2"  # SOURCE: Engine API, ImageBuild: `version`; absent and 1 are the classic builder


def is_buildkit(query: Mapping[str, tuple[str, ...]]) -> bool:
    """Whether it is BuildKit."""
    return query.get("version", ())[:1] == (BUILDKIT,)
