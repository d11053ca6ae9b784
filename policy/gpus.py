"""What each spelling of a GPU wish means, and the one form in which a grant is written.

`read_wish` understands DeviceRequests, `--runtime=nvidia` with its variable, /dev/nvidia* devices, and labels of a create
that say how large and for how long. docs/gpus.md lists them all.
`granted` writes a grant, `scrubbed_env` alone a create without one: the only two forms that may reach dockerd.
`granted_devices` and `is_ungranted` recognise exactly those.
SOURCE: NVIDIA container toolkit and dockerd 20.10 to 29; the device driver "nvidia" ignores Options, works with any
known capability and passes ids on as text, "all" included.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from policy.fields import as_int, as_list, as_object, as_strings, as_text, shown
from policy.model import PLAIN_RUNTIME, EngineFacts, Json, Reason
from policy.spoken import parse_seconds

VISIBLE = "NVIDIA_VISIBLE_DEVICES"
CAPABILITIES = "NVIDIA_DRIVER_CAPABILITIES"
VOID = f"{VISIBLE}=void"
SCRUBBED = frozenset(
    {
        VISIBLE,
        CAPABILITIES,
        "NVIDIA_MIG_CONFIG_DEVICES",
        "NVIDIA_MIG_MONITOR_DEVICES",
        "NVIDIA_IMEX_CHANNELS",
        "NVIDIA_GDS",
        "NVIDIA_MOFED",
        "NVIDIA_NVSWITCH",
        "NVIDIA_GDRCOPY",
        "NVIDIA_REQUIRE_JETPACK",
        "AMD_VISIBLE_DEVICES",
    }
)
SCRUBBED_PREFIX = "DOCKER_RESOURCE_"  # the toolkit's usual swarm-resource names, which override VISIBLE
# SECURITY: NVIDIA's hook and runtime take from the image what the request does not set, and make channels as root.
# With CDI neither is to run, and an administrator's daemon.json may still bring one of them.
# SOURCE: NVIDIA container toolkit, image.NewVisibleDevices: void is none.
NO_IMEX = "NVIDIA_IMEX_CHANNELS=void"
CDI_KIND = "nvidia.com/gpu="
BASE_CAPABILITIES = ("compute", "utility")
EXTRA_CAPABILITIES = ("graphics", "video", "display")
KNOWN_CAPABILITIES = frozenset({"gpu", "nvidia", "compat32", "ngx", *BASE_CAPABILITIES, *EXTRA_CAPABILITIES})

_UUID = re.compile(r"(GPU|MIG)-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", re.ASCII)
# Before driver 470 a MIG device was named by its GPU's UUID and its instances; lookups still take that.
_OLD_MIG = re.compile(
    r"MIG-GPU-[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}/[0-9]{1,2}/[0-9]{1,2}", re.ASCII
)
_CDI_INDEX = re.compile(r"(?:gpu|mig)([0-9]{1,3}(?::[0-9]{1,3})?)", re.ASCII)  # as older specs name devices
MIG_PROFILE = re.compile(r"(?:[1-7]c\.)?[1-7]g\.[0-9]{1,3}gb(?:\+[a-z0-9.]+)?", re.ASCII)
PROFILE_LABEL = "ds01.gpu.profile"
MEMORY_LABEL = "ds01.gpu.memory"
TIME_LABEL = "ds01.gpu.time"
WAIT_LABEL = "ds01.wait"
_PROFILES = frozenset({"full", "any"})
_SIZE = re.compile(r"([0-9]{1,6})(MiB|GiB)", re.ASCII)
_INDEX = re.compile(r"[0-9]{1,3}(:[0-9]{1,3})?", re.ASCII)
_NODE = re.compile(r"/dev/nvidia([0-9]{1,3})", re.ASCII)
_NEXT = "ask with --gpus N or --gpus device=UUID"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """One wish for GPUs. Exactly one of `count` and `device_ids` is set.

    profile: a MIG profile, "full" (a whole GPU) or "any"; None: what policy prefers.
    memory_mib: at least, on each device. seconds, wait_seconds: how long it is for, and may wait; None: not said.
    """

    count: int | None = None
    device_ids: tuple[str, ...] = ()
    profile: str | None = None
    memory_mib: int | None = None
    seconds: int | None = None
    wait_seconds: int | None = None
    capabilities: tuple[str, ...] = BASE_CAPABILITIES


@dataclass(frozen=True, slots=True, kw_only=True)
class _Asked:
    """What one spelling asks for: everything it can get, a number, or devices by name."""

    all: bool = False
    count: int = 0
    ids: tuple[str, ...] = ()


class _Unreadable(Exception):  # noqa: N818  a reason in flight, caught in this module
    def __init__(self, field: str, asked: object, limit: str, next_step: str = _NEXT) -> None:
        super().__init__(field)
        self.field, self.asked, self.limit, self.next_step = field, shown(asked), limit, next_step


def read_wish(body: Mapping[str, Json], *, gpus_default: int, rule: str = "gpu") -> Wish | Reason | None:
    """The GPUs a create asks for.

    Args: gpus_default: what "all" means, in devices.
    Returns: None if it asks for none; a Reason if it cannot be granted as written.
    """
    try:
        return _read_wish(body, gpus_default)
    except _Unreadable as unreadable:
        return Reason(
            rule=rule,
            field=unreadable.field,
            asked=unreadable.asked,
            limit=unreadable.limit,
            next_step=unreadable.next_step,
        )


def _read_wish(body: Mapping[str, Json], gpus_default: int) -> Wish | None:
    host = as_object(body.get("HostConfig"))
    asked = [_asked_by_request(as_object(item)) for item in as_list(host.get("DeviceRequests"))]
    asked = [one for one in asked if one != _Asked()] or _asked_by_runtime(body, host)
    nodes = _asked_by_nodes(host)
    if nodes.ids and not any(one.ids for one in asked):
        asked = [nodes]
    capabilities = _capabilities(body, host)
    ids = tuple(sorted({device for one in asked for device in one.ids}))
    counts = [gpus_default if one.all else one.count for one in asked if one.all or one.count]
    if (ids and counts) or len(counts) > 1:
        raise _Unreadable(
            "HostConfig.DeviceRequests", "several", "one request for GPUs, by number or by name"
        )
    said = _labels(as_object(body.get("Labels")))
    if ids and (said.profile is not None or said.memory_mib is not None):
        label = PROFILE_LABEL if said.profile is not None else MEMORY_LABEL
        raise _Unreadable(
            f"Labels.{label}", said.profile or said.memory_mib, "a size, or devices by name", "leave one out"
        )
    if ids:
        return replace(said, device_ids=ids, capabilities=capabilities)
    sized = said.profile is not None or said.memory_mib is not None
    count = counts[0] if counts else 1 if sized else None
    return replace(said, count=count, capabilities=capabilities) if count else None


def _labels(labels: Mapping[str, Json]) -> Wish:
    """What the labels of a create say of its GPUs; the labels themselves never reach the engine."""
    profile = _label(labels, PROFILE_LABEL)
    if profile is not None and profile not in _PROFILES and not MIG_PROFILE.fullmatch(profile):
        raise _Unreadable(
            f"Labels.{PROFILE_LABEL}", profile, "a MIG profile, full or any", f"write {PROFILE_LABEL}=2g.10gb"
        )
    memory_mib = None
    if (memory := _label(labels, MEMORY_LABEL)) is not None:
        found = _SIZE.fullmatch(memory)
        if found is None or not int(found[1]):
            raise _Unreadable(f"Labels.{MEMORY_LABEL}", memory, "MiB or GiB", f"write {MEMORY_LABEL}=10GiB")
        memory_mib = int(found[1]) * (1024 if found[2] == "GiB" else 1)
    return Wish(
        profile=profile,
        memory_mib=memory_mib,
        seconds=_duration(labels, TIME_LABEL, least=1),
        wait_seconds=_duration(labels, WAIT_LABEL, least=0),
    )


def _label(labels: Mapping[str, Json], name: str) -> str | None:
    return as_text(labels[name]) if name in labels else None


def _duration(labels: Mapping[str, Json], name: str, *, least: int) -> int | None:
    if (text := _label(labels, name)) is None:
        return None
    seconds = parse_seconds(text)
    if seconds is None or seconds < least:
        raise _Unreadable(f"Labels.{name}", text, "a time", f"write {name}=10m, or 30s, 2h, 1d")
    return seconds


def _asked_by_request(request: Mapping[str, Json]) -> _Asked:
    field = "HostConfig.DeviceRequests"
    driver = as_text(request.get("Driver"))
    if driver not in {"", "nvidia", "cdi"}:
        raise _Unreadable(f"{field}.Driver", driver, "nvidia or cdi")
    if as_object(request.get("Options")):
        raise _Unreadable(f"{field}.Options", request.get("Options"), "no options")
    for names in as_list(request.get("Capabilities")):
        if unknown := [name for name in as_strings(names) if name not in KNOWN_CAPABILITIES]:
            raise _Unreadable(
                f"{field}.Capabilities", unknown, "gpu, compute, utility, graphics, video, display"
            )
    count = as_int(request.get("Count"))
    ids = _ids(as_strings(request.get("DeviceIDs")), f"{field}.DeviceIDs", cdi=driver == "cdi")
    if count > 0 and ids.ids:
        # SOURCE: docker/cli, opts.GpuOpts: of the comma-separated device=0,1 the second value is a count.
        quoted = f"""--gpus '"device={",".join((*ids.ids, str(count)))}"'"""
        limit = "a number of GPUs or names of devices, not both"
        raise _Unreadable(f"{field}.Count", count, limit, f"for several devices quote twice: {quoted}")
    if count < -1 or (count and (ids.ids or ids.all)):
        raise _Unreadable(f"{field}.Count", count, "a number of GPUs, -1 for all, or DeviceIDs")
    return ids if not count else _Asked(all=count == -1, count=max(count, 0))


def _ids(texts: Sequence[str], field: str, *, cdi: bool = False) -> _Asked:
    """Read device names; commas inside one name separate several, as the toolkit has it."""
    names = [name.strip() for text in texts for name in text.split(",")]
    names = [name.removeprefix(CDI_KIND) if cdi or name.startswith(CDI_KIND) else name for name in names]
    names = [name for name in names if name not in {"", "none", "void"}]
    if "all" in names:
        return _Asked(all=True)
    names = [found[1] if cdi and (found := _CDI_INDEX.fullmatch(name)) else name for name in names]
    for name in names:
        if not (_UUID.fullmatch(name) or _INDEX.fullmatch(name) or _OLD_MIG.fullmatch(name)):
            raise _Unreadable(field, name, "UUIDs (GPU-... or MIG-...) and indices")
    return _Asked(ids=tuple(names))


def _asked_by_runtime(body: Mapping[str, Json], host: Mapping[str, Json]) -> list[_Asked]:
    """`--runtime=nvidia`: the variable says which; without one the image's usually says "all"."""
    if as_text(host.get("Runtime")) != "nvidia":
        return []
    value = env_value(as_strings(body.get("Env")), VISIBLE)
    asked = _Asked(all=True) if value is None else _ids([value], f"Env.{VISIBLE}")
    return [asked] if asked != _Asked() else []


