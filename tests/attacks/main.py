"""`script/attack`: brings a lab up, tries every attack of the corpus on it, and says how many were refused.

Exits with 0 only if every attack was tried, judged and refused.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time
from collections import Counter
from pathlib import Path

from tests.attacks import crowd, fuzz
from tests.attacks import world as worlds
from tests.attacks.model import Attack, load_all
from tests.attacks.runner import Outcome, Result, attempt
from tests.integration.conftest import PREFIX, Lab, running_lab

_USERS = (f"{PREFIX}-eve", f"{PREFIX}-bob2")
_THIRD = f"{PREFIX}-carol"


def main(arguments: list[str] | None = None) -> int:
    """Run what the flags ask for. Returns: the exit status."""
    options = _parser().parse_args(arguments)
    root = Path(options.root) if options.root else None
    flags = ["--engine", options.engine] if options.engine else []
    if options.crowd:
        flags += ["--users", ",".join((*_USERS, _THIRD))]
    with running_lab(*_USERS, *flags, root=root) as lab:
        if options.crowd:
            return crowd.run(lab, _THIRD)
        if options.fuzz:
            with worlds.opened(lab) as world:
                return fuzz.run(world, count=options.bodies, seed=options.seed)
        return _corpus(lab, load_all(only=options.only), verbose=options.verbose)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="script/attack", description=__doc__)
    parser.add_argument("--only", default="", metavar="TEXT", help="attacks whose name holds TEXT")
    parser.add_argument("--engine", default="", metavar="PATH", help="another dockerd")
    parser.add_argument(
        "--root", default="", metavar="DIR", help="where the lab lives (default: a new directory)"
    )
    parser.add_argument("--fuzz", action="store_true", help="random create bodies instead of the corpus")
    parser.add_argument(
        "--crowd", action="store_true", help="measure what a third user notices of two hostile ones"
    )
    parser.add_argument("--bodies", type=int, default=20_000, metavar="N", help="how many (default: 20000)")
    parser.add_argument(
        "--seed",
        type=int,
        default=secrets.randbelow(2**32),
        metavar="N",
        help="repeat the run that printed it",
    )
    parser.add_argument("--verbose", action="store_true", help="name each attack as it is tried")
    return parser


def _corpus(lab: Lab, attacks: list[Attack], *, verbose: bool) -> int:
    started = time.monotonic()
    outcomes: list[Outcome] = []
    with worlds.opened(lab) as world:
        for attack in attacks:
            outcome = attempt(world, attack)
            outcomes.append(outcome)
            if verbose or outcome.result is not Result.REFUSED:
                print(f"{outcome.result}: {attack.id}: {attack.title}: {outcome.text()}"[:1200], flush=True)
    counts = Counter(outcome.result for outcome in outcomes)
    print(f"attempted: {len(outcomes)}")
    print(f"refused: {counts[Result.REFUSED]}")
    print(f"succeeded: {counts[Result.SUCCEEDED]}")
    print(f"unexplained: {counts[Result.UNEXPLAINED]}")
    softened = sum(outcome.softened and outcome.result is Result.REFUSED for outcome in outcomes)
    print(
        f"({softened} of the refused were carried out without what was asked; {time.monotonic() - started:.0f} s)"
    )
    return 0 if outcomes and counts[Result.REFUSED] == len(outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
