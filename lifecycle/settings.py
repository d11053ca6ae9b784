"""Lifecycle's settings: `lifecycle:` of daemon.yaml, over defaults."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from host.daemon_file import load_block
from host.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

_LONGEST_LOOK_SECONDS = 60
_LONGEST_WARNING_SECONDS = 7 * 86400


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Keys of `lifecycle:`.

    look_seconds: the longest pause between two looks at the leases.
    warn_seconds: how long before a container is stopped its owner is warned, each time once; none: nobody is warned.
    """

    look_seconds: int = 30
    warn_seconds: tuple[int, ...] = (1800, 300)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where files are, and when to look and to warn."""

    tree: Tree
    timing: Timing


def parse_settings(arguments: Sequence[str] | None) -> Settings:
    """Read flags and the file they point to. Exits with a message on a mistake."""
    parser = argparse.ArgumentParser(
        prog="ds01-lifecycle", description="Stops containers whose GPU time is over."
    )
    parser.add_argument(
        "--root", type=Path, help="one directory with run/, etc/, lib/ and log/; without it /run/ds01, ..."
    )
    root = parser.parse_args(arguments).root
    tree = Tree.production() if root is None else Tree.under(root)
    path = tree.daemon_settings
    try:
        return Settings(
            tree=tree,
            timing=_timing(load_block(path, "lifecycle", [field.name for field in fields(Timing)])),
        )
    except (OSError, ValueError, yaml.YAMLError) as error:
        parser.error(f"{path}: {error}")


def _timing(block: dict[str, Any]) -> Timing:
    default = Timing()
    look = block.get("look_seconds", default.look_seconds)
    warn = block.get("warn_seconds", list(default.warn_seconds))
    if type(look) is not int or not 1 <= look <= _LONGEST_LOOK_SECONDS:
        raise ValueError(f"lifecycle.look_seconds: a number from 1 to {_LONGEST_LOOK_SECONDS}")
    if not isinstance(warn, list) or not all(
        type(one) is int and 1 <= one <= _LONGEST_WARNING_SECONDS for one in warn
    ):
        raise ValueError(f"lifecycle.warn_seconds: a list of numbers from 1 to {_LONGEST_WARNING_SECONDS}")
    return Timing(look_seconds=look, warn_seconds=tuple(sorted(set(warn), reverse=True)))
