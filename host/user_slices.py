"""The slices of users that are there now, and unit drop-ins as files. SOURCE: systemd, CGROUP_DELEGATION; systemd.unit(5)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from host.files import write_atomic

CGROUPS = Path("/sys/fs/cgroup")
UNITS = Path("/etc/systemd/system")
_SLICE = re.compile(r"user-([0-9]{1,10})\.slice")


def present(cgroups: Path = CGROUPS) -> tuple[int, ...]:
    """The uids whose slice is there, on cgroup v1, v2 or both, sorted; none where systemd does not run."""
    parents = (cgroups / "user.slice", cgroups / "systemd" / "user.slice", cgroups / "unified" / "user.slice")
    found = (
        _SLICE.fullmatch(path.name) for parent in parents if parent.is_dir() for path in parent.iterdir()
    )
    return tuple(sorted({int(one[1]) for one in found if one is not None}))


def write_drop_ins(
    files: Mapping[str, str], *, names: Collection[str], directory: Path = UNITS
) -> tuple[str, ...]:
    """Make the drop-ins with these file names exactly `files`; what was changed or removed, by path below `directory`.

    Args: files: text by path, `UNIT.d/NAME`. names: every file name that is ours: others of them go.
    Raises: OSError.
    """
    changed: list[str] = []
    for old in sorted(path for name in names for path in directory.glob(f"*.d/{name}")):
        relative = str(old.relative_to(directory))
        if relative not in files:
            old.unlink()
            changed.append(relative)
    for relative, text in sorted(files.items()):
        path = directory / relative
        if not path.exists() or path.read_text() != text:
            path.parent.mkdir(mode=0o755, exist_ok=True)
            write_atomic(path, text.encode(), mode=0o644)
            changed.append(relative)
    return tuple(changed)
