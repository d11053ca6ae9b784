"""The engine's own answers: bounded versions, the user's counts, nobody else's activity."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.responses import (
    Counts,
    UnreadableAnswer,
    cap_api_version,
    disk_usage,
    info,
    ping_headers,
    version,
)
from policy.model import Uid
from policy.names import ViewerNames
from tests.fakes.visibility import SetVisibility

ALICES = ViewerNames(Uid(1001))
OWN, OTHER = "a" * 64, "b" * 64
COUNTS = Counts(running=1, paused=2, stopped=3, images=4)
SEES = SetVisibility(
    containers=frozenset({OWN}), volumes=frozenset({"data"}), images=frozenset({"sha256:1", "busybox:latest"})
)


@pytest.mark.parametrize(
    ("said", "shown"), [("1.41", "1.41"), ("1.51", "1.51"), ("1.55", "1.51"), ("2.0", "1.51")]
)
def test_api_version_is_capped(said: str, shown: str) -> None:
    """A client never negotiates a version that ds01 does not read; versions compare as numbers."""
    assert cap_api_version(said) == shown


@pytest.mark.parametrize("said", ["", "1", "1.x", "-1.41", "1.41.0", "1.²", "1.99999999999"])
def test_no_api_version_is_refused(said: str) -> None:
    """Something else in the version's place is never passed on."""
    with pytest.raises(UnreadableAnswer):
        cap_api_version(said)


def test_ping_keeps_only_what_clients_need() -> None:
    """Api-Version is capped, the classic builder asked for, Server and unknown headers dropped."""
    headers = [
        ("Api-Version", "1.55"),
        ("Builder-Version", "2"),
        ("Cache-Control", "no-cache"),
        ("Docker-Experimental", "false"),
        ("Ostype", "linux"),
        ("Pragma", "no-cache"),
        ("Server", "Docker/29"),
        ("Swarm", "active/manager"),
        ("X-New", "1"),
    ]
    assert ping_headers(headers) == (
        ("api-version", "1.51"),
        ("cache-control", "no-cache"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        ("pragma", "no-cache"),
        ("swarm", "inactive"),
        ("builder-version", "1"),
    )


def test_ping_can_leave_the_builder_to_the_engine() -> None:
    """Where policy permits BuildKit, the engine's word on the builder is passed."""
    assert ping_headers([("Builder-Version", "2")], builder_version=None) == (("builder-version", "2"),)


def test_version_is_bounded_everywhere() -> None:
    """Both copies of the versions are bounded, the rest is kept."""
    details = {"ApiVersion": "1.55", "MinAPIVersion": "1.12", "Os": "linux"}
    said = {"Components": [{"Name": "Engine", "Details": details}, {"Name": "runc"}], "ApiVersion": "1.55"}
    shown = json.loads(version(json.dumps(said | {"MinAPIVersion": "1.12", "Os": "linux"}).encode()))
    bounded = {"ApiVersion": "1.51", "MinAPIVersion": "1.24", "Os": "linux"}
    assert shown == {"Components": [{"Name": "Engine", "Details": bounded}, {"Name": "runc"}], **bounded}


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"ApiVersion":1.41}', b'{"ApiVersion":"x"}'])
def test_unreadable_version_is_refused(body: bytes) -> None:
    """An answer without versions is never passed on."""
    with pytest.raises(UnreadableAnswer):
        version(body)


def test_info_counts_own_objects_and_hides_the_rest() -> None:
    """Counts are the user's; swarm, labels, plugins of ours, containerd, NRI and activity are not shown."""
    said = {
        "ID": "X",
        "Containers": 90,
        "ContainersRunning": 80,
        "ContainersPaused": 7,
        "ContainersStopped": 3,
        "Images": 55,
        "Plugins": {"Volume": ["local"], "Authorization": ["ds01"]},
        "NFd": 900,
        "NGoroutines": 800,
        "NEventsListener": 30,
        "Runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}},
        "Swarm": {"NodeID": "secret", "LocalNodeState": "active", "RemoteManagers": [{"Addr": "10.0.0.1"}]},
        "Labels": ["secret=1"],
        "NRI": {"Info": []},
        "Containerd": {"Address": "/run/containerd/containerd.sock"},
        "NewField": 1,
        "SecurityOptions": ["name=seccomp"],
        "ServerVersion": "29",
    }
    shown = json.loads(info(json.dumps(said).encode(), COUNTS))
    assert shown == {
        "ID": "X",
        "Containers": 6,
        "ContainersRunning": 1,
        "ContainersPaused": 2,
        "ContainersStopped": 3,
        "Images": 4,
        "Plugins": {"Volume": ["local"], "Authorization": None},
        "NFd": 0,
        "NGoroutines": 0,
        "NEventsListener": 0,
        "Runtimes": {"nvidia": {"path": "/usr/bin/nvidia-container-runtime"}},
        "Swarm": {
            "NodeID": "",
            "NodeAddr": "",
            "LocalNodeState": "inactive",
            "ControlAvailable": False,
            "Error": "",
            "RemoteManagers": None,
        },
        "Labels": [],
        "SecurityOptions": ["name=seccomp"],
        "ServerVersion": "29",
    }


