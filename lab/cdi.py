"""A CDI spec for a simulated machine, as `nvidia-ctk cdi generate --device-name-strategy=uuid` writes one for a real one.

Engines from 28.2 on hand GPUs over by it. Device nodes are the engine's work; the library and the claims are put into
the container by the stand-in hook, which the spec names.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from host.files import write_atomic
from lab import simulate

if TYPE_CHECKING:
    from collections.abc import Sequence

    from lab.simulate import State

KIND = "nvidia.com/gpu"
_NULL = {
    "type": "c",
    "major": 1,
    "minor": 3,
    "fileMode": 0o666,
    "permissions": "rw",
}  # as the stand-in hook makes them


def spec(machine: State, *, hook: Path) -> dict[str, object]:
    """One device for each GPU without MIG mode and each MIG device, named by UUID. "all" is no device of it."""
    devices = [
        _device(uuid, minor=gpu["minor"], hook=hook)
        for gpu in machine["gpus"]
        for uuid in simulate.device_uuids(gpu)
    ]
    shared = [_node("nvidiactl"), _node("nvidia-uvm")]
    return {
        "cdiVersion": "0.5.0",
        "kind": KIND,
        "containerEdits": {"deviceNodes": shared},
        "devices": devices,
    }


def write_spec(directory: Path, machine: State, *, hook: Path) -> None:
    """Put the spec where dockerd looks for it; it learns of changes by itself."""
    directory.mkdir(mode=0o755, exist_ok=True)
    text = json.dumps(spec(machine, hook=hook), indent=1)
    write_atomic(directory / "nvidia.json", text.encode(), mode=0o644)


def _device(uuid: str, *, minor: int, hook: Path) -> dict[str, object]:
    run = {"hookName": "prestart", "path": str(hook), "args": [hook.name, "cdi", uuid]}
    return {"name": uuid, "containerEdits": {"deviceNodes": [_node(f"nvidia{minor}")], "hooks": [run]}}


def _node(name: str) -> dict[str, object]:
    return {"path": f"/dev/{name}", **_NULL}


def main(arguments: Sequence[str]) -> None:
    """`python -m lab.cdi STATE_DIR CDI_DIR HOOK`: what nvidia-ctk is on a real machine, for the allocator to run."""
    state, directory, hook = map(Path, arguments)
    write_spec(directory, simulate.read_state(state), hook=hook)


if __name__ == "__main__":
    main(sys.argv[1:])
