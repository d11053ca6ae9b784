"""What the engine says of itself, as a user may see it: /_ping, /version, /info, /system/df.

Source: engine-wide answers of dockerd 20.10-28 (API 1.41-1.51).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from policy.dockerapi.answers.build_cache import own_records
from policy.dockerapi.answers.images import shown_image
from policy.dockerapi.answers.lists import container_list, volumes
from policy.dockerapi.answers.pieces import (
    NULL,
    Fields,
    Piece,
    join,
    piece,
    read,
    read_array,
    read_fields,
    read_optional_fields,
    read_text,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policy.model import Uid

API_MAX = (1, 51)
API_MIN = (1, 24)

_PING_HEADERS = frozenset(
    {"cache-control", "content-type", "docker-experimental", "ostype", "pragma", "swarm"}
)

# Everything else is left out, so that a field a later engine adds is not shown before somebody has looked at it.
# Known and left out: NRI, Containerd (its socket), ClusterStore, ClusterAdvertise, Swarm's details, Labels.
_INFO_SHOWN = frozenset(
    """ID Driver DriverStatus MemoryLimit SwapLimit KernelMemory KernelMemoryTCP CpuCfsPeriod CpuCfsQuota CPUShares
    CPUSet PidsLimit IPv4Forwarding BridgeNfIptables BridgeNfIp6tables Debug OomKillDisable SystemTime LoggingDriver
    CgroupDriver CgroupVersion KernelVersion OperatingSystem OSVersion OSType Architecture IndexServerAddress
    RegistryConfig NCPU MemTotal GenericResources DockerRootDir HttpProxy HttpsProxy NoProxy Name ExperimentalBuild
    ServerVersion Runtimes DefaultRuntime LiveRestoreEnabled Isolation InitBinary ContainerdCommit RuncCommit
    InitCommit SecurityOptions ProductLicense DefaultAddressPools FirewallBackend CDISpecDirs DiscoveredDevices
    Warnings""".split()  # noqa: SIM905  a paragraph reads better than fifty lines of literals
)
_NO_SWARM = {
    "NodeID": "",
    "NodeAddr": "",
    "LocalNodeState": "inactive",
    "ControlAvailable": False,
    "Error": "",
    "RemoteManagers": None,
}
_NVIDIA, _NVIDIA_PROGRAM = "nvidia", "nvidia-container-runtime"
# SECURITY: how busy the engine is with others.
_ACTIVITY = ("NFd", "NGoroutines", "NEventsListener")


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """How many objects the user has."""

    running: int
    paused: int
    stopped: int
    images: int


class _User(msgspec.Struct, frozen=True):
    image_id: str = msgspec.field(name="ImageID", default="")


class _Size(msgspec.Struct, frozen=True, rename="pascal"):
    size: int = 0


_USERS = msgspec.json.Decoder(list[_User])
_SIZES = msgspec.json.Decoder(list[_Size])
_COMPONENTS: msgspec.json.Decoder[list[msgspec.Raw] | None] = msgspec.json.Decoder(list[msgspec.Raw] | None)


def ping_headers(
    headers: Iterable[tuple[str, str]], *, builder_version: str | None = "1"
) -> tuple[tuple[str, str], ...]:
    """The headers of a /_ping answer that a client needs, names in lower case, framing not included.

    Args:
        builder_version: "1" steers clients to the classic builder, None leaves the engine's word.
    Raises: UnreadableAnswer: an Api-Version that is none.
    """
    shown: list[tuple[str, str]] = []
    for header, value in headers:
        name = header.lower()
        if name == "api-version":
            shown.append((name, cap_api_version(value)))
        elif name in _PING_HEADERS or (name == "builder-version" and builder_version is None):
            shown.append((name, "inactive" if name == "swarm" else value))
    if builder_version is not None:
        shown.append(("builder-version", builder_version))
    return tuple(shown)


def cap_api_version(text: str) -> str:
    """The highest API version a client may speak: the engine's, at most 1.51. Raises: UnreadableAnswer."""
    return _dotted(min(_version(text), API_MAX))


def _raise_api_minimum(text: str) -> str:
    return _dotted(max(_version(text), API_MIN))


