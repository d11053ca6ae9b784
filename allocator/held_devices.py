"""Which GPUs a container has that ds01 did not grant: every way to one, read from its inspect. Pure.

INVARIANT: what cannot be told counts as everything, so that nothing is leased that somebody may be using.
SOURCE: docs of the NVIDIA container toolkit; dockerd 20.10 to 29, daemon/nvidia_linux.go.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from allocator.model import Device, Snapshot
from policy.fields import as_int, as_list, as_object, as_strings, as_text
from policy.foreign import CUDA_VERSION, DEVICE_MOUNTS, PLAIN_RUNTIMES, REQUIRE_CUDA, is_hooked
from policy.gpus import CDI_KIND, SCRUBBED_PREFIX, VISIBLE, env_value
from policy.model import DeviceUuid, Json
from policy.paths import is_under

_NO_DEVICE = frozenset({"", "void", "none"})
_READABLE = re.compile(r"(GPU|MIG)-[0-9A-Za-z/-]+|[0-9]{1,3}(:[0-9]{1,3})?", re.ASCII)
_NODE = re.compile(r"/dev/nvidia([0-9]{1,3})", re.ASCII)
_NO_GPU_NODES = re.compile(r"/dev/nvidia(ctl|-uvm|-uvm-tools|-modeset)")
_RULE = re.compile(r"([abc])\s+([0-9]+|\*):([0-9]+|\*)(\s+[rwm]+)?")
_MAIN_MAJOR = "195"
_FIRST_OF_NO_GPU = 254  # nvidia-modeset and nvidiactl


@dataclass(frozen=True, slots=True, kw_only=True)
class Held:
    """Devices as a container names them. names: indices and UUIDs; minors: N of /dev/nvidiaN."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    minors: frozenset[int] = frozenset()

    def __or__(self, other: Held) -> Held:
        return Held(
            everything=self.everything or other.everything,
            names=self.names | other.names,
            minors=self.minors | other.minors,
        )

    def __bool__(self) -> bool:
        return self != Held()


_NOTHING = Held()
EVERYTHING = Held(everything=True)


def held(inspect: Mapping[str, Json], *, default_runtime: str = "runc") -> Held:
    """What a container has been given, whether it runs or not.

    Args: default_runtime: what the engine takes where the inspect names none.
    Raises: TypeError: an answer of another shape; the caller counts it as everything.
    """
    # Privileged alone is no wish for a GPU: monitors and builders are, and would take every one. NVML tells when it uses one.
    host = as_object(inspect.get("HostConfig"))
    requests = [as_object(item) for item in as_list(host.get("DeviceRequests"))]
    found = _together(map(_by_request, requests))
    runtime = as_text(host.get("Runtime")) or default_runtime
    if runtime not in PLAIN_RUNTIMES or is_hooked(host):
        found |= _by_environment(inspect, found, unset_means_all=runtime not in PLAIN_RUNTIMES)
        found |= _by_mounts(inspect)
    found |= _together(_by_node(as_object(item)) for item in as_list(host.get("Devices")))
    return found | _together(_by_rule(rule) for rule in as_strings(host.get("DeviceCgroupRules")))


def allowed(devices_list: str) -> Held:
    """What a container's `devices.list` (cgroup v1) lets it open. On v2 nothing can be read: it is a program."""
    return _together(_by_rule(line) for line in devices_list.splitlines())


def devices_of(what: Held, snapshot: Snapshot, *, minors: Mapping[int, DeviceUuid]) -> frozenset[DeviceUuid]:
    """The devices there are now that it comes to, each GPU with its MIG devices.

    Args: minors: the GPU behind each N of /dev/nvidiaN; one that is missing makes it everything.
    """
    if what.everything or not what.minors <= minors.keys():
        return frozenset(snapshot.devices)
    wanted = {name.casefold() for name in what.names}
    named = {uuid for uuid, device in snapshot.devices.items() if _is_named(device, wanted)}
    named |= {minors[minor] for minor in what.minors}
    parts = {uuid for uuid, device in snapshot.devices.items() if device.parent in named}
    return frozenset((named | parts) & snapshot.devices.keys())


