"""Figures between two marks of bench/RESULTS.md; what people wrote around them stays."""

from __future__ import annotations

import os
import platform
import time
from typing import TYPE_CHECKING

from bench.stack import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Mapping

RESULTS = REPOSITORY / "bench" / "RESULTS.md"


def write_block(name: str, figures: Mapping[str, float], command: str) -> None:
    """Replace the figures between `<!-- NAME -->` and `<!-- end of NAME -->`, or append them."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    machine = f"{platform.machine()}, {os.cpu_count()} CPUs, Linux {platform.release().partition('-')[0]}, Python {platform.python_version()}"
    day = time.strftime("%Y-%m-%d", time.gmtime())
    rows = [f"| `{name}` | {value:.2f} |" for name, value in figures.items()]
    made = f"Made by `{command}` on {day}: {machine}."
    block = "\n".join([begin, made, "", "| figure | value |", "|---|---|", *rows, end])
    text = RESULTS.read_text() if RESULTS.exists() else ""
    if begin not in text:
        text += f"\n{begin}{end}\n"
    head, _, rest = text.partition(begin)
    RESULTS.write_text(head + block + rest.partition(end)[2])
