"""What cannot carry a sealed label is owned through this durable record: image tags and ids, anonymous volumes, containers
from before ds01; and what is shared.

SQLite, one writer, durable before the answer goes out. What the image rows mean together is `image_owners`'.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

from policy.model import Uid

_SCHEMA = """
CREATE TABLE IF NOT EXISTS image_tags (tag TEXT PRIMARY KEY, owner INTEGER NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS image_ids (id TEXT NOT NULL, owner INTEGER NOT NULL, PRIMARY KEY (id, owner)) STRICT;
CREATE TABLE IF NOT EXISTS image_public (id TEXT PRIMARY KEY) STRICT;
CREATE TABLE IF NOT EXISTS image_shares (tag TEXT NOT NULL, grantee TEXT NOT NULL, PRIMARY KEY (tag, grantee)) STRICT;
CREATE TABLE IF NOT EXISTS container_shares (
    container TEXT NOT NULL, grantee TEXT NOT NULL, share TEXT NOT NULL, owner INTEGER NOT NULL, login TEXT NOT NULL,
    until_ms INTEGER NOT NULL, PRIMARY KEY (container, grantee)) STRICT;
CREATE TABLE IF NOT EXISTS adoptions (
    container TEXT PRIMARY KEY, owner INTEGER NOT NULL, closed TEXT NOT NULL, started TEXT NOT NULL,
    lease TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS clock (
    one INTEGER PRIMARY KEY CHECK (one = 1), passed_ms INTEGER NOT NULL, boot TEXT NOT NULL, boottime_ms INTEGER NOT NULL,
    utc_ms INTEGER NOT NULL) STRICT;
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

    def _rows(self, statement: str, *values: str | int) -> list[tuple[Any, ...]]:
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise RecordsUnavailable(str(error)) from error

    def tags(self) -> dict[str, Uid]:
        """Every owned tag with its owner."""
        return {tag: Uid(owner) for tag, owner in self._rows("SELECT tag, owner FROM image_tags")}

    def set_tag(self, tag: str, owner: Uid) -> None:
        """Whoever the rules let write a tag owns it: it was theirs or nobody's."""
        self._rows("INSERT OR REPLACE INTO image_tags VALUES (?, ?)", tag, owner)

    def drop_tag(self, tag: str) -> None:
        """The tag is nobody's, and what was shared by it no longer is."""
        self._rows("DELETE FROM image_shares WHERE tag = ?", tag)
        self._rows("DELETE FROM image_tags WHERE tag = ?", tag)

    def makers(self) -> list[tuple[str, Uid]]:
        """Every image id with each user who made it; layers and whole images may be made twice."""
        return [(image_id, Uid(owner)) for image_id, owner in self._rows("SELECT id, owner FROM image_ids")]

    def claim_image(self, image_id: str, owner: Uid) -> None:
        self._rows("INSERT INTO image_ids VALUES (?, ?) ON CONFLICT DO NOTHING", image_id, owner)

    def disclaim_image(self, image_id: str, owner: Uid) -> None:
        self._rows("DELETE FROM image_ids WHERE id = ? AND owner = ?", image_id, owner)

    def public_images(self) -> list[str]:
        """Every image id that all users may read."""
        return [image_id for (image_id,) in self._rows("SELECT id FROM image_public")]

    def publish_image(self, image_id: str) -> None:
        self._rows("INSERT INTO image_public VALUES (?) ON CONFLICT DO NOTHING", image_id)

    def drop_image(self, image_id: str) -> None:
        self._rows("DELETE FROM image_public WHERE id = ?", image_id)
        self._rows("DELETE FROM image_ids WHERE id = ?", image_id)

    def shares(self) -> list[tuple[str, str]]:
        """Every shared tag with each grantee."""
        return [(tag, grantee) for tag, grantee in self._rows("SELECT tag, grantee FROM image_shares")]

    def share_tag(self, tag: str, grantee: str) -> None:
        self._rows("INSERT INTO image_shares VALUES (?, ?) ON CONFLICT DO NOTHING", tag, grantee)

    def unshare_tag(self, tag: str, grantee: str) -> None:
        self._rows("DELETE FROM image_shares WHERE tag = ? AND grantee = ?", tag, grantee)

    def container_shares(self) -> list[tuple[str, str, str, Uid, str, int]]:
        """Every share of a container: container, grantee, share, owner, the owner's login, end on the lasting clock."""
        statement = "SELECT container, grantee, share, owner, login, until_ms FROM container_shares"
        return [(*row[:3], Uid(row[3]), row[4], row[5]) for row in self._rows(statement)]

    def share_container(
        self, container: str, grantee: str, *, share: str, owner: Uid, login: str, until_ms: int
    ) -> None:
        self._rows(
            "INSERT OR REPLACE INTO container_shares VALUES (?, ?, ?, ?, ?, ?)",
            *(container, grantee, share, owner, login, until_ms),
        )

    def unshare_container(self, container: str, grantee: str) -> None:
        self._rows("DELETE FROM container_shares WHERE container = ? AND grantee = ?", container, grantee)

    def adoptions(self) -> list[tuple[str, Uid, str, str, str]]:
        """Every adopted container: its id, its owner, why no programs are run in it, since when it ran, its lease; empty: none."""
        rows = self._rows("SELECT container, owner, closed, started, lease FROM adoptions")
        return [(row[0], Uid(row[1]), *row[2:]) for row in rows]

    def adopt(self, container: str, owner: Uid, *, closed: str, started: str, lease: str) -> None:
        values = (container, owner, closed, started, lease)
        self._rows("INSERT OR REPLACE INTO adoptions VALUES (?, ?, ?, ?, ?)", *values)

    def disown(self, container: str) -> None:
        self._rows("DELETE FROM adoptions WHERE container = ?", container)

    def clock(self) -> tuple[int, str, int, int] | None:
        """The last mark of the lasting clock: what it said, which boot it was, that boot's clock, and UTC; all in ms."""
        rows = self._rows("SELECT passed_ms, boot, boottime_ms, utc_ms FROM clock")
        return (rows[0][0], rows[0][1], rows[0][2], rows[0][3]) if rows else None

    def mark_clock(self, passed_ms: int, boot: str, boottime_ms: int, utc_ms: int) -> None:
        self._rows(
            "INSERT OR REPLACE INTO clock VALUES (1, ?, ?, ?, ?)", passed_ms, boot, boottime_ms, utc_ms
        )

    def volume_owner(self, name: str) -> Uid | None:
        rows = self._rows("SELECT owner FROM volumes WHERE name = ?", name)
        return Uid(rows[0][0]) if rows else None

    def claim_volume(self, name: str, owner: Uid) -> None:
        self._rows("INSERT INTO volumes VALUES (?, ?) ON CONFLICT DO NOTHING", name, owner)

    def drop_volume(self, name: str) -> None:
        self._rows("DELETE FROM volumes WHERE name = ?", name)

    def close(self) -> None:
        self._database.close()
