"""Whether a container from before ds01 is one that its owner could have had: the same rules, and nothing that they would change."""

from __future__ import annotations

from typing import Any

import pytest

from policy.adoption import judge, restarts
from policy.dockerapi.bodies import HOST_CONFIG
from policy.model import Actor, CheckBind, Gid, Uid
from tests.fakes.inspects import inspect
from tests.fakes.policy_world import ADMIN, ALICE, BOB, ENGINE, POLICY, policy


def closed(of: dict[str, Any], owner: Actor = ALICE, under: Any = POLICY) -> tuple[str, ...]:
    return judge(under, owner, of, ENGINE).closed


def mounted(**changes: Any) -> dict[str, Any]:
    made = inspect()
    made["Mounts"] = [made["Mounts"][0] | changes]
    return made


def test_a_plain_container_is_open() -> None:
    """Its bind sources are still to be looked at; an anonymous volume and a tmpfs are its own."""
    found = judge(POLICY, ALICE, inspect(), ENGINE)
    assert found.closed == ()
    (bind,) = found.binds
    assert isinstance(bind, CheckBind)
    assert (bind.source, bind.target, bind.read_only, bind.create) == (
        "/home/alice/work",
        "/mnt",
        False,
        False,
    )


HARMLESS: dict[str, dict[str, Any]] = {
    "limits it never had": {"Memory": 0, "PidsLimit": None, "NanoCpus": 10**12, "OomScoreAdj": -500},
    "ports": {"PortBindings": {"22/tcp": [{"HostIp": "", "HostPort": "22"}]}, "PublishAllPorts": True},
    "another's network": {"NetworkMode": "compose_default"},
    "GPUs": {
        "Runtime": "nvidia",
        "DeviceRequests": [
            {"Driver": "", "Count": -1, "DeviceIDs": None, "Capabilities": [["gpu"]], "Options": {}}
        ],
        "Devices": [
            {"PathOnHost": "/dev/nvidia0", "PathInContainer": "/dev/nvidia0", "CgroupPermissions": "rwm"}
        ],
    },
    "a logging driver": {"LogConfig": {"Type": "journald", "Config": {}}},
    "a cgroup of its own": {"CgroupParent": "/old", "CgroupnsMode": "host"},
}


@pytest.mark.parametrize("host", HARMLESS.values(), ids=HARMLESS.keys())
def test_what_gives_no_power_over_others_closes_nothing(host: dict[str, Any]) -> None:
    """The rules would have refused or lowered some of it in a create."""
    assert closed(inspect(**host)) == ()


@pytest.mark.parametrize("name", ["always", "unless-stopped", "on-failure"])
def test_what_comes_back_by_itself_mounts_nothing_of_the_host(name: str) -> None:
    """The paths are looked up anew at each start, by dockerd alone; its owner may have left programs in it that start then."""
    made = inspect(RestartPolicy={"Name": name, "MaximumRetryCount": 0})
    assert any("restart policy" in reason for reason in closed(made))
    assert restarts(made)
    assert not closed(made | {"Mounts": made["Mounts"][1:]})
    assert not restarts(inspect())


