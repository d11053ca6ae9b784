"""The stand-in hook read as a program: which devices an environment names, and what it refuses."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
from importlib.machinery import SourceFileLoader
from pathlib import Path
from typing import Any

import pytest

from lab import simulate

HOOK = Path(simulate.__file__).parent / "hook" / simulate.HOOK_NAME
MACHINE = simulate.machine()
GPUS = MACHINE["gpus"]


@pytest.fixture(scope="module")
def hook() -> Any:
    loader = SourceFileLoader("stand_in_hook", str(HOOK))
    spec = importlib.util.spec_from_loader("stand_in_hook", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("env", "wanted"),
    [
        pytest.param([], [], id="absent"),
        pytest.param(["NVIDIA_VISIBLE_DEVICES="], [], id="empty"),
        pytest.param(["NVIDIA_VISIBLE_DEVICES=void"], [], id="void"),
        pytest.param(["NVIDIA_VISIBLE_DEVICES=none"], [], id="none"),
        pytest.param(["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=void"], [], id="last-wins"),
        pytest.param(
            ["NVIDIA_VISIBLE_DEVICES=1", "NVIDIA_VISIBLE_DEVICES"], ["1"], id="no-equals-is-nothing"
        ),
        pytest.param(["NVIDIA_VISIBLE_DEVICES=0,GPU-a"], ["0", "GPU-a"], id="list"),
    ],
)
def test_the_last_setting_names_the_devices(hook: Any, env: list[str], wanted: list[str]) -> None:
    """The last NVIDIA_VISIBLE_DEVICES counts; empty, void and none are nothing."""
    assert hook.visible_devices(env) == wanted


@pytest.mark.parametrize(
    ("name", "device", "minor"),
    [
        pytest.param("1", simulate.gpu_uuid(1), 1, id="index"),
        pytest.param(simulate.gpu_uuid(0).upper(), simulate.gpu_uuid(0), 0, id="uuid-any-case"),
        pytest.param("2:1", simulate.mig_uuid(simulate.gpu_uuid(2), 2, 0), 2, id="gpu-and-mig-index"),
        pytest.param(GPUS[3]["pci"], simulate.gpu_uuid(3), 3, id="pci"),
    ],
)
def test_every_notation_of_a_device_resolves(hook: Any, name: str, device: str, minor: int) -> None:
    """Index, UUID, gpu:mig and PCI id name the same devices as with NVIDIA's tool."""
    assert hook.resolve([name], GPUS) == [(device, minor)]


def test_devices_of_a_cdi_spec_come_from_the_hooks_alone(hook: Any) -> None:
    """Each run is told of one device; all of them together are read from the bundle, other hooks apart."""
    hooks = [
        {"args": ["x", "cdi", "GPU-a"]},
        {"path": "/other"},
        {"args": ["x", "cdi", "MIG-b"]},
        {"args": ["x"]},
    ]
    assert hook.cdi_devices(hooks) == ["GPU-a", "MIG-b"]


def test_all_is_every_gpu_and_mig_device_once(hook: Any) -> None:
    """`all` gives four GPUs and nine MIG devices."""
    assert len(set(hook.resolve(["all"], GPUS))) == 4 + 2 + 7


@pytest.mark.parametrize("name", ["GPU-0bad", "4", "2:9", "", "all "])
def test_an_unknown_device_is_refused_by_name(hook: Any, name: str) -> None:
    """What is no device of this machine stops the start."""
    with pytest.raises(hook.Refused, match="unknown device"):
        hook.resolve(["0", name], GPUS)


def test_the_program_refuses_on_stderr_with_status_1(tmp_path: Path) -> None:
    """An unknown id exits 1 with NVIDIA's sentence, which dockerd shows to the user."""
    simulate.write_state(tmp_path / "state", MACHINE)
    program = simulate.install_hook(tmp_path / "hook", state_dir=tmp_path / "state", library=tmp_path / "lib")
    config = {"process": {"env": ["NVIDIA_VISIBLE_DEVICES=MIG-gone"]}, "root": {"path": "rootfs"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = json.dumps({"id": "c", "pid": 1, "bundle": str(tmp_path)})
    done = subprocess.run([program, "prestart"], input=state, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (
        1,
        "nvidia-container-cli: device error: MIG-gone: unknown device\n",
    )


def test_targets_are_opened_without_following_symlinks(hook: Any, tmp_path: Path) -> None:
    """An image whose /run is a symlink cannot send the hook outside its root filesystem."""
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    (tmp_path / "root" / "run").symlink_to(tmp_path / "outside")
    root = os.open(tmp_path / "root", os.O_PATH | os.O_DIRECTORY)
    with pytest.raises(NotADirectoryError):
        hook.open_target(root, "run/ds01-sim", directory=True)
    os.close(root)
    assert list((tmp_path / "outside").iterdir()) == []