def _asked_by_nodes(host: Mapping[str, Json]) -> _Asked:
    found: list[str] = []
    for item in as_list(host.get("Devices")):
        path = as_text(as_object(item).get("PathOnHost"))
        if node := _NODE.fullmatch(path):
            found.append(node[1])
        elif path.startswith("/dev/nvidia-caps"):
            raise _Unreadable("HostConfig.Devices", path, "MIG devices by UUID")
    return _Asked(ids=tuple(found))


def is_gpu_node(path: str) -> bool:
    """Whether a device path is NVIDIA's; such devices come with a lease, never by path."""
    return path.startswith("/dev/nvidia")


def _capabilities(body: Mapping[str, Json], host: Mapping[str, Json]) -> tuple[str, ...]:
    """Compute and utility always, the others if asked for in either spelling."""
    asked = set((env_value(as_strings(body.get("Env")), CAPABILITIES) or "").split(","))
    for item in as_list(host.get("DeviceRequests")):
        for names in as_list(as_object(item).get("Capabilities")):
            asked.update(as_strings(names))
    return (*BASE_CAPABILITIES, *(name for name in EXTRA_CAPABILITIES if name in asked or "all" in asked))


def env_value(env: Sequence[str], name: str) -> str | None:
    """The value that counts: the last one; a name without "=" is set and empty."""
    values = [entry.partition("=")[2] for entry in env if entry.partition("=")[0] == name]
    return values[-1] if values else None


