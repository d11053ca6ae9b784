"""What putting leases on disk costs, in turns with a plain write and fsync of one page in the same directory.

The disk bounds every answer that is on it, and others use it at the same time: so the ratio to the plain fsync of the same
moments says more than the times do.
"""

from __future__ import annotations

import os
import statistics
from contextlib import contextmanager
from typing import TYPE_CHECKING

from allocator.ledger import LONG_LOG_CHANGES, Ledger
from allocator.model import Lease
from bench.leasing import USERS, Figures, Times, allocator, summary, timed, want
from policy.model import ContainerId

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterator
    from pathlib import Path

    from allocator.service import Allocator

_PAGE_BYTES = 4096
_PAGES = 256
_ROUNDS_BETWEEN_SWEEPS = 50
_GROWN_LEASES = 2000  # written before the first round, so that the log never grows in one


class Page:
    """A file of some pages, one of which is written anew and synced each time: what SQLite's log is after its first round."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        os.write(self._file, bytes(_PAGE_BYTES * _PAGES))
        os.fsync(self._file)
        self._next = 0
        self.times = Times()

    def write(self) -> None:
        with timed(self.times):
            os.pwrite(self._file, os.urandom(_PAGE_BYTES), self._next % _PAGES * _PAGE_BYTES)
            os.fsync(self._file)
        self._next += 1

    def close(self) -> None:
        os.close(self._file)


class SyncsConfirms(Ledger):
    """As it was: every transaction is synced."""

    @contextmanager
    def transaction(self, *, synced: bool = True) -> Iterator[sqlite3.Connection]:  # noqa: ARG002  the point of it
        with super().transaction(synced=True) as base:
            yield base


class CarriesOver(Ledger):
    """As it was: each sweep carries the log over, however short it is."""

    def checkpoint(self, *, least_changes: int = 0) -> None:  # noqa: ARG002  the point of it
        super().checkpoint()


class Writing:
    """Reserve and confirm, then release, again and again over one ledger."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._service: Allocator = allocator(ledger)
        self.both, self.ending, self.carrying = Times(), Times(), Times()

    async def round(self, number: int) -> None:
        if not number:
            await self._service.watch.look()
        if number % _ROUNDS_BETWEEN_SWEEPS == 0:
            with timed(self.carrying):
                self._ledger.checkpoint(least_changes=LONG_LOG_CHANGES)
        with timed(self.both):
            lease = await self._service.lease(want(1000 + number % USERS))
            assert isinstance(lease, Lease)
            await self._service.confirm(lease.id, ContainerId(f"{number:064x}"), who="bench")
        with timed(self.ending):
            await self._service.release(lease.id, who="bench", why="removed")

    async def close(self) -> None:
        await self._service.close()

    def figures(self, name: str, page: Page) -> Figures:
        """Times, and how many plain fsyncs they are."""
        found = summary(f"{name}_reserve_confirm", self.both) | summary(f"{name}_release", self.ending)
        found |= summary(f"{name}_checkpoint", self.carrying)
        # Where leases are few, most reserves are the first after a sweep.
        first = statistics.median(self.both.wall_us[::_ROUNDS_BETWEEN_SWEEPS])
        found[f"{name}_reserve_confirm_after_sweep_median_us"] = first
        plain = summary("plain", page.times)
        return found | {
            f"{name}_{what}_{which}_in_plain_fsyncs": found[f"{name}_{what}_{which}_us"]
            / plain[f"plain_{which}_us"]
            for what in ("reserve_confirm", "release")
            for which in ("median", "p99")
        }


async def in_turns(folder: Path, ledgers: dict[str, Ledger], rounds: int) -> Figures:
    """The same rounds over each ledger in turns, each in every place of the turn, with a plain fsync after each turn."""
    page = Page(folder / "page")
    writings = {name: Writing(ledger) for name, ledger in ledgers.items()}
    for number in range(rounds):
        first = number % len(writings)
        for writing in (*writings.values(), *writings.values())[first : first + len(writings)]:
            await writing.round(number)
        page.write()
    figures: Figures = {}
    for name, writing in writings.items():
        await writing.close()
        figures |= writing.figures(name, page)
    page.close()
    (folder / "page").unlink()
    return figures | summary(f"plain_fsync_beside_{next(iter(ledgers))}", page.times)


def variants(folder: Path) -> dict[str, Ledger]:
    """The ledger as it is, and otherwise: what each of its choices brings."""
    folder.mkdir()
    return {
        "as_it_is": Ledger(folder / "as_it_is"),
        "confirms_synced": SyncsConfirms(folder / "confirms_synced"),
        "carried_over_each_sweep": CarriesOver(folder / "carried_over_each_sweep"),
        "fsync": Ledger(folder / "fsync", sync=os.fsync),
        "log_grown": _grown(folder / "log_grown"),
        "never_synced": Ledger(folder / "never_synced", sync=lambda _: None),
    }


def _grown(path: Path) -> Ledger:
    """One whose log has its size already."""
    ledger = Ledger(path)
    with ledger.transaction() as base:
        base.execute("CREATE TABLE grown (filling BLOB)")
        base.executemany(
            "INSERT INTO grown VALUES (?)", [(os.urandom(_PAGE_BYTES),) for _ in range(_GROWN_LEASES)]
        )
    ledger.checkpoint()
    return ledger
