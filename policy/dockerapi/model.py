"""One Engine API request as ds01 understands it: the canonical form that is decided on and written out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from policy.model import Json


class MalformedRequest(Exception):  # noqa: N818  the name is the project's word for it
    """The bytes can be read in two ways, or in none. The client must send them differently: 400."""


class UnknownRoute(Exception):  # noqa: N818  reads as what happened, like MalformedRequest
    """No row of the route table has this method and path: 404, in dockerd's words."""

    def __init__(self) -> None:
        super().__init__("page not found")


class UnknownField(Exception):  # noqa: N818  reads as what happened, like MalformedRequest
    """A field with a meaning ds01 does not know, and a value that asks for it: a denial, rule `unknown_field`.

    field: its path as in the Engine API, `HostConfig.NewThing` or `query.newthing`.
    asked: the value, shortened.
    """

    def __init__(self, field: str, asked: str) -> None:
        super().__init__(f"{field}={asked} is not a field ds01 knows (rule unknown_field); remove it")
        self.field = field
        self.asked = asked


class Operation(StrEnum):
    """What is asked, named after the Engine API's operationId. The table is in `policy.dockerapi.routes`."""

    # system
    SYSTEM_PING = "SystemPing"
    SYSTEM_PING_HEAD = "SystemPingHead"
    SYSTEM_VERSION = "SystemVersion"
    SYSTEM_INFO = "SystemInfo"
    SYSTEM_DATA_USAGE = "SystemDataUsage"
    SYSTEM_EVENTS = "SystemEvents"
    SYSTEM_AUTH = "SystemAuth"
    # containers
    CONTAINER_LIST = "ContainerList"
    CONTAINER_CREATE = "ContainerCreate"
    CONTAINER_INSPECT = "ContainerInspect"
    CONTAINER_TOP = "ContainerTop"
    CONTAINER_LOGS = "ContainerLogs"
    CONTAINER_CHANGES = "ContainerChanges"
    CONTAINER_EXPORT = "ContainerExport"
    CONTAINER_STATS = "ContainerStats"
    CONTAINER_RESIZE = "ContainerResize"
    CONTAINER_START = "ContainerStart"
    CONTAINER_STOP = "ContainerStop"
    CONTAINER_RESTART = "ContainerRestart"
    CONTAINER_KILL = "ContainerKill"
    CONTAINER_UPDATE = "ContainerUpdate"
    CONTAINER_RENAME = "ContainerRename"
    CONTAINER_PAUSE = "ContainerPause"
    CONTAINER_UNPAUSE = "ContainerUnpause"
    CONTAINER_ATTACH = "ContainerAttach"
    CONTAINER_ATTACH_WEBSOCKET = "ContainerAttachWebsocket"
    CONTAINER_WAIT = "ContainerWait"
    CONTAINER_DELETE = "ContainerDelete"
    CONTAINER_PRUNE = "ContainerPrune"
    CONTAINER_ARCHIVE_INFO = "ContainerArchiveInfo"
    CONTAINER_ARCHIVE = "ContainerArchive"
    PUT_CONTAINER_ARCHIVE = "PutContainerArchive"
    # exec
    CONTAINER_EXEC = "ContainerExec"
    EXEC_START = "ExecStart"
    EXEC_RESIZE = "ExecResize"
    EXEC_INSPECT = "ExecInspect"
    # images
    IMAGE_LIST = "ImageList"
    IMAGE_CREATE = "ImageCreate"
    IMAGE_INSPECT = "ImageInspect"
    IMAGE_HISTORY = "ImageHistory"
    IMAGE_PUSH = "ImagePush"
    IMAGE_TAG = "ImageTag"
    IMAGE_DELETE = "ImageDelete"
    IMAGE_SEARCH = "ImageSearch"
    IMAGE_PRUNE = "ImagePrune"
    IMAGE_COMMIT = "ImageCommit"
    IMAGE_GET = "ImageGet"
    IMAGE_GET_ALL = "ImageGetAll"
    IMAGE_LOAD = "ImageLoad"
    IMAGE_BUILD = "ImageBuild"
    BUILD_PRUNE = "BuildPrune"
    BUILD_CANCEL = "BuildCancel"
    DISTRIBUTION_INSPECT = "DistributionInspect"
    # networks
    NETWORK_LIST = "NetworkList"
    NETWORK_INSPECT = "NetworkInspect"
    NETWORK_CREATE = "NetworkCreate"
    NETWORK_CONNECT = "NetworkConnect"
    NETWORK_DISCONNECT = "NetworkDisconnect"
    NETWORK_DELETE = "NetworkDelete"
    NETWORK_PRUNE = "NetworkPrune"
    # volumes
    VOLUME_LIST = "VolumeList"
    VOLUME_INSPECT = "VolumeInspect"
    VOLUME_CREATE = "VolumeCreate"
    VOLUME_DELETE = "VolumeDelete"
    VOLUME_PRUNE = "VolumePrune"
    # builder sessions
    SESSION = "Session"
    GRPC = "Grpc"
    # plugins
    PLUGIN_LIST = "PluginList"
    GET_PLUGIN_PRIVILEGES = "GetPluginPrivileges"
    PLUGIN_PULL = "PluginPull"
    PLUGIN_CREATE = "PluginCreate"
    PLUGIN_INSPECT = "PluginInspect"
    PLUGIN_ENABLE = "PluginEnable"
    PLUGIN_DISABLE = "PluginDisable"
    PLUGIN_SET = "PluginSet"
    PLUGIN_UPGRADE = "PluginUpgrade"
    PLUGIN_PUSH = "PluginPush"
    PLUGIN_DELETE = "PluginDelete"
    # swarm, checkpoints and debug: many calls of one name, which is all that is decided on
    SWARM_READ = "SwarmRead"
    SWARM_WRITE = "SwarmWrite"
    CHECKPOINT = "Checkpoint"
    DEBUG = "Debug"


