"""Create bodies that are nearly right: valid ones, changed at random in the ways in which two readers of JSON part.

Everything comes from one `random.Random`, so a seed gives the same bodies again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from random import Random
from typing import Any

GPU = [{"Count": 1, "Capabilities": [["gpu"]]}]
_HOST: dict[str, tuple[Any, ...]] = {
    "Memory": (64 << 20, 1 << 30, 0, 1 << 50),
    "MemorySwap": (128 << 20, -1, 0),
    "MemoryReservation": (32 << 20,),
    "MemorySwappiness": (0, 10),
    "NanoCpus": (10**9, 0),
    "CpuShares": (512,),
    "CpuQuota": (50_000, -1, 10**9),
    "CpuPeriod": (100_000, 50_000),
    "PidsLimit": (100, 0, -1, 10**9),
    "ShmSize": (1 << 20, 1 << 40),
    "Binds": (["<home>/fuzz:/data"], ["<home>/fuzz:/data:ro"], ["fuzzvol:/vol"], []),
    "Mounts": (
        [{"Type": "volume", "Source": "fuzzvol", "Target": "/vol"}],
        [{"Type": "tmpfs", "Target": "/scratch", "TmpfsOptions": {"SizeBytes": 1 << 20}}],
        [{"Type": "bind", "Source": "<home>/fuzz", "Target": "/data", "ReadOnly": True}],
        [],
    ),
    "Tmpfs": ({"/t": "size=1m"}, {"/t": ""}),
    "CapAdd": (["CHOWN"], ["CAP_KILL", "SETUID"], []),
    "CapDrop": (["NET_RAW"], ["ALL"]),
    "SecurityOpt": (["no-new-privileges"], ["seccomp=unconfined"]),
    "NetworkMode": ("none", "bridge", "default", ""),
    "RestartPolicy": ({"Name": "no"}, {"Name": "always"}, {"Name": "on-failure", "MaximumRetryCount": 3}),
    "LogConfig": ({"Type": "json-file", "Config": {"max-size": "1m"}}, {"Type": "none"}, {"Type": ""}),
    "Ulimits": ([{"Name": "nofile", "Soft": 1024, "Hard": 2048}], [{"Name": "core", "Soft": 0, "Hard": 0}]),
    "OomScoreAdj": (100,),
    "Init": (True, False),
    "ReadonlyRootfs": (True,),
    "Dns": (["10.0.0.1"],),
    "ExtraHosts": (["x:10.0.0.1"],),
    "PortBindings": ({"80/tcp": [{"HostPort": "0"}]}, {"81/udp": [{"HostIp": "127.0.0.1", "HostPort": ""}]}),
    "IpcMode": ("private", "shareable", "host", "none"),
    "PidMode": ("", "container:mine"),
    "VolumesFrom": (["mine"], ["mine:ro"]),
    "CgroupnsMode": ("private", "host"),
    "CgroupParent": ("/elsewhere", ""),
    "Sysctls": ({"net.core.somaxconn": "128"},),
    "Runtime": ("runc", "nvidia", ""),
    "DeviceRequests": (GPU, []),
    "Devices": ([{"PathOnHost": "/dev/nvidia0", "PathInContainer": "/dev/nvidia0"}], []),
    "MaskedPaths": ([], None),
    "ReadonlyPaths": ([], None),
    "GroupAdd": (["users"],),
    "ConsoleSize": ([24, 80],),
    "AutoRemove": (False,),
    "Privileged": (False,),
}
_CONFIG: dict[str, tuple[Any, ...]] = {
    "Cmd": (["true"], "true", ["sh", "-c", "id"]),
    "Entrypoint": (["/bin/sh"], None),
    "Env": (["A=1"], ["NVIDIA_VISIBLE_DEVICES=all"], ["A", "B=2", "NVIDIA_IMEX_CHANNELS=0"]),
    "Labels": ({"a": "b"}, {"ds01.owner": "root"}, {"ds01.uid": "0", "x": ""}),
    "User": ("1000:1000", "root"),
    "WorkingDir": ("/tmp",),
    "Tty": (True,),
    "OpenStdin": (True,),
    "ExposedPorts": ({"80/tcp": {}},),
    "Volumes": ({"/anon": {}},),
    "Hostname": ("host",),
    "Domainname": ("example.org",),
    "StopSignal": ("SIGINT",),
    "StopTimeout": (5, 0, 10**6),
    "Healthcheck": ({"Test": ["CMD", "true"], "Interval": 1_000_000}, {"Test": ["NONE"]}),
    "NetworkDisabled": (False,),
}
# What nobody gets. Where it stands in a body that is accepted, it must have been taken out.
HOSTILE: tuple[tuple[str, str, Any], ...] = (
    ("HostConfig", "Privileged", True),
    ("HostConfig", "CapAdd", ["SYS_ADMIN"]),
    ("HostConfig", "PidMode", "host"),
    ("HostConfig", "IpcMode", "container:bobc"),
    ("HostConfig", "NetworkMode", "host"),
    ("HostConfig", "UTSMode", "host"),
    ("HostConfig", "UsernsMode", "host"),
    ("HostConfig", "Binds", ["/:/host"]),
    ("HostConfig", "Binds", ["bobv:/x"]),
    ("HostConfig", "Mounts", [{"Type": "bind", "Source": "/etc", "Target": "/x"}]),
    ("HostConfig", "VolumesFrom", ["bobc"]),
    ("HostConfig", "Devices", [{"PathOnHost": "/dev/mem", "PathInContainer": "/d"}]),
    ("HostConfig", "DeviceCgroupRules", ["a *:* rwm"]),
    ("HostConfig", "DeviceRequests", [{"Driver": "nvidia", "Count": 0, "Capabilities": [[]]}]),
    ("HostConfig", "SecurityOpt", ["apparmor=x"]),
    ("HostConfig", "Sysctls", {"kernel.core_pattern": "|/x"}),
    ("HostConfig", "Runtime", "io.containerd.runc.v2"),
    ("HostConfig", "Annotations", {"cdi.k8s.io/x": "nvidia.com/gpu=all"}),
    ("HostConfig", "LogConfig", {"Type": "syslog"}),
    ("HostConfig", "GroupAdd", ["0"]),
    ("HostConfig", "Links", ["bobc:x"]),
    ("HostConfig", "OomKillDisable", True),
    ("HostConfig", "CpuRealtimeRuntime", 1000),
    ("HostConfig", "StorageOpt", {"x": "y"}),
    ("HostConfig", "PublishAllPorts", True),
    ("", "MacAddress", "02:42:ac:11:00:99"),
    ("", "NetworkingConfig", {"EndpointsConfig": {"bobn": {}}}),
    ("", "Volumes", {"/proc": {}}),
)
_ODD: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1.5,
    1e300,
    2**63,
    -(2**63),
    "",
    "x",
    "0",
    [],
    {},
    [None],
    {"a": None},
    [[]],
)


class Members(list[tuple[str, Any]]):
    """A JSON object as it is written: a key may stand in it twice."""


def bodies(chosen: Random, home: str) -> Iterator[bytes]:
    """Bodies without end. `home` is the attacker's, with a directory `fuzz` in it."""
    while True:
        body = _as_members(_filled(_valid(chosen), home))
        for _ in range(chosen.choice((0, 0, 1, 1, 1, 2, 3))):
            chosen.choice(_MUTATIONS)(chosen, body)
        yield _around(chosen, _written(chosen, body))


