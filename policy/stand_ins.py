"""Stand-ins: what dockerd is told instead of a host path, so that it never resolves a name that a user can change.

A stand-in is an empty directory or file of root's, `<root>/<uid>/<depth><ro|rw><real path>`; the guard puts what was looked
at in its place. Owns the text, in both directions; docs/decisions/0016-stand-ins.md says why.

INVARIANT: no stand-in lies below another, since all of one depth are equally deep: what is mounted on one covers no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from policy.model import Uid
from policy.paths import clean_path

_RO, _RW = "ro", "rw"


@dataclass(frozen=True, slots=True, kw_only=True)
class StandIn:
    """What a stand-in stands for: a real path, opened as `uid`."""

    source: str
    uid: Uid
    read_only: bool


class StandIns:
    """All stand-ins below one directory of root's."""

    __slots__ = ("_in_text", "_whole", "root")

    def __init__(self, root: str) -> None:
        """`root` is absolute, and nobody but root gets below it."""
        self.root = root
        head = re.escape(root) + r"/(0|[1-9][0-9]{0,9})/([1-9][0-9]{0,3})(ro|rw)"
        self._whole = re.compile(rf"{head}(/.+)", re.ASCII | re.DOTALL)
        self._in_text = re.compile(rf"{head}(?=/)", re.ASCII)

    def path(self, stand_in: StandIn) -> str:
        """Where it is. `source` is a clean path other than `/`."""
        mode = _RO if stand_in.read_only else _RW
        return f"{self.root}/{stand_in.uid}/{stand_in.source.count('/')}{mode}{stand_in.source}"

    def behind(self, path: str) -> StandIn | None:
        """What a path stands for; None if it is no stand-in in the one form that `path` gives."""
        found = self._whole.fullmatch(path)
        if found is None or clean_path(found[4]) != found[4]:
            return None
        stand_in = StandIn(source=found[4], uid=Uid(int(found[1])), read_only=found[3] == _RO)
        return stand_in if self.path(stand_in) == path else None

    def source(self, path: str) -> str:
        """The path that a stand-in stands for; any other path as it is."""
        found = self.behind(path)
        return path if found is None else found.source

    def plain_text(self, text: str) -> str:
        """A message with every stand-in shown as the path it stands for."""
        return self._in_text.sub("", text)
