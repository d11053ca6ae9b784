"""What of an inspect is passed on: what tells of GPUs and of an owner, and no secret."""

from __future__ import annotations

from typing import Any

import pytest

from policy.foreign import excerpt

INSPECT: dict[str, Any] = {
    "Id": "a" * 64,
    "Config": {
        "Env": [
            "PASSWORD=secret",
            "NVIDIA_VISIBLE_DEVICES=0,1",
            "CUDA_VERSION=12.1",
            "NVIDIA_REQUIRE_CUDA=cuda>=12.1 brand=tesla",
            "DOCKER_RESOURCE_GPU=secret",
        ],
        "Labels": {"aime.mlc": "alice", "token": "secret", "ds01.seal": "v1.x"},
        "Cmd": ["--password", "secret"],
    },
    "HostConfig": {"Runtime": "nvidia", "Privileged": False, "Devices": None, "Binds": ["/secret:/x"]},
    "Mounts": [
        {"Type": "bind", "Source": "/data", "Destination": "/secret", "Mode": "secret"},
        {"Type": "volume", "Name": "secret", "Source": "/secret", "Destination": "/secret"},
        {"Type": "volume", "Source": "/secret", "Destination": "/var/run/nvidia-container-devices/0"},
    ],
}


def test_only_what_tells_something_is_taken() -> None:
    """Values where they count, names where they do."""
    assert excerpt(INSPECT) == {
        "Config": {
            "Env": [
                "NVIDIA_VISIBLE_DEVICES=0,1",
                "CUDA_VERSION",
                "NVIDIA_REQUIRE_CUDA",
                "DOCKER_RESOURCE_GPU",
            ],
            "Labels": {"aime.mlc": "alice", "ds01.seal": "v1.x"},
        },
        "HostConfig": {"Runtime": "nvidia"},
        "Mounts": [
            {"Type": "bind", "Source": "/data"},
            {"Destination": "/var/run/nvidia-container-devices/0"},
        ],
    }


NODES = ["/var/run/nvidia-container-devices/0"]


@pytest.mark.parametrize(
    ("host", "counts"),
    [
        pytest.param({"Runtime": "ds01"}, False, id="a-step-of-a-build"),
        pytest.param({"Runtime": "runc"}, False, id="plain"),
        pytest.param({"Runtime": "nvidia"}, True, id="nvidias-runtime"),
        pytest.param({"Runtime": "ds01", "DeviceRequests": [{"Driver": "", "Count": -1}]}, True, id="hook"),
        pytest.param({"Runtime": "runc", "DeviceRequests": [{"Driver": "cdi"}]}, False, id="cdi"),
        pytest.param({}, True, id="nobody-says-which-runtime"),
    ],
)
def test_environment_and_mounts_are_told_where_something_reads_them(
    host: dict[str, Any], *, counts: bool
) -> None:
    """Elsewhere they give nothing, and whoever wrote a Dockerfile chooses how long they are."""
    found: Any = excerpt(INSPECT | {"HostConfig": host})
    assert ("Env" in found["Config"]) is counts
    assert [each["Destination"] for each in found["Mounts"] if "Destination" in each] == NODES * counts


@pytest.mark.parametrize(
    ("label", "most"),
    [("aime.mlc", 64), ("ds01.user", 64), ("devcontainer.local_folder", 1024), ("ds01.seal", 256)],
)
def test_a_label_that_is_too_long_tells_nothing(label: str, most: int) -> None:
    """No user has such a name and no seal is so long."""
    for length in (most, most + 1):
        found: Any = excerpt({"Config": {"Labels": {label: "x" * length}}})
        assert ("Labels" in found["Config"]) is (length == most)


def test_an_empty_inspect_has_its_three_parts() -> None:
    """Absent is empty, as dockerd has it."""
    assert excerpt({}) == {"Config": {}, "HostConfig": {}, "Mounts": []}


@pytest.mark.parametrize(
    "wrong", [{"Config": []}, {"HostConfig": "x"}, {"Mounts": {}}, {"Config": {"Env": [1]}}, {"Mounts": [1]}]
)
def test_another_shape_is_refused(wrong: dict[str, Any]) -> None:
    """The caller counts it as unknown."""
    with pytest.raises(TypeError):
        excerpt(wrong)
