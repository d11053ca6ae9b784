"""What `script/server` was asked to do."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

REAL_GPUS = "real"
_NAME = re.compile(r"[a-z_][a-z0-9_-]{0,31}")


class Parts(StrEnum):
    """How much of the system to bring up."""

    ALL = "all"
    ENGINE_ONLY = (
        "engine-only"  # dockerd alone, without the plugin: what the facts about dockerd are tested on
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """One call of `ds01-lab`.

    users: names that get sockets; None: those of the last time.
    gpus: a simulated machine, `real`, or None: real GPUs if there are any, else the default simulated machine.
    engine: another dockerd; the programs beside it (containerd, runc) are used with it, or those of the whole system
        it lies in.
    """

    root: Path
    parts: Parts = Parts.ALL
    users: tuple[str, ...] | None = None
    gpus: str | None = None
    engine: Path | None = None
    detach: bool = False
    stop: bool = False


def parse(arguments: Sequence[str] | None) -> Settings:
    """Read the command line. Raises: SystemExit, from argparse."""
    parser = argparse.ArgumentParser(
        prog="ds01-lab",
        description="The whole of ds01 on this machine, in namespaces of its own.",
        epilog="ds01-lab gpu --help: what can be done to the simulated GPUs of a lab that runs.",
    )
    parser.add_argument("parts", nargs="?", type=Parts, choices=list(Parts), default=Parts.ALL)
    parser.add_argument("--detach", action="store_true", help="return when everything is ready")
    parser.add_argument("--stop", action="store_true", help="end it and leave nothing running")
    parser.add_argument("--root", type=Path, default=Path(".lab"), help="keep all files below this directory")
    parser.add_argument("--users", type=_names, help="accounts that get a socket, made if missing: alice,bob")
    parser.add_argument("--gpus", help="simulated machine, like 2xa100-40,a100-40:7x1g.5gb; or none; or real")
    parser.add_argument("--engine", type=_program, help="another dockerd, or the root of a system with one")
    return Settings(**vars(parser.parse_args(arguments)))


def _names(text: str) -> tuple[str, ...]:
    names = tuple(dict.fromkeys(filter(None, text.split(","))))
    for name in names:
        if _NAME.fullmatch(name) is None or name == "root":
            raise argparse.ArgumentTypeError(f"{name!r} cannot be a user of the lab; use names like alice")
    return names


def _program(text: str) -> Path:
    path = Path(text).absolute()
    found = next(
        (file for file in (path, path / "usr/sbin/dockerd", path / "usr/bin/dockerd") if file.is_file()), None
    )
    if found is None:
        raise argparse.ArgumentTypeError(f"there is no program {path}, and no dockerd below it")
    return found
