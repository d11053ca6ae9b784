"""Lent uids, as subuid(5) writes them."""

from __future__ import annotations

from pathlib import Path

from host.subuids import Lenders, lent
from host.users import Account
from policy.model import Gid, Uid


def look_up(name: str) -> Account | None:
    if name != "alice":
        return None
    return Account(uid=Uid(1000), gid=Gid(1000), name=name, groups=frozenset(), gids=frozenset(), home="/")


def test_ranges_are_read_by_name_and_by_uid(tmp_path: Path) -> None:
    """What is no range, or nobody's, is left out."""
    file = tmp_path / "subuid"
    file.write_text(
        "alice:100000:65536\n\n1001:165536:65536\nghost:1:1\n# note\nalice:x:1\nalice:1\nalice:5:²\n"
    )
    assert lent(file, look_up=look_up) == ((1000, 100000, 65536), (1001, 165536, 65536))


def test_without_a_file_nothing_is_lent(tmp_path: Path) -> None:
    """A host without user namespaces has none."""
    assert lent(tmp_path / "subuid") == ()


async def test_a_lent_uid_is_its_owners() -> None:
    """Once the file was read; others, and all before that, are their own."""
    lenders = Lenders(lambda: ((1000, 100000, 65536), (1001, 165536, 65536)))
    assert lenders.owner_of(100000) == 100000
    await lenders.refresh()
    asked = (99999, 100000, 165535, 165536, 231072, 1000)
    assert [lenders.owner_of(uid) for uid in asked] == [99999, 1000, 1000, 1001, 231072, 1000]