def _valid(chosen: Random) -> dict[str, Any]:
    host = {name: chosen.choice(_HOST[name]) for name in chosen.sample(sorted(_HOST), chosen.randrange(1, 7))}
    config = {
        name: chosen.choice(_CONFIG[name]) for name in chosen.sample(sorted(_CONFIG), chosen.randrange(1, 5))
    }
    return {"Image": "busybox", "Cmd": ["true"], **config, "HostConfig": host}


def _filled(value: Any, home: str) -> Any:
    return json.loads(json.dumps(value).replace("<home>", home))


def _as_members(value: Any) -> Any:
    if isinstance(value, dict):
        return Members((key, _as_members(item)) for key, item in value.items())
    return [_as_members(item) for item in value] if isinstance(value, list) else value


def _objects(value: Any) -> list[Members]:
    """Every object in a value, itself first."""
    below = (
        [item for _, item in value]
        if isinstance(value, Members)
        else value
        if isinstance(value, list)
        else []
    )
    found = [value] if isinstance(value, Members) else []
    return found + [one for item in below for one in _objects(item)]


def _an_object(chosen: Random, body: Members) -> Members:
    """One with something in it; the outer ones and HostConfig more often than others."""
    all_ = [one for one in _objects(body) if one]
    return chosen.choice([body, body, *all_]) if body else body


def _host(body: Members) -> Members:
    found = next((value for key, value in body if key == "HostConfig" and isinstance(value, Members)), None)
    if found is None:
        found = Members()
        body.append(("HostConfig", found))
    return found


# --- the ways in which readers part ----------------------------------------------------------------------


def _respell(chosen: Random, body: Members) -> None:
    """A key in another case, or by letters that fold to its own."""
    one = _an_object(chosen, body)
    at = chosen.randrange(len(one))
    key, value = one[at]
    folded = key.replace("s", "\u017f", 1) if "s" in key else key.replace("k", "\u212a", 1)
    spelled = chosen.choice((key.lower(), key.upper(), key.swapcase(), folded, f" {key}", f"{key}\0"))
    if chosen.random() < 0.5:
        one[at] = (spelled, value)
    else:
        one.insert(chosen.randrange(len(one) + 1), (spelled, chosen.choice((value, None, True))))


