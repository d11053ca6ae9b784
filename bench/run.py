"""ds01 side by side with HAProxy and a bare dockerd, in one run on one machine: `script/bench [--quick]`.

Prints one `name: value` line for each figure. The full run takes about four minutes and writes `bench/RESULTS.md`
when `--write` is given.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import devices, scenarios
from bench.results import write_block
from bench.stack import Stack, running

if TYPE_CHECKING:
    from collections.abc import Iterable

    from bench.scenarios import Figures


def quick(stack: Stack) -> Iterable[Figures]:
    """The figures that a change to the data path is judged by."""
    yield scenarios.hop(stack, "/_ping", "hop", requests=2000)
    yield scenarios.plugin(stack, calls=500)
    yield scenarios.docker_run(stack, runs=5)
    yield scenarios.guard(stack, starts=10)
    yield devices.sweep(sweeps=20)


def full(stack: Stack) -> Iterable[Figures]:
    """Everything."""
    yield scenarios.hop(stack, "/_ping", "hop", requests=4000)
    yield scenarios.plugin(stack, calls=2000)
    yield scenarios.hop(stack, "/v1.41/containers/json?all=1", "list_0", requests=2000)
    yield scenarios.docker_run(stack, runs=15)
    yield scenarios.guard(stack, starts=40)
    yield devices.sweep(sweeps=100)
    yield scenarios.concurrent(stack, clients=200, requests_each=25)
    yield scenarios.idle_memory(stack, connections=2000)
    yield scenarios.logs(stack, rounds=3)
    yield scenarios.archive(stack, mebibytes=1024, rounds=3)
    scenarios.fill(stack, 100)
    yield scenarios.hop(stack, "/v1.41/containers/json?all=1", "list_100", requests=2000)
    scenarios.fill(stack, 900)
    # 150 of 0.5 MiB for each variant; 2,000 would take ten minutes.
    yield scenarios.hop(stack, "/v1.41/containers/json?all=1", "list_1000", requests=150)


def main() -> int:
    """Run, print, clean up. Needs root, dockerd, HAProxy and a static busybox."""
    parser = argparse.ArgumentParser(prog="script/bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="only the main figures, within 45 s")
    parser.add_argument("--write", action="store_true", help="put the figures into bench/RESULTS.md")
    options = parser.parse_args()
    if os.geteuid():
        print("bench: needs root, since it starts private dockerds", file=sys.stderr)
        return 1
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    root = Path(tempfile.mkdtemp(prefix="ds01-bench-"))
    root.chmod(0o755)
    figures: Figures = {}
    begin = time.monotonic()
    try:
        with running(root) as stack:
            for part in (quick if options.quick else full)(stack):
                figures |= part
                for name, value in part.items():
                    print(f"{name}: {value:.2f}", flush=True)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(f"seconds: {time.monotonic() - begin:.0f}")
    if options.write:
        write_block("figures", figures, "script/bench --write" + (" --quick" if options.quick else ""))
    return 0


if __name__ == "__main__":
    sys.exit(main())
