"""Which GPUs a container has: every way to one."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.held_devices import Held, allowed, devices_of, held
from allocator.model import Snapshot
from policy.foreign import excerpt
from policy.model import DeviceUuid
from tests.fakes.fake_nvml import gpu, mig, snapshot, split

EVERYTHING = Held(everything=True)
NOTHING = Held()
UUID = "GPU-00000000-0000-0000-0000-000000000001"
ALL = "NVIDIA_VISIBLE_DEVICES=all"


def names(*texts: str) -> Held:
    return Held(names=frozenset(texts))


def minors(*numbers: int) -> Held:
    return Held(minors=frozenset(numbers))


def inspect(env: tuple[str, ...] = (), mounts: tuple[str, ...] = (), **host: Any) -> dict[str, Any]:
    return {
        "Config": {"Env": list(env)},
        "Mounts": [{"Type": "bind", "Source": "/dev/null", "Destination": path} for path in mounts],
        "HostConfig": {"Runtime": "runc", **host},
    }


def request(**fields: Any) -> dict[str, Any]:
    return {"DeviceRequests": [{"Driver": "", "Count": 0, "Capabilities": [["gpu"]], **fields}]}


def node(path: str) -> dict[str, Any]:
    return {"Devices": [{"PathOnHost": path, "PathInContainer": "/dev/x", "CgroupPermissions": "rwm"}]}


LEGACY = ("CUDA_VERSION=9.0",)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        pytest.param(inspect(), NOTHING, id="nothing"),
        pytest.param(inspect(**request(Count=-1)), EVERYTHING, id="--gpus all"),
        pytest.param(inspect(**request(Count=2)), names("0", "1"), id="--gpus 2"),
        pytest.param(inspect(**request(DeviceIDs=[UUID, "1:0"])), names(UUID, "1:0"), id="--gpus device"),
        pytest.param(inspect(**request(DeviceIDs=["0,1"])), names("0", "1"), id="several in one"),
        pytest.param(inspect(**request(DeviceIDs=["all"])), EVERYTHING, id="an id called all"),
        pytest.param(inspect(**request(DeviceIDs=["00000000:65:00.0"])), EVERYTHING, id="PCI id"),
        pytest.param(
            inspect(**request(Driver="cdi", DeviceIDs=["nvidia.com/gpu=0"])), names("0"), id="CDI index"
        ),
        pytest.param(
            inspect(**request(Driver="cdi", DeviceIDs=["nvidia.com/gpu=all"])), EVERYTHING, id="CDI all"
        ),
        pytest.param(
            inspect(**request(Driver="cdi", DeviceIDs=["x.org/y=0"])), EVERYTHING, id="another CDI kind"
        ),
        pytest.param(inspect(**request(Driver="other")), EVERYTHING, id="another driver"),
        pytest.param(inspect((ALL,)), NOTHING, id="the variable under runc"),
        pytest.param(inspect((ALL,), Runtime="nvidia"), EVERYTHING, id="--runtime nvidia"),
        pytest.param(inspect((ALL,), Runtime="mine"), EVERYTHING, id="a runtime nobody knows"),
        pytest.param(
            inspect((f"NVIDIA_VISIBLE_DEVICES={UUID}",), Runtime="nvidia"), names(UUID), id="by UUID"
        ),
        pytest.param(
            inspect((ALL, "NVIDIA_VISIBLE_DEVICES=0"), Runtime="nvidia"), names("0"), id="the last counts"
        ),
        pytest.param(inspect(("NVIDIA_VISIBLE_DEVICES=void",), Runtime="nvidia"), NOTHING, id="void"),
        pytest.param(inspect(Runtime="nvidia"), NOTHING, id="no variable"),
        pytest.param(inspect(LEGACY, Runtime="nvidia"), EVERYTHING, id="legacy image"),
        pytest.param(
            inspect((*LEGACY, "NVIDIA_REQUIRE_CUDA=x"), Runtime="nvidia"), NOTHING, id="newer image"
        ),
        pytest.param(inspect((ALL,), **request()), EVERYTHING, id="an empty request runs the hook"),
        pytest.param(
            inspect((ALL,), **request(DeviceIDs=["0"])), names("0"), id="a request overrides the variable"
        ),
        pytest.param(inspect(("DOCKER_RESOURCE_GPU=0",), Runtime="nvidia"), EVERYTHING, id="swarm resource"),
        pytest.param(
            inspect(mounts=("/var/run/nvidia-container-devices/0",), Runtime="nvidia"),
            names("0"),
            id="mount list",
        ),
        pytest.param(
            inspect(mounts=("/var/run/nvidia-container-devices/0",)), NOTHING, id="mount list under runc"
        ),
        pytest.param(inspect(**node("/dev/nvidia2")), minors(2), id="--device"),
        pytest.param(inspect(**node("/dev/nvidiactl")), NOTHING, id="control node"),
        pytest.param(inspect(**node("/dev/fuse")), NOTHING, id="another device"),
        pytest.param(inspect(**node("/dev")), EVERYTHING, id="all of /dev"),
        pytest.param(inspect(**node("/dev/char/195:0")), EVERYTHING, id="a link in /dev"),
        pytest.param(inspect(**node("/home/alice/x")), EVERYTHING, id="a link elsewhere"),
        pytest.param(inspect(**node("/dev/nvidia-caps/nvidia-cap3")), EVERYTHING, id="MIG capability"),
        pytest.param(inspect(DeviceCgroupRules=["c 195:1 rw"]), minors(1), id="rule"),
        pytest.param(inspect(DeviceCgroupRules=["c 195:* rwm"]), EVERYTHING, id="rule for all"),
        pytest.param(inspect(DeviceCgroupRules=["a *:* rwm"]), EVERYTHING, id="rule a"),
        pytest.param(
            inspect(DeviceCgroupRules=["c 10:229 rwm", "b 8:0 r", "c 195:255 rw"]), NOTHING, id="other rules"
        ),
        pytest.param(inspect(DeviceCgroupRules=["odd"]), EVERYTHING, id="unreadable rule"),
        pytest.param(inspect(Privileged=True), NOTHING, id="privileged asks for none"),
        pytest.param(
            inspect((ALL,), Privileged=True, Runtime="nvidia"), EVERYTHING, id="privileged with all"
        ),
        pytest.param(inspect(**request(Count=1), **node("/dev/nvidia3")), names("0") | minors(3), id="both"),
    ],
)
def test_each_way_is_read(given: dict[str, Any], expected: Held) -> None:
    """What cannot be told counts as everything; and the excerpt that the proxy sends says the same."""
    assert held(given) == held(excerpt(given)) == expected


def test_the_engines_default_runtime_counts() -> None:
    """An inspect that names none has the default one, and that may be NVIDIA's."""
    given = inspect((ALL,), Runtime="")
    assert held(given) == NOTHING
    assert held(given, default_runtime="nvidia") == EVERYTHING