def scrubbed_env(env: Sequence[str], switches: Sequence[str] = (VOID,)) -> list[Json]:
    """The environment with these switches of the GPU toolkit at its end and no others: by itself, no GPU."""
    kept = [entry for entry in env if not _is_switch(entry.partition("=")[0])]
    return [*kept, *switches]


def _switches(uuids: Sequence[str], *, cdi: bool) -> list[str]:
    """What the environment of a grant says. With CDI the engine itself brings the devices, and no hook may."""
    return [NO_IMEX, VOID if cdi else f"{VISIBLE}={','.join(sorted(uuids))}"]


def _is_switch(name: str) -> bool:
    return name in SCRUBBED or name.startswith(SCRUBBED_PREFIX)


def granted(
    body: Mapping[str, Json],
    uuids: Sequence[str],
    *,
    engine: EngineFacts,
    capabilities: Sequence[str] = BASE_CAPABILITIES,
) -> dict[str, Json]:
    """The create body with exactly these devices, in the form this engine takes (hook or CDI)."""
    cdi = engine.gpu_path == "cdi"
    ordered = sorted(uuids)
    request: dict[str, Json] = {
        "Driver": "cdi" if cdi else "nvidia",
        "DeviceIDs": [f"{CDI_KIND}{uuid}" if cdi else uuid for uuid in ordered],
    }
    if not cdi:
        request["Capabilities"] = [["gpu", *capabilities]]
    return _with_devices(body, [request], _switches(uuids, cdi=cdi), engine.runtime)