def _double(chosen: Random, body: Members) -> None:
    """A key twice, with its own value, another's or null."""
    one = _an_object(chosen, body)
    key, value = chosen.choice(one)
    one.insert(
        chosen.randrange(len(one) + 1), (key, chosen.choice((value, None, chosen.choice(_ODD), Members())))
    )


def _odd(chosen: Random, body: Members) -> None:
    """A value of another type, or at the end of its range."""
    one = _an_object(chosen, body)
    at = chosen.randrange(len(one))
    one[at] = (one[at][0], _as_members(chosen.choice(_ODD)))


def _nothing(chosen: Random, body: Members) -> None:
    one = _an_object(chosen, body)
    at = chosen.randrange(len(one))
    one[at] = (one[at][0], None)


def _unknown(chosen: Random, body: Members) -> None:
    """A field that nobody knows, with and without a value."""
    one = _an_object(chosen, body)
    name = chosen.choice(("Superuser", "X", "Privilege", "HostConfigs", "Bind", "", "$ref"))
    one.append((name, _as_members(chosen.choice(_ODD))))


def _top_level(chosen: Random, body: Members) -> None:
    """A field of HostConfig beside it, and sometimes none below it."""
    place, name, value = chosen.choice(HOSTILE)
    body.insert(chosen.randrange(len(body) + 1), (name if place else "Memory", _as_members(value)))
    if chosen.random() < 0.5:
        body[:] = [(key, item) for key, item in body if key != "HostConfig"]


def _hostile(chosen: Random, body: Members) -> None:
    """Something that nobody gets, in its place."""
    place, name, value = chosen.choice(HOSTILE)
    (_host(body) if place else body).append((name, _as_members(value)))


def _split(chosen: Random, body: Members) -> None:
    """HostConfig twice: dockerd would merge the two."""
    host = _host(body)
    cut = chosen.randrange(len(host) + 1)
    second = Members(host[cut:])
    del host[cut:]
    body.insert(chosen.randrange(len(body) + 1), ("HostConfig", second))


def _deeper(chosen: Random, body: Members) -> None:
    """A value a few dozen levels further down."""
    one = _an_object(chosen, body)
    at = chosen.randrange(len(one))
    value = one[at][1]
    for _ in range(chosen.choice((1, 2, 29, 31, 40))):
        value = [value] if chosen.random() < 0.5 else Members([("a", value)])
    one[at] = (one[at][0], value)


def _gone(chosen: Random, body: Members) -> None:
    one = _an_object(chosen, body)
    del one[chosen.randrange(len(one))]


_MUTATIONS: tuple[Callable[[Random, Members], None], ...] = (
    _respell,
    _double,
    _odd,
    _nothing,
    _unknown,
    _top_level,
    _hostile,
    _hostile,
    _split,
    _deeper,
    _gone,
)


# --- as text ---------------------------------------------------------------------------------------------


def _written(chosen: Random, value: Any) -> str:
    if isinstance(value, Members):
        return "{" + ",".join(f"{_text(chosen, key)}:{_written(chosen, item)}" for key, item in value) + "}"
    if isinstance(value, list):
        return "[" + ",".join(_written(chosen, item) for item in value) + "]"
    if isinstance(value, str):
        return _text(chosen, value)
    if isinstance(value, int) and not isinstance(value, bool) and chosen.random() < 0.02:
        return chosen.choice((f"{value}.0", f"{value}e0", f"-{value}", f"0{value}", f'"{value}"'))
    return json.dumps(value)


def _text(chosen: Random, text: str) -> str:
    """Mostly plain; now and then with an escape that every reader undoes, or one that they do not agree on."""
    odds = chosen.random()
    if text and odds < 0.04:
        at = chosen.randrange(len(text))
        return (
            json.dumps(text[:at])[:-1] + f"\\u{ord(text[at]) & 0xFFFF:04x}" + json.dumps(text[at + 1 :])[1:]
        )
    if odds < 0.005:
        return json.dumps(text)[:-1] + chosen.choice(("\\ud800", "\\u0000", "\\x", "\t", '\\"')) + '"'
    return json.dumps(text, ensure_ascii=odds < 0.5)


def _around(chosen: Random, text: str) -> bytes:
    """Rarely something before or behind the document."""
    data = text.encode("utf-8", "surrogatepass")
    if chosen.random() > 0.03:
        return data
    return chosen.choice(
        (
            b"\xef\xbb\xbf" + data,
            data + b"{}",
            data + b" \n",
            data + b"x",
            data[:-1],
            b"\n" + data,
            data + b"\xff",
        )
    )