def test_what_a_cgroup_allows_is_read() -> None:
    """devices.list of cgroup v1: making nodes is not opening them."""
    text = "c *:* m\nb *:* m\nc 1:3 rwm\nc 195:0 rw\nc 195:255 rw\nc 234:0 rw\n"
    assert allowed(text) == minors(0)
    assert allowed("a *:* rwm\n") == EVERYTHING


SHARED = snapshot(gpu(0), *split(1, "3g.20gb", "1g.5gb"))
BY_MINOR = {0: gpu(0).uuid, 3: gpu(1).uuid}


@pytest.mark.parametrize(
    ("what", "expected"),
    [
        pytest.param(NOTHING, set(), id="nothing"),
        pytest.param(EVERYTHING, set(SHARED.devices), id="everything"),
        pytest.param(names("0"), {gpu(0).uuid}, id="index"),
        pytest.param(names("1:0"), {mig(1, 0).uuid}, id="MIG notation"),
        pytest.param(names(gpu(0).uuid.upper()), {gpu(0).uuid}, id="UUID in any case"),
        pytest.param(
            names(gpu(1).uuid), {gpu(1).uuid, mig(1, 0).uuid, mig(1, 1).uuid}, id="a GPU and its parts"
        ),
        pytest.param(names(mig(1, 0).uuid[:18]), {mig(1, 0).uuid}, id="the beginning of a UUID"),
        pytest.param(names("7", "MIG-gone"), set(), id="what is not there"),
        pytest.param(minors(0), {gpu(0).uuid}, id="node"),
        pytest.param(minors(3), {gpu(1).uuid, mig(1, 0).uuid, mig(1, 1).uuid}, id="node of a GPU in parts"),
        pytest.param(minors(1), set(SHARED.devices), id="a node nobody knows"),
    ],
)
def test_names_become_devices(what: Held, expected: set[DeviceUuid]) -> None:
    """A GPU is had with its MIG devices; a node that cannot be placed takes everything."""
    assert devices_of(what, SHARED, minors=BY_MINOR) == expected


def test_without_devices_there_is_nothing_to_have() -> None:
    """Everything of nothing."""
    assert devices_of(EVERYTHING, Snapshot(), minors={}) == frozenset()
