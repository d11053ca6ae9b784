"""The CDI spec of a simulated machine: what may be handed over, by the names grants use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from lab import cdi, simulate

HOOK = Path("/hooks/nvidia-container-runtime-hook")


def devices(machine: str) -> dict[str, Any]:
    spec: Any = cdi.spec(simulate.machine(machine), hook=HOOK)
    return {device["name"]: device["containerEdits"] for device in spec["devices"]}


def test_gpus_and_mig_devices_are_named_by_uuid() -> None:
    """A GPU in MIG mode is no device itself, its MIG devices are; nothing is called all."""
    named = devices("a100-40,a100-40:3g.20gb+3g.20gb")
    parent = simulate.gpu_uuid(1)
    assert set(named) == {
        simulate.gpu_uuid(0),
        simulate.mig_uuid(parent, 1, 0),
        simulate.mig_uuid(parent, 2, 0),
    }
    assert {edits["deviceNodes"][0]["path"] for edits in named.values()} == {"/dev/nvidia0", "/dev/nvidia1"}


def test_each_device_is_told_to_the_hook() -> None:
    """The hook learns of a device from arguments no user can set."""
    for name, edits in devices("2xa100-40").items():
        assert edits["hooks"] == [
            {"hookName": "prestart", "path": str(HOOK), "args": [HOOK.name, "cdi", name]}
        ]


def test_a_machine_without_gpus_has_a_spec_without_devices(tmp_path: Path) -> None:
    """What dockerd reads is there and empty."""
    cdi.write_spec(tmp_path / "cdi", simulate.machine("none"), hook=HOOK)
    written = json.loads((tmp_path / "cdi" / "nvidia.json").read_text())
    assert (written["kind"], written["devices"]) == ("nvidia.com/gpu", [])
