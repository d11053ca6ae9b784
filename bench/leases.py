"""How long the allocator takes to decide and to write down: `python -m bench.leases [--quick] [--write] [--directory DIR]`.

Needs no root, no dockerd and no GPU. The ledger lies in a temporary directory below DIR (a disk, for fsync to mean something).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import tempfile
from pathlib import Path

from allocator.board import Board
from allocator.granting import Declined
from allocator.ledger import Ledger
from allocator.model import Lease
from allocator.place import place
from allocator.reservations import Reservation
from allocator.service import Allocator
from bench.leasing import GPUS, PARTS, USERS, YEARS, Clock, Figures, Times, allocator, summary, timed, want
from bench.ledger_syncs import in_turns, variants
from bench.ledger_years import fill
from bench.results import write_block
from observability.logging import configure
from policy.when import parse_when

WAITING = 200
LEASES_A_DAY = 1


async def placement(folder: Path, rounds: int) -> Figures:
    """One decision on a machine of 56 MIG devices with 200 waiting and ten reservations: pure, and as the service makes it."""
    service = allocator(Ledger(folder / "placement"))
    await service.watch.look()
    for number in range(10):
        when = f"daily {number + 8:02}:00-{number + 9:02}:00"
        await service.reserving.add(
            Reservation(
                id=f"r{number}",
                group="g",
                name="g",
                count=2,
                profile="mig",
                when=parse_when(when),
                when_text=when,
            )
        )
    held = []
    for at in range(GPUS * PARTS - 2):
        outcome = await service.lease(want(1000 + at % 30, limit=56, equivalents=None, groups=()))
        assert isinstance(outcome, Lease)
        held.append(outcome)
    async with asyncio.TaskGroup() as tasks:
        waiters = [
            tasks.create_task(service.lease(want(2000 + at % 50, count=3 + at % 3, wait_seconds=3600)))
            for at in range(WAITING)
        ]
        while len(service._line) < WAITING:  # noqa: ASYNC110  the line tells nobody
            await asyncio.sleep(0.01)
        figures = await _decisions(service, rounds)
        for waiter in waiters:
            waiter.cancel()
    await service.close()
    return figures


async def _decisions(service: Allocator, rounds: int) -> Figures:
    pure: Times = Times()
    whole, serving = Times(), Times()
    board, _ = await service._granting.books()
    for number in range(rounds):
        asked = want(3000 + number, count=3)
        with timed(pure):
            place(Board(board.snapshot, board.leases, board.now), asked)
        with timed(whole):
            outcome = await service._granting.decide(service._line.enter(asked, board.now or Clock()()))
        assert isinstance(outcome, Declined)
    for _ in range(max(20, rounds // 20)):
        with timed(serving):
            await service._granting.serve()
    return (
        summary("placement_pure", pure)
        | summary("decision_with_200_waiting", whole)
        | summary("serve_all_200_waiting", serving)
    )


async def archiving(path: Path) -> Figures:
    """Putting old leases away, as each sweep does: 20 at a time."""
    service = allocator(Ledger(path))
    times, idle = Times(), Times()
    moved = 0
    for _ in range(40):
        with timed(times):
            moved += service._ledger.archive("2035-12-01T00:00:00Z", most=20)
    for _ in range(200):
        with timed(idle):
            service._ledger.archive("2000-01-01T00:00:00Z", most=20)
    await service.close()
    assert moved
    return summary("archive_20", times) | summary("archive_nothing", idle)


async def measure(folder: Path, *, quick: bool) -> Figures:
    rounds = 300 if quick else 2000
    figures = await placement(folder, rounds)
    figures |= await in_turns(folder, variants(folder / "variants"), rounds)
    figures |= await in_turns(folder, {"empty_ledger": Ledger(folder / "empty")}, rounds)
    leases = USERS * 365 * YEARS * LEASES_A_DAY // (20 if quick else 1)
    fill(folder / "full", leases)
    os.sync()  # what filling left to be written is not the service's
    figures["full_ledger_leases"] = leases
    figures["full_ledger_mib"] = (folder / "full").stat().st_size / (1 << 20)
    figures |= await archiving(folder / "full")
    figures |= await in_turns(folder, {"full_ledger": Ledger(folder / "full")}, rounds)
    return figures


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(prog="python -m bench.leases", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer rounds, half a year of leases")
    parser.add_argument("--write", action="store_true", help="put the figures into bench/RESULTS.md")
    parser.add_argument("--directory", type=Path, help="where the ledgers lie; a disk")
    options = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="ds01-leases-", dir=options.directory))
    try:
        with Path(os.devnull).open("w") as nowhere:  # lines are made, as in the service, and go nowhere
            configure("bench", stream=nowhere)
            figures = asyncio.run(measure(folder, quick=options.quick))
    finally:
        shutil.rmtree(folder)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}")
    if options.write:
        command = "python -m bench.leases --write" + (" --quick" if options.quick else "")
        write_block("lease figures", figures, command)


if __name__ == "__main__":
    main()