class Outcome(StrEnum):
    """What the route table says of an operation before any rule is asked."""

    SYSTEM = "system"  # SYS: any identified actor
    OWN = "own"  # on an object that must be the actor's
    CREATE = "create"  # makes an object; body rewritten
    LIST = "list"  # answer filtered
    STREAM = "stream"  # answer filtered message by message
    IMAGE = "image"  # image store operation
    ADMIN = "admin"  # admins only
    NOBODY = "nobody"  # refused to all


class Payload(StrEnum):
    """What the request carries behind its head."""

    NONE = "none"
    JSON = "json"  # read whole, canonical, at most 900 KiB
    STREAM = "stream"  # tar uploads: relayed with backpressure, never read whole
    HIJACK = "hijack"  # after 101 or 200 only bytes pass


class Answer(StrEnum):
    """How the engine's answer is treated on its way back."""

    RELAY = "relay"  # as it comes, streaming
    HIJACK = "hijack"
    PING = "ping"
    VERSION = "version"
    INFO = "info"
    DISK_USAGE = "disk_usage"
    EVENTS = "events"
    STATS = "stats"
    WAIT = "wait"
    CONTAINER_CREATE = "container_create"
    CONTAINER_LIST = "container_list"
    CONTAINER_INSPECT = "container_inspect"
    IMAGE_LIST = "image_list"
    NETWORK_LIST = "network_list"
    NETWORK_INSPECT = "network_inspect"
    VOLUME_LIST = "volume_list"
    VOLUME_INSPECT = "volume_inspect"
    IMAGE_INSPECT = "image_inspect"
    IMAGE_HISTORY = "image_history"
    EXEC_CREATE = "exec_create"
    EXEC_INSPECT = "exec_inspect"
    PLUGIN_LIST = "plugin_list"
    BUILT_HERE = "built_here"  # prune: ds01 answers itself after removing one by one


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request head as it was parsed off the wire, and its JSON body if it has one.

    The proxy builds it from `http1`, the plugin from AuthZReq: both read it with the same reader.
    """

    method: str
    target: str  # raw request-target, ASCII
    headers: tuple[tuple[str, str], ...]  # names lower-case, in order, duplicates kept
    body: bytes | None  # None: no body, or one that is streamed


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """The canonical request. INVARIANT: `read(write(r)) == r`.

    version: the API version to emit, always explicit.
    params: path parameters by name: container, exec, image, network, volume.
        A collective operation (swarm, checkpoints, debug) has method and path instead.
    query: known keys only, one value each except list keys, in table order.
    body: known fields only; nulls, zero values of unknown fields and empty optional fields dropped.
    headers: the allow-listed ones that are forwarded (x-registry-auth, x-registry-config, content-type, ...).
    """

    operation: Operation
    version: tuple[int, int]
    params: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    body: Mapping[str, Json] | None = None
    upgrade: str | None = None  # "tcp", "h2c", "websocket": the protocol asked for
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """Fresh bytes for dockerd, in parts: nothing here was copied from the client's head or JSON (I1).

    Framing headers (Host, Content-Length, Transfer-Encoding, Connection) are `http1`'s to add.
    """

    method: str
    target: str  # /v1.41/containers/create?name=x
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
