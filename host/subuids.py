"""The uids that the host lends to its users for user namespaces. SOURCE: subuid(5)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path

from host.users import Account, look_up_name

SUBUID = Path("/etc/subuid")


def lent(
    path: Path = SUBUID, *, look_up: Callable[[str], Account | None] = look_up_name
) -> tuple[tuple[int, int, int], ...]:
    """Every range as (owner's uid, first, count), in the file's order; none without a file.

    A line that cannot be read, or whose name is nobody's, lends nothing. Blocks as long as NSS does. Raises: OSError.
    """
    try:
        text = path.read_text(encoding="utf-8", errors="surrogateescape")
    except FileNotFoundError:
        return ()
    return tuple(_ranges(text, look_up))


class Lenders:
    """To whom each uid was lent, as it was read last; before that nothing is lent."""

    def __init__(self, read: Callable[[], tuple[tuple[int, int, int], ...]] = lent) -> None:
        """Args: read: blocks."""
        self._read = read
        self._ranges: tuple[tuple[int, int, int], ...] = ()

    async def refresh(self) -> None:
        """Read again, in a thread. Raises: OSError: what was read before stays."""
        self._ranges = await asyncio.to_thread(self._read)

    def owner_of(self, uid: int) -> int:
        """The user that has a uid in its first range there; the uid itself where nobody has."""
        return next((owner for owner, first, count in self._ranges if first <= uid < first + count), uid)


def _ranges(text: str, look_up: Callable[[str], Account | None]) -> Iterator[tuple[int, int, int]]:
    for line in text.splitlines():
        name, _, numbers = line.strip().partition(":")
        first, _, count = numbers.partition(":")
        if not (first.isascii() and first.isdecimal() and count.isascii() and count.isdecimal()):
            continue
        if name.isascii() and name.isdecimal():
            yield int(name), int(first), int(count)
            continue
        account = look_up(name)
        if account is not None:
            yield account.uid, int(first), int(count)