def _is_named(device: Device, wanted: Collection[str]) -> bool:
    """By index, by UUID or its beginning, or in the MIG form of drivers before 470; `wanted` is folded.

    SOURCE: libnvidia-container takes the beginning of a UUID for the whole.
    """
    if device.index in wanted:
        return True
    uuid = device.uuid.casefold()
    old = f"mig-{device.parent}/{device.gpu_instance_id}/{device.compute_instance_id}"
    return any(
        uuid.startswith(name) or ("/" in name and old.casefold() == name)
        for name in wanted
        if name.startswith(("gpu-", "mig-"))
    )


def _together(parts: Iterable[Held]) -> Held:
    found = _NOTHING
    for part in parts:
        found |= part
    return found


def _by_request(request: Mapping[str, Json]) -> Held:
    if as_text(request.get("Driver")) not in {"", "nvidia", "cdi"}:
        return EVERYTHING
    count = as_int(request.get("Count"))
    names = _named(as_strings(request.get("DeviceIDs")))
    if count < 0:
        return EVERYTHING
    # SOURCE: dockerd makes "0,1,...,N-1" of a count.
    return names | Held(names=frozenset(map(str, range(count))))


def _named(texts: Iterable[str]) -> Held:
    names = {part.strip().removeprefix(CDI_KIND) for text in texts for part in text.split(",")} - _NO_DEVICE
    readable = frozenset(name for name in names if _READABLE.fullmatch(name))
    return Held(everything=readable != names, names=readable)  # "all", PCI ids, another CDI kind: everything


def _by_environment(inspect: Mapping[str, Json], requested: Held, *, unset_means_all: bool) -> Held:
    """What NVIDIA's hook or runtime makes of the variables; a request for devices overrides them."""
    env = as_strings(as_object(inspect.get("Config")).get("Env"))
    if any(entry.startswith(SCRUBBED_PREFIX) for entry in env):
        return EVERYTHING
    if requested:
        return _NOTHING
    value = env_value(env, VISIBLE)
    if value is None:
        legacy = env_value(env, CUDA_VERSION) is not None and env_value(env, REQUIRE_CUDA) is None
        return EVERYTHING if legacy and unset_means_all else _NOTHING
    return _named([value])


def _by_mounts(inspect: Mapping[str, Json]) -> Held:
    targets = (as_text(as_object(item).get("Destination")) for item in as_list(inspect.get("Mounts")))
    return _named(path.removeprefix(DEVICE_MOUNTS) for path in targets if path.startswith(DEVICE_MOUNTS))


def _by_node(device: Mapping[str, Json]) -> Held:
    path = as_text(device.get("PathOnHost"))
    node = _NODE.fullmatch(path)
    if node:
        return Held(minors=frozenset({int(node[1])}))
    # A directory is given with all below it; outside /dev, and in /dev/char, a path is a link to anything; the capability
    # of a MIG device does not say which one it is.
    far = not path.startswith("/dev/") or path == "/dev/" or is_under(path, "/dev/char")
    far = far or (path.startswith("/dev/nvidia") and not _NO_GPU_NODES.fullmatch(path))
    return EVERYTHING if far else _NOTHING


def _by_rule(text: str) -> Held:
    found = _RULE.fullmatch(text.strip())
    if found is None:
        return EVERYTHING
    kind, major, minor, access = found.groups()
    if kind == "b" or (access or "").strip() == "m" or major not in {"*", _MAIN_MAJOR}:
        return _NOTHING  # to make a node is not to open it
    if major == "*" or minor == "*":
        return EVERYTHING
    number = int(minor)
    return _NOTHING if number >= _FIRST_OF_NO_GPU else Held(minors=frozenset({number}))