def _with_devices(
    body: Mapping[str, Json], requests: list[Json], switches: Sequence[str], runtime: str
) -> dict[str, Json]:
    asked = as_object(body.get("HostConfig"))
    host: dict[str, Json] = {key: value for key, value in asked.items() if key != "DeviceRequests"}
    host["Runtime"] = runtime
    if requests:
        host["DeviceRequests"] = requests
    return {**body, "HostConfig": host, "Env": scrubbed_env(as_strings(body.get("Env")), switches)}


def granted_devices(body: Mapping[str, Json], *, runtime: str = PLAIN_RUNTIME) -> tuple[str, ...] | None:
    """The devices of a body in granted form under `runtime`, None for every other body."""
    requests = as_list(as_object(body.get("HostConfig")).get("DeviceRequests"))
    if len(requests) != 1:
        return None
    request = as_object(requests[0])
    cdi = as_text(request.get("Driver")) == "cdi"
    names = as_strings(request.get("DeviceIDs"))
    uuids = tuple(name.removeprefix(CDI_KIND) if cdi else name for name in names)
    if not uuids or not all(_UUID.fullmatch(uuid) for uuid in uuids) or len(set(uuids)) != len(uuids):
        return None
    if not _grants_exactly(body, request, uuids, cdi=cdi, runtime=runtime):
        return None
    return uuids


def _grants_exactly(
    body: Mapping[str, Json],
    request: Mapping[str, Json],
    uuids: tuple[str, ...],
    *,
    cdi: bool,
    runtime: str,
) -> bool:
    """Whether nothing beside `uuids` is granted: a body equals its own rewriting, options and counts apart."""
    capability_sets = [set(as_strings(names)) for names in as_list(request.get("Capabilities"))]
    names_ok = as_strings(request.get("DeviceIDs")) == [f"{CDI_KIND}{u}" if cdi else u for u in sorted(uuids)]
    sets_ok = (
        not capability_sets if cdi else len(capability_sets) == 1 and capability_sets[0] <= KNOWN_CAPABILITIES
    )
    driver_ok = as_text(request.get("Driver")) in {"cdi", "nvidia"}
    plain = not as_int(request.get("Count")) and not as_object(request.get("Options"))
    switches = _switches(uuids, cdi=cdi)
    return driver_ok and names_ok and sets_ok and plain and _runs_plainly(body, switches, runtime)


def is_ungranted(body: Mapping[str, Json], *, runtime: str = PLAIN_RUNTIME) -> bool:
    """Whether a body is in the form that gives no GPU, under `runtime`."""
    return not as_list(as_object(body.get("HostConfig")).get("DeviceRequests")) and _runs_plainly(
        body, [VOID], runtime
    )


def _runs_plainly(body: Mapping[str, Json], switches: Sequence[str], runtime: str) -> bool:
    env = as_strings(body.get("Env"))
    found = [entry for entry in env if _is_switch(entry.partition("=")[0])]
    return found == [*switches] and as_text(as_object(body.get("HostConfig")).get("Runtime")) == runtime
