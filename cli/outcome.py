"""How a ds01 call ends: the exit codes, what is shown, and the one exception that carries a code to the edge in `cli.main`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from enum import IntEnum
from typing import Any


class Exit(IntEnum):
    """Told apart by who can do something about it."""

    OK = 0
    REFUSED = 1  # denied, or mistakes were found
    USAGE = 2
    UNAVAILABLE = 3  # a daemon or a file that ds01 needs: the operator's move
    BUG = 70


class Failed(Exception):  # noqa: N818  the name says how the call ended
    """The call ends here; the text is for whoever typed it."""

    def __init__(self, code: Exit, message: str) -> None:
        """End with `code` and one line of text, without the `ds01: ` in front."""
        super().__init__(message)
        self.code = code


Shown = tuple[Exit, Any, str]  # exit code, the answer as JSON, the answer in words
Call = Callable[[argparse.Namespace], Shown]