def _version(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    if not (text.isascii() and major.isdigit() and minor.isdigit() and len(text) <= 8):
        raise UnreadableAnswer("the engine's answer holds no API version")
    return int(major), int(minor)


def _dotted(version: tuple[int, int]) -> str:
    return f"{version[0]}.{version[1]}"


def version(body: bytes) -> bytes:
    """GET /version, its API versions bounded by what ds01 reads, also in the Engine's component.

    Raises: UnreadableAnswer.
    """
    fields = read_fields(body)
    if "ApiVersion" not in fields:
        raise UnreadableAnswer("the engine's answer has no ApiVersion")
    _bound_versions(fields)
    components = read(_COMPONENTS, fields["Components"]) if "Components" in fields else None
    if components is not None:
        fields["Components"] = piece([_bound_component(raw) for raw in components])
    return write(fields)


def _bound_versions(fields: Fields) -> None:
    for key, bound in (("ApiVersion", cap_api_version), ("MinAPIVersion", _raise_api_minimum)):
        if key in fields:
            fields[key] = piece(bound(read_text(fields[key])))


def _bound_component(raw: msgspec.Raw) -> Fields:
    component = read_fields(raw)
    details = read_optional_fields(component["Details"]) if "Details" in component else None
    if details is not None:
        _bound_versions(details)
        component["Details"] = piece(details)
    return component


def info(body: bytes, counts: Counts, *, gpus: bool = False) -> bytes:
    """GET /info: the machine and the engine, but of objects only the user's.

    Args:
        gpus: There are some to lease. Dev Containers ask for GPUs only where the runtime "nvidia" is listed, so it is:
            ds01 takes `--runtime nvidia` whatever the engine has.
    Raises: UnreadableAnswer.
    """
    fields = read_fields(body)
    if "ServerVersion" not in fields:
        raise UnreadableAnswer("the engine's answer has no ServerVersion")
    own: dict[str, object] = {
        "Containers": counts.running + counts.paused + counts.stopped,
        "ContainersRunning": counts.running,
        "ContainersPaused": counts.paused,
        "ContainersStopped": counts.stopped,
        "Images": counts.images,
        "Swarm": _NO_SWARM,
        "Labels": [],
        "Plugins": _shown_plugins(fields),
        **dict.fromkeys(_ACTIVITY, 0),
    }
    if gpus and "Runtimes" in fields:
        own["Runtimes"] = {
            _NVIDIA: {"path": _NVIDIA_PROGRAM},
            **(read_optional_fields(fields["Runtimes"]) or {}),
        }
    return write({key: own.get(key, raw) for key, raw in fields.items() if key in own or key in _INFO_SHOWN})


def _shown_plugins(fields: Fields) -> Fields | None:
    plugins = read_optional_fields(fields["Plugins"]) if "Plugins" in fields else None
    if plugins and "Authorization" in plugins:
        plugins["Authorization"] = piece(None)
    return plugins


def disk_usage(body: bytes, sees: Visibility, *, names: Names = REAL_NAMES, uid: Uid | None = None) -> bytes:
    """GET /system/df: the user's objects and their totals, and of the build cache what is known to be the user's.

    LayersSize is the sum of the images shown, layers they share counted each time: the engine's own figure
    would tell the size of others' images. With `type` the engine leaves lists null.
    Raises: UnreadableAnswer.
    """
    fields = read_fields(body)
    if "Images" not in fields and "Containers" not in fields and "Volumes" not in fields:
        raise UnreadableAnswer("the engine's answer holds no disk usage")
    listed = fields.get("Containers", NULL)
    containers = container_list(listed, sees, names=names, own_only=True)
    images = _images(fields.get("Images", NULL), containers if _is_there(listed) else None, sees, names)
    cache = [] if uid is None else [*own_records(fields.get("BuildCache", NULL), uid)]
    shown = {
        "LayersSize": msgspec.Raw(write(sum(image.size for image in read(_SIZES, images)))),
        "Images": msgspec.Raw(images),
        "Containers": msgspec.Raw(containers),
        "Volumes": msgspec.Raw(volumes(fields.get("Volumes", NULL), sees, names=names)),
        "BuildCache": msgspec.Raw(join(raw for _, raw in cache)),
        "BuilderSize": msgspec.Raw(write(sum(record.Size for record, _ in cache))),
    }
    return write({key: shown[key] if _is_there(raw) else raw for key, raw in fields.items() if key in shown})


def _is_there(raw: msgspec.Raw) -> bool:
    return bytes(raw) != b"null"


def _images(images: Piece, containers: Piece | None, sees: Visibility, names: Names) -> bytes:
    """The images shown, each with the number of the user's containers that use it; -1 if none are listed."""
    users = None if containers is None else Counter(user.image_id for user in read(_USERS, containers))
    return join(
        shown
        for raw in read_array(images) or ()
        if (shown := shown_image(raw, sees, names=names, containers=-1 if users is None else users[_id(raw)]))
        is not None
    )


def _id(raw: msgspec.Raw) -> str:
    return read(_ID, raw).id


class _Identified(msgspec.Struct, frozen=True, rename="pascal"):
    id: str


_ID = msgspec.json.Decoder(_Identified)
