"""GPU wishes in every spelling, and the two canonical forms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy import gpus
from policy.gpus import Wish
from policy.model import Reason
from tests.fakes.policy_world import ENGINE, GPUS

UUID = GPUS[0]


def body(env: list[str] | None = None, **host: Any) -> dict[str, Any]:
    return {"Env": env or [], "HostConfig": host}


WISHES: list[tuple[dict[str, Any], int | None, tuple[str, ...]]] = [
    (body(DeviceRequests=[{"Count": -1, "Capabilities": [["gpu"]]}]), 1, ()),
    (body(DeviceRequests=[{"Count": 2, "Capabilities": [["compute"]]}]), 2, ()),
    (body(DeviceRequests=[{"Driver": "nvidia", "Count": 1, "Capabilities": [[]]}]), 1, ()),
    (body(DeviceRequests=[{"DeviceIDs": ["0,1"]}]), None, ("0", "1")),
    (body(DeviceRequests=[{"DeviceIDs": ["all"]}]), 1, ()),
    (body(DeviceRequests=[{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=0:1"]}]), None, ("0:1",)),
    (body(DeviceRequests=[{"DeviceIDs": [UUID]}, {"DeviceIDs": ["0"]}]), None, ("0", UUID)),
    (body(Runtime="nvidia"), 1, ()),
    (body(["NVIDIA_VISIBLE_DEVICES=all"], Runtime="nvidia"), 1, ()),
    (body(["NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES=1"], Runtime="nvidia"), None, ("1",)),
    (body(Devices=[{"PathOnHost": "/dev/nvidia1"}, {"PathOnHost": "/dev/nvidiactl"}]), None, ("1",)),
]


@pytest.mark.parametrize(("asked", "count", "ids"), WISHES)
def test_each_spelling_is_one_wish(asked: dict[str, Any], count: int | None, ids: tuple[str, ...]) -> None:
    """DeviceRequests, the nvidia runtime and device nodes all come to one wish."""
    wish = gpus.read_wish(asked, gpus_default=1)
    assert isinstance(wish, Wish)
    assert (wish.count, wish.device_ids) == (count, ids)


@pytest.mark.parametrize(
    "asked",
    [
        body(),
        body(["NVIDIA_VISIBLE_DEVICES=all"]),
        body(["NVIDIA_VISIBLE_DEVICES=void"], Runtime="nvidia"),
        body(["NVIDIA_VISIBLE_DEVICES"], Runtime="nvidia"),
        body(DeviceRequests=[{"Count": 0, "Capabilities": [["gpu"]]}]),
    ],
)
def test_no_wish(asked: dict[str, Any]) -> None:
    """The variable alone asks for nothing, and neither does a count of nothing."""
    assert gpus.read_wish(asked, gpus_default=1) is None


@pytest.mark.parametrize(
    "request_",
    [
        {"Count": -2},
        {"Count": 1, "DeviceIDs": ["0"]},
        {"DeviceIDs": ["0000:01:00.0"]},
        {"DeviceIDs": ["GPU-../../x"]},
        {"Count": 1, "Capabilities": [["tpu"]]},
        {"Count": 1, "Options": {"a": "b"}},
        {"Count": 1, "Driver": "nvidia.cdi"},
    ],
)
def test_unreadable_wishes_are_refused(request_: dict[str, Any]) -> None:
    """What cannot be granted exactly as asked is refused rather than guessed."""
    assert isinstance(gpus.read_wish(body(DeviceRequests=[request_]), gpus_default=1), Reason)


def test_devices_that_the_shell_left_unquoted_are_told_how_to_quote() -> None:
    """The docker CLI makes of `--gpus device=0,1` one GPU and the device 0: nobody meant that."""
    reason = gpus.read_wish(body(DeviceRequests=[{"Count": 1, "DeviceIDs": ["0"]}]), gpus_default=1)
    assert isinstance(reason, Reason)
    assert reason.text() == (
        "HostConfig.DeviceRequests.Count=1 is not permitted, limit is a number of GPUs or names of devices, not both"
        """ (rule gpu); for several devices quote twice: --gpus '"device=0,1"'"""
    )


@pytest.mark.parametrize("path", ["hook", "cdi"])
def test_a_grant_is_recognised_and_nothing_else_is(path: str) -> None:
    """A granted body names exactly its devices; any change of it is no grant."""
    engine = replace(ENGINE, gpu_path=path)
    dirty = body(["A=1", "NVIDIA_VISIBLE_DEVICES", "NVIDIA_IMEX_CHANNELS=0", "DOCKER_RESOURCE_GPU=all"])
    granted = gpus.granted(dirty, GPUS[:2], engine=engine)
    assert gpus.granted_devices(granted) == GPUS[:2]
    assert gpus.granted_devices({**granted, "Env": [*granted["Env"], "NVIDIA_VISIBLE_DEVICES=all"]}) is None  # type: ignore[misc]  # a list
    host: Any = granted["HostConfig"]
    assert gpus.granted_devices({**granted, "HostConfig": {**host, "Runtime": "nvidia"}}) is None
    for change in ({"Count": -1}, {"Options": {"x": "y"}}, {"DeviceIDs": ["all"]}, {"Driver": ""}):
        changed = {**host, "DeviceRequests": [{**host["DeviceRequests"][0], **change}]}
        assert gpus.granted_devices({**granted, "HostConfig": changed}) is None


def test_ungranted_is_void_exactly_once() -> None:
    """Without a grant the variable is there once and says void, whatever was sent."""
    void = "NVIDIA_VISIBLE_DEVICES=void"
    assert gpus.is_ungranted(body(["B=2", void], Runtime="runc"))
    for env in ([], [void, void], ["NVIDIA_VISIBLE_DEVICES=all", void], ["NVIDIA_VISIBLE_DEVICES", void]):
        assert not gpus.is_ungranted(body(env, Runtime="runc"))
    assert not gpus.is_ungranted(body(["NVIDIA_VISIBLE_DEVICES=void"]))


@pytest.mark.parametrize(("path", "visible"), [("hook", UUID), ("cdi", "void")])
def test_a_grant_brings_no_imex_channel_of_the_image(path: str, visible: str) -> None:
    """What a request does not set comes from the image: a grant sets it, and without that it is no grant."""
    granted = gpus.granted(body(["A=1"]), GPUS[:1], engine=replace(ENGINE, gpu_path=path))
    assert granted["Env"] == ["A=1", "NVIDIA_IMEX_CHANNELS=void", f"NVIDIA_VISIBLE_DEVICES={visible}"]
    assert gpus.granted_devices(granted) == GPUS[:1]
    bare: dict[str, Any] = {**granted, "Env": ["A=1", f"NVIDIA_VISIBLE_DEVICES={visible}"]}
    assert gpus.granted_devices(bare) is None
