"""A line of the docker CLI as the request that it sends: as much of the CLI as the pages under docs/rules use.

Not a stand-in for the CLI, which the integration tests run: only a way to ask the rules about a line of a page.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, urlencode

Body = dict[str, Any]
Call = tuple[str, str, Body | None]  # method, target without version, body


def call_of(line: str) -> Call | None:
    """The call that a line makes; None if it is no such line."""
    words = shlex.split(line, comments=True)
    while words and "=" in words[0]:
        words.pop(0)  # settings of the environment
    if words and words[0] in {"GET", "POST", "PUT", "DELETE", "HEAD"}:
        method, target, *_ = line.split()
        body = line.partition(target)[2].strip()
        return method, target.removeprefix("/v1.41"), json.loads(body) if body else None
    if not words or words.pop(0) != "docker":
        return None
    group = " ".join(words[:2])
    if group in _GROUPS:
        return _GROUPS[group](words[2:])
    return _VERBS[words[0]](words[1:]) if words and words[0] in _VERBS else None


# --- docker run --------------------------------------------------------------------------------------


def _append(*path: str) -> Callable[[Body, str], None]:
    def put(body: Body, value: str) -> None:
        _at(body, path).setdefault(path[-1], []).append(value)

    return put


def _set(*path: str, read: Callable[[str], Any] = str) -> Callable[[Body, str], None]:
    def put(body: Body, value: str) -> None:
        _at(body, path)[path[-1]] = read(value)

    return put


def _pair(*path: str, read: Callable[[str], Any] = str) -> Callable[[Body, str], None]:
    def put(body: Body, value: str) -> None:
        key, _, rest = value.partition("=")
        _at(body, path).setdefault(path[-1], {})[key] = read(rest)

    return put


def _at(body: Body, path: tuple[str, ...]) -> Body:
    for key in path[:-1]:
        body = body.setdefault(key, {})
    return body


def _publish(body: Body, value: str) -> None:
    *address, host, port = value.split(":")
    binding = {"HostIp": "".join(address), "HostPort": host}
    _at(body, ("HostConfig", "PortBindings", ""))[f"{port}/tcp"] = [binding]


def _gpus(body: Body, value: str) -> None:
    count = -1 if value == "all" else int(value)
    _append("HostConfig", "DeviceRequests")(body, {"Count": count, "Capabilities": [["gpu"]]})  # type: ignore[arg-type]  # any JSON


def _device(body: Body, value: str) -> None:
    _append("HostConfig", "Devices")(body, {"PathOnHost": value, "PathInContainer": value})  # type: ignore[arg-type]  # any JSON


def _ulimit(body: Body, value: str) -> None:
    name, _, number = value.partition("=")
    limit = {"Name": name, "Soft": int(number), "Hard": int(number)}
    _append("HostConfig", "Ulimits")(body, limit)  # type: ignore[arg-type]  # any JSON


def _bytes(text: str) -> int:
    return int(text.rstrip("kmgt")) * 1024 ** " kmgt".find(text[-1]) if text[-1] in "kmgt" else int(text)


def _name(body: Body, value: str) -> None:
    body["?name"] = value


_FLAGS: dict[str, Callable[[Body, str], None]] = {
    "--cap-add": _append("HostConfig", "CapAdd"),
    "--cgroup-parent": _set("HostConfig", "CgroupParent"),
    "--device": _device,
    "--gpus": _gpus,
    "--group-add": _append("HostConfig", "GroupAdd"),
    "--health-interval": _set("Healthcheck", "Interval", read=lambda text: int(text[:-1]) * 10**9),
    "--ipc": _set("HostConfig", "IpcMode"),
    "--label": _pair("Labels"),
    "--label-file": lambda body, _: body.setdefault("Labels", {}).update({f"l{n}": "x" for n in range(257)}),
    "--log-driver": _set("HostConfig", "LogConfig", "Type"),
    "--log-opt": _pair("HostConfig", "LogConfig", "Config"),
    "--memory": _set("HostConfig", "Memory", read=_bytes),
    "--name": _name,
    "--network": _set("HostConfig", "NetworkMode"),
    "--pid": _set("HostConfig", "PidMode"),
    "--restart": _set("HostConfig", "RestartPolicy", "Name"),
    "--runtime": _set("HostConfig", "Runtime"),
    "--security-opt": _append("HostConfig", "SecurityOpt"),
    "--storage-opt": _pair("HostConfig", "StorageOpt"),
    "--sysctl": _pair("HostConfig", "Sysctls"),
    "--ulimit": _ulimit,
    "-p": _publish,
    "-v": _append("HostConfig", "Binds"),
}
_SWITCHES = {"--privileged": "Privileged", "--oom-kill-disable": "OomKillDisable"}


def _run(words: list[str]) -> Call:
    body: Body = {"HostConfig": {}}
    while words and words[0].startswith("-"):
        flag = words.pop(0)
        if flag in _SWITCHES:
            body["HostConfig"][_SWITCHES[flag]] = True
        else:
            _FLAGS[flag](body, words.pop(0).replace("$HOME", "/home/alice"))
    body["Image"] = {"IMAGE": "busybox"}.get(words[0], words[0])
    ports = body["HostConfig"].get("PortBindings")
    if ports is not None:
        ports.pop("", None)
    name = body.pop("?name", None)
    return "POST", f"/containers/create{'?name=' + name if name else ''}", body


# --- other verbs -----------------------------------------------------------------------------------------


def _volume(words: list[str]) -> Call:
    options = dict(word.split("=", 1) for word in words if "=" in word)
    return "POST", "/volumes/create", {"Name": words[-1], "DriverOpts": options}


def _network(words: list[str]) -> Call:
    body: Body = {"Name": words[-1]}
    while len(words) > 1:
        flag, value = words[:2]
        words = words[2:]
        match flag:
            case "-d":
                body["Driver"] = value
            case "--subnet":
                body["IPAM"] = {"Config": [{"Subnet": value}]}
    return "POST", "/networks/create", body


_GROUPS: dict[str, Callable[[list[str]], Call]] = {
    "swarm init": lambda _: ("POST", "/swarm/init", {}),
    "volume create": _volume,
    "network create": _network,
}
_VERBS: dict[str, Callable[[list[str]], Call]] = {
    "run": _run,
    "ps": lambda _: ("GET", "/containers/json", None),
    "rmi": lambda words: ("DELETE", f"/images/{words[0]}", None),
    "pull": lambda words: ("POST", f"/images/create?{urlencode({'fromImage': words[0]})}", None),
    "tag": lambda words: ("POST", f"/images/{words[0]}/tag?{urlencode({'repo': words[1]})}", None),
    "import": lambda words: ("POST", f"/images/create?fromSrc={quote(words[0], safe='')}", None),
    "commit": lambda words: (
        "POST",
        f"/commit?{urlencode({'container': words[0], 'repo': words[1]})}",
        {},
    ),
    "top": lambda words: ("GET", f"/containers/{words[0]}/top?ps_args={quote(' '.join(words[1:]))}", None),
    "build": lambda words: (
        "POST",
        f"/build?{urlencode({'remote': words[-1]})}" if "://" in words[-1] else "/build",
        None,
    ),
}