def test_unreadable_info_is_refused() -> None:
    """An answer that is not the engine's info is never passed on."""
    with pytest.raises(UnreadableAnswer):
        info(b'{"message":"x"}', COUNTS)


def disk() -> dict[str, object]:
    return {
        "LayersSize": 9999,
        "Images": [
            {"Id": "sha256:1", "RepoTags": ["busybox:latest"], "Containers": 5, "Size": 30},
            {"Id": "sha256:2", "RepoTags": ["bob/secret:1"], "Containers": 1, "Size": 400},
        ],
        "Containers": [
            {"Id": OWN, "Names": ["/web"], "ImageID": "sha256:1"},
            {"Id": OTHER, "Names": ["/secret"], "ImageID": "sha256:1"},
        ],
        "Volumes": [{"Name": "data", "UsageData": {"Size": 1}}, {"Name": "secret"}],
        "BuildCache": [{"ID": "secret", "Size": 77}],
        "BuilderSize": 77,
        "Later": ["secret"],
    }


def test_disk_usage_shows_own_objects_and_totals() -> None:
    """Lists are filtered, the image's users counted anew, the total is of the images shown, no build cache."""
    assert json.loads(disk_usage(json.dumps(disk()).encode(), SEES)) == {
        "LayersSize": 30,
        "Images": [{"Id": "sha256:1", "RepoTags": ["busybox:latest"], "Containers": 1, "Size": 30}],
        "Containers": [{"Id": OWN, "Names": ["/web"], "ImageID": "sha256:1"}],
        "Volumes": [{"Name": "data", "UsageData": {"Size": 1}}],
        "BuildCache": [],
        "BuilderSize": 0,
    }


def test_disk_usage_shows_own_cache_mounts() -> None:
    """What is known to be the user's, and its size; a name that only looks so is another's."""
    own = {"ID": "a", "Type": "exec.cachemount", "Size": 5, "Description": 'RUN x with id "ds01-1001/c"'}
    cache = [
        own,
        own | {"ID": "b", "Description": 'RUN x with id "ds01-1002/c"'},
        own | {"ID": "c", "Description": 'RUN with id "ds01-1001/c" with id "ds01-1002/c"'},
        own | {"ID": "d", "Type": "regular"},
    ]
    body = json.dumps(disk() | {"BuildCache": cache}).encode()
    shown = json.loads(disk_usage(body, SEES, uid=Uid(1001)))
    assert (shown["BuildCache"], shown["BuilderSize"]) == ([own], 5)


def test_disk_usage_of_one_type_leaves_the_others_null() -> None:
    """With `type=volume` the engine fills one list only."""
    said = disk() | {"Images": None, "Containers": None, "BuildCache": None}
    shown = json.loads(disk_usage(json.dumps(said).encode(), SEES))
    assert (shown["Images"], shown["Containers"], shown["BuildCache"]) == (None, None, None)
    assert [volume["Name"] for volume in shown["Volumes"]] == ["data"]


def test_images_without_a_container_list_are_not_counted() -> None:
    """Without the list nobody knows how many use an image, and unknown is not 0."""
    shown = json.loads(disk_usage(json.dumps(disk() | {"Containers": None}).encode(), SEES))
    assert shown["Images"][0]["Containers"] == -1


def test_disk_usage_maps_names() -> None:
    """Names inside dockerd are not shown."""
    sees = SetVisibility(volumes=frozenset({"u1001.data"}))
    assert b"u1001" not in disk_usage(b'{"Volumes":[{"Name":"u1001.data"}]}', sees, names=ALICES)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"Images":{}}', b'{"Images":[{"Size":1}]}'])
def test_unreadable_disk_usage_is_refused(body: bytes) -> None:
    """An answer that is not disk usage is never passed on."""
    with pytest.raises(UnreadableAnswer):
        disk_usage(body, SEES)


@pytest.mark.parametrize(
    ("gpus", "listed", "shown"),
    [
        (
            True,
            {"runc": {"path": "runc"}},
            {"nvidia": {"path": "nvidia-container-runtime"}, "runc": {"path": "runc"}},
        ),
        (True, {"nvidia": {"path": "/own"}}, {"nvidia": {"path": "/own"}}),
        (False, {"runc": {"path": "runc"}}, {"runc": {"path": "runc"}}),
    ],
    ids=["gpus", "the engine has it", "no gpus"],
)
def test_the_nvidia_runtime_is_listed_where_there_are_gpus(
    *,
    gpus: bool,
    listed: dict[str, object],
    shown: dict[str, object],
) -> None:
    """Dev Containers look there before they ask for a GPU; a machine without one does not claim it."""
    said = json.dumps({"ServerVersion": "28", "Runtimes": listed}).encode()
    assert json.loads(info(said, COUNTS, gpus=gpus))["Runtimes"] == shown
