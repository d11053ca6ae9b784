"""`ds01 gpu sessions`: close GPUs to people's sessions on this server, or open them again.

The files are for sessions to come; who is there already is told live. Nothing is reloaded: that would take GPUs from containers
that got them by NVIDIA's hook under the systemd cgroup driver.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from allocator.device_policy import BASE_NAME, FREE_NAME, base, drop_ins, free_property, set_property
from cli.outcome import Exit, Failed
from host import user_slices
from host.users import look_up_name
from policy.model import Uid

_DEVICES = Path("/proc/devices")
_SECONDS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Sessions:
    """What was done: files changed below the units' directory, and users whose slices were told."""

    closed: bool
    files: tuple[str, ...]
    told: tuple[int, ...]


def uids(names: Sequence[str]) -> frozenset[Uid]:
    """Raises: Failed: USAGE: no such user."""
    found = {name: look_up_name(name) for name in names}
    unknown = [name for name, account in found.items() if account is None]
    if unknown:
        raise Failed(Exit.USAGE, f"--free {unknown[0]}: there is no such user")
    return frozenset(account.uid for account in found.values() if account is not None)


def run(command: Sequence[str]) -> None:
    """Raises: Failed: UNAVAILABLE: systemd did not do it."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Failed(Exit.UNAVAILABLE, f"{command[0]}: {error}") from error
    if done.returncode:
        words = " ".join(done.stderr.split())
        raise Failed(
            Exit.UNAVAILABLE,
            f"{words or command[0]}; nothing else was told, run it again once that is mended",
        )


def close(
    free: Collection[Uid],
    *,
    present: Sequence[int],
    granted: Collection[int] = (),
    devices: str | None = None,
    units: Path = user_slices.UNITS,
    tell: Callable[[Sequence[str]], None] = run,
) -> Sessions:
    """Write the drop-ins, and close the slices that are there.

    Args: free: who stays as before: admins; root always does. present: uids whose slice is there. granted: who has a grant,
        whose slice the allocator tells.
    Raises: Failed.
    """
    allowed = base(_DEVICES.read_text() if devices is None else devices)
    files = _write(drop_ins(allowed, free=free), units)
    kept = {0, *free, *granted}
    told = tuple(uid for uid in present if uid not in kept)
    for uid in told:
        tell(set_property(Uid(uid), allowed))
    return Sessions(closed=True, files=files, told=told)


def reopen(
    *,
    present: Sequence[int],
    units: Path = user_slices.UNITS,
    tell: Callable[[Sequence[str]], None] = run,
) -> Sessions:
    """Take the drop-ins away, and open the slices that are there. Raises: Failed."""
    files = _write({}, units)
    told = tuple(uid for uid in present if uid != 0)
    for uid in told:
        tell(free_property(Uid(uid)))
    return Sessions(closed=False, files=files, told=told)


def _write(files: Mapping[str, str], units: Path) -> tuple[str, ...]:
    try:
        return user_slices.write_drop_ins(files, names=[BASE_NAME, FREE_NAME], directory=units)
    except OSError as error:
        raise Failed(Exit.UNAVAILABLE, f"{error.filename or units}: {error.strerror}") from error


def shown(sessions: Sessions) -> str:
    """What holds now, and from when on for whom."""
    what = "closed" if sessions.closed else "open"
    return (
        f"GPUs are {what} to people's sessions: {len(sessions.told)} that are here now were told, "
        f"{len(sessions.files)} files changed.\n"
        "New sessions of users who are not here, and cron, follow from the next boot on, or from `systemctl daemon-reload`, which can\n"
        "take GPUs from running containers where the engine uses NVIDIA's hook and the systemd cgroup driver."
    )
