"""What somebody may have meant by a name that is none. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Collection

_MOST_LETTERS = 60  # comparing takes the square of it


def hint(name: str, known: Collection[str]) -> str:
    """The one known name that is near, as a question; else all of them, in their order."""
    near = difflib.get_close_matches(name[:_MOST_LETTERS], known, n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(known) or 'none'}"
