"""What cannot carry a sealed label is owned through this durable record: image tags and ids, anonymous volumes.

Also what a create looked like to its user where ds01 rewrote it (the Docker socket as a bind source), so that inspect
shows the user's own words. SQLite, one writer, durable before the answer goes out.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

from policy.model import Uid

_SCHEMA = """
CREATE TABLE IF NOT EXISTS image_tags (tag TEXT PRIMARY KEY, owner INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS image_ids (id TEXT NOT NULL, owner INTEGER NOT NULL, PRIMARY KEY (id, owner)) STRICT;
CREATE TABLE IF NOT EXISTS volumes (name TEXT PRIMARY KEY, owner INTEGER NOT NULL) STRICT;
PRAGMA user_version = 1;
"""


class RecordsUnavailable(Exception):  # noqa: N818  named by what it means to a request: 503
    """The record could not be read or written (disk full, file lost)."""


class Records:
    """Ownership by record. All calls are short and synchronous: one row each, on a local file."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._database = sqlite3.connect(path, isolation_level=None)
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
        except sqlite3.Error as error:
            raise RecordsUnavailable(f"{path}: {error}") from error

    def _rows(self, statement: str, *values: str | int) -> list[tuple[int]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RecordsUnavailable(str(error)) from error

    def tag_owner(self, tag: str) -> Uid | None:
        rows = self._rows("SELECT owner FROM image_tags WHERE tag = ?", tag)
        return Uid(rows[0][0]) if rows else None

    def set_tag(self, tag: str, owner: Uid) -> None:
        """Whoever the rules let write a tag owns it: it was theirs or nobody's."""
        self._rows("INSERT OR REPLACE INTO image_tags VALUES (?, ?)", tag, owner)

    def drop_tag(self, tag: str) -> None:
        self._rows("DELETE FROM image_tags WHERE tag = ?", tag)

    def image_owners(self, image_id: str) -> frozenset[Uid]:
        """Everybody who made this very image; layers and whole images may be made twice."""
        return frozenset(
            Uid(row[0]) for row in self._rows("SELECT owner FROM image_ids WHERE id = ?", image_id)
        )

    def claim_image(self, image_id: str, owner: Uid) -> None:
        self._rows("INSERT INTO image_ids VALUES (?, ?) ON CONFLICT DO NOTHING", image_id, owner)

    def drop_image(self, image_id: str) -> None:
        self._rows("DELETE FROM image_ids WHERE id = ?", image_id)

    def volume_owner(self, name: str) -> Uid | None:
        rows = self._rows("SELECT owner FROM volumes WHERE name = ?", name)
        return Uid(rows[0][0]) if rows else None

    def claim_volume(self, name: str, owner: Uid) -> None:
        self._rows("INSERT INTO volumes VALUES (?, ?) ON CONFLICT DO NOTHING", name, owner)

    def drop_volume(self, name: str) -> None:
        self._rows("DELETE FROM volumes WHERE name = ?", name)

    def close(self) -> None:
        self._database.close()