POWERFUL: dict[str, tuple[dict[str, Any], str]] = {
    "privileged": ({"Privileged": True}, "Privileged"),
    "nothing masked": ({"MaskedPaths": []}, "MaskedPaths"),
    "nothing masked, as a privileged one has it": ({"MaskedPaths": None}, "MaskedPaths"),
    "less masked": ({"MaskedPaths": ["/proc/acpi", "/proc/keys"]}, "MaskedPaths"),
    "nothing read-only": ({"ReadonlyPaths": None}, "ReadonlyPaths"),
    "a capability": ({"CapAdd": ["SYS_ADMIN"]}, "CapAdd"),
    "all capabilities": ({"CapAdd": ["ALL"]}, "CapAdd"),
    "seccomp": ({"SecurityOpt": ["seccomp=unconfined"]}, "SecurityOpt"),
    "host pids": ({"PidMode": "host"}, "PidMode"),
    "another's pids": ({"PidMode": f"container:{'a' * 64}"}, "joins the container"),
    "host ipc": ({"IpcMode": "host"}, "IpcMode"),
    "another's ipc": ({"IpcMode": f"container:{'a' * 64}"}, "joins the container"),
    "host network": ({"NetworkMode": "host"}, "NetworkMode"),
    "another's network": ({"NetworkMode": f"container:{'a' * 64}"}, "joins the container"),
    "host name": ({"UTSMode": "host"}, "UTSMode"),
    "host users": ({"UsernsMode": "host"}, "UsernsMode"),
    "a disk": (
        {"Devices": [{"PathOnHost": "/dev/sda", "PathInContainer": "/dev/sda", "CgroupPermissions": "rwm"}]},
        "Devices",
    ),
    "all devices": ({"DeviceCgroupRules": ["a *:* rwm"]}, "DeviceCgroupRules"),
    "a group of the host": ({"GroupAdd": ["999"]}, "GroupAdd"),
    "a kernel parameter": ({"Sysctls": {"kernel.shmmax": "1"}}, "Sysctls"),
    "another runtime": ({"Runtime": "io.containerd.kata.v2"}, "Runtime"),
    "annotations": ({"Annotations": {"org.systemd.property.X": "1"}}, "Annotations"),
    "another's volumes": ({"VolumesFrom": ["a" * 64]}, "joins the container"),
    "what no engine has yet": ({"HostDevicesAll": True}, "HostDevicesAll"),
    "another shape": ({"CapAdd": {"SYS_ADMIN": True}}, "cannot read"),
}


@pytest.mark.parametrize(("host", "said"), POWERFUL.values(), ids=POWERFUL.keys())
@pytest.mark.parametrize("handling", ["deny", "drop"])
def test_what_gives_power_closes_it(host: dict[str, Any], said: str, handling: str) -> None:
    """Also where policy lets a create pass with less: the container has it. A new field of an engine is no exception."""
    under = policy(
        "defaults: {role: user, limits: {gpus: 2, containers: 20}, "
        f"allow: {{security_opt: {handling}, ipc_host: {handling}}}}}"
    )
    found = closed(inspect(**host), under=under)
    assert any(said in reason for reason in found), found


MOUNTS: dict[str, tuple[dict[str, Any], str]] = {
    "another's home": ({"Source": "/home/bob/work"}, "/home/bob/work"),
    "the host": ({"Source": "/"}, "Mounts"),
    "the old socket": ({"Source": "/var/run/docker.sock"}, "docker.sock"),
    "a shared mount": ({"Propagation": "rshared"}, "Propagation"),
    "a named volume": ({"Type": "volume", "Name": "vscode", "Driver": "local"}, "vscode"),
    "a volume of a driver": ({"Type": "volume", "Name": "3" * 64, "Driver": "nfs"}, "3333"),
    "a kind that is new": ({"Type": "cluster"}, "cluster"),
    "over /proc": ({"Destination": "/proc/sys"}, "/proc/sys"),
}


@pytest.mark.parametrize(("changes", "said"), MOUNTS.values(), ids=MOUNTS.keys())
def test_what_is_mounted_is_judged_as_it_is_there(changes: dict[str, Any], said: str) -> None:
    """However it came there."""
    found = closed(mounted(**changes))
    assert any(said in reason for reason in found), found


def test_where_policy_lets_a_path_be_read_only_a_writable_mount_closes() -> None:
    """The mount is as it is; a create would have been told to add :ro."""
    assert closed(mounted(Source="/data/sets"))
    assert not closed(mounted(Source="/data/sets", RW=False))


def test_whose_it_is_counts() -> None:
    """Alice's home is hers; who may do nothing, and system accounts, run nothing."""
    assert closed(inspect(), owner=BOB)
    nobody = Actor(uid=Uid(1002), gid=Gid(1002), name="carol", home="/home/carol")
    none = policy("defaults: {role: none}")
    assert closed(mounted(Source="/home/carol/x"), owner=nobody, under=none)
    assert closed(mounted(Source="/home/root2/x"), owner=ADMIN) == ()


def test_every_known_setting_was_thought_of() -> None:
    """A field that this engine's inspect has is known to the reader of creates; an unknown one would close every container."""
    assert inspect()["HostConfig"].keys() <= HOST_CONFIG.fields.keys()
