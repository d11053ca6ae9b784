"""The allocator's settings: flags, over `allocator:` of daemon.yaml, over defaults."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, field, replace
from datetime import UTC, tzinfo
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import yaml

from allocator import cdi
from allocator.service import Timing
from host.daemon_file import load_block
from host.tree import Tree

if TYPE_CHECKING:
    from collections.abc import Sequence

_KEYS = frozenset(
    {"trusted_uids", "nvml_deadline_seconds", "half_life_hours", "archive_days", "time_zone", "cdi_command"}
    | {"kernel_log"}
)
_LOCAL_TIME = Path("/etc/localtime")
_KERNEL_LOG = Path("/dev/kmsg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where files are, who may lease, and how long the driver may take.

    cdi_command: what writes the CDI spec again after a change of MIG; empty: nothing does.
    kernel_log: where the driver's XIDs are heard beside NVML.
    """

    tree: Tree
    trusted_uids: frozenset[int] = frozenset({0})
    nvml_deadline_seconds: float = 30
    timing: Timing = field(default_factory=Timing)
    zone: tzinfo = UTC
    cdi_command: tuple[str, ...] = cdi.NVIDIA
    kernel_log: Path = _KERNEL_LOG


def parse_settings(arguments: Sequence[str]) -> Settings:
    """Flags, over `allocator:` in etc/daemon.yaml, over defaults. Exits with a message on a mistake."""
    parser = argparse.ArgumentParser(prog="ds01-allocator", description="Lease GPUs to containers.")
    parser.add_argument("--root", type=Path, help="one directory with run, etc, lib and log")
    for name in ("run", "etc", "lib", "log"):
        parser.add_argument(f"--{name}", type=Path, help=f"the {name} directory")
    parser.add_argument("--trusted-uid", type=int, action="append", help="may lease, beside root; repeatable")
    parser.add_argument("--nvml-deadline-seconds", type=float, help="then the driver counts as hung")
    flags = parser.parse_args(arguments)
    base = Tree.production() if flags.root is None else Tree.under(flags.root)
    tree = replace(
        base, **{name: getattr(flags, name) for name in ("run", "etc", "lib", "log") if getattr(flags, name)}
    )
    try:
        return _merged(tree, flags, load_block(tree.daemon_settings, "allocator", _KEYS))
    except (OSError, ValueError, TypeError, yaml.YAMLError) as error:
        parser.error(f"{tree.etc / 'daemon.yaml'}: {error}")


def _merged(tree: Tree, flags: argparse.Namespace, section: dict[str, Any]) -> Settings:
    trusted = section.get("trusted_uids", []) if flags.trusted_uid is None else flags.trusted_uid
    deadline = flags.nvml_deadline_seconds or section.get("nvml_deadline_seconds", 30)
    if not all(type(uid) is int and uid >= 0 for uid in trusted) or not 0 < deadline <= 600:
        raise ValueError("trusted_uids: numbers; nvml_deadline_seconds: above 0, at most 600")
    half_life, archive_days = section.get("half_life_hours", 168), section.get("archive_days", 35)
    if not 1 <= half_life <= 8760 or not 1 <= archive_days <= 3660:
        raise ValueError("half_life_hours: from 1 to 8760; archive_days: from 1 to 3660")
    command = section.get("cdi_command", list(cdi.NVIDIA))
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        raise ValueError("cdi_command: a list of words; [] where GPUs are handed over without CDI")
    kernel_log = section.get("kernel_log", str(_KERNEL_LOG))
    if not isinstance(kernel_log, str) or not kernel_log.startswith("/"):
        raise ValueError("kernel_log: an absolute path")
    return Settings(
        tree=tree,
        trusted_uids=frozenset({0, *trusted}),
        nvml_deadline_seconds=deadline,
        timing=Timing(half_life_seconds=half_life * 3600.0, archive_days=archive_days),
        zone=_zone(section.get("time_zone")),
        cdi_command=tuple(command),
        kernel_log=Path(kernel_log),
    )


def _zone(name: object) -> tzinfo:
    """A zone by name, else this machine's, else UTC. Raises: ValueError: there is no such zone."""
    if name is not None:
        try:
            return ZoneInfo(str(name))
        except ZoneInfoNotFoundError as error:
            raise ValueError(f"time_zone: {name!r} is none; write one like Europe/Berlin") from error
    if not _LOCAL_TIME.exists():
        return UTC
    with _LOCAL_TIME.open("rb") as file:
        return ZoneInfo.from_file(file)
