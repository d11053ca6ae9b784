"""What ds01 must know of an engine before it serves anybody: versions, cgroup driver, how GPUs are handed over."""

from __future__ import annotations

import asyncio
import re

import msgspec

from http1.errors import UpstreamLost, UpstreamUnavailable
from observability import events
from observability.logging import log
from policy.dockerapi.model import Operation
from policy.engine_note import runtime_of
from policy.model import PLAIN_RUNTIME, EngineFacts
from socket_proxy.engine import Engine
from socket_proxy.refusals import EngineError

_FIRST_TRIES = ((1, 41), (1, 44), (1, 24))  # one of them is between every engine's minimum and maximum
_RETRY_SECONDS = 0.5
_ARCHIVES_MENDED = (29, 5, 1)
_BODIES_SHOWN = (((25, 0, 16), (26,)), ((29, 3, 1), (1000,)))  # CVE-2026-34040: from, up to but not including
_NATIVE_GRPC = (29, 2)
_CDI_GPU = re.compile(r"nvidia\.com/gpu=(GPU|MIG)-", re.ASCII)  # grants name devices by UUID


class _Version(msgspec.Struct):
    Version: str
    ApiVersion: str
    MinAPIVersion: str = "1.12"


class _Device(msgspec.Struct):
    Source: str = ""
    ID: str = ""


class _Info(msgspec.Struct):
    CgroupDriver: str = "cgroupfs"
    CgroupVersion: str = "1"
    DiscoveredDevices: list[_Device] | None = None  # from API 1.50 on, Engine 28.2
    Runtimes: dict[str, msgspec.Raw] = msgspec.field(default_factory=dict)
    DockerRootDir: str = "/var/lib/docker"


async def wait_for_engine(engine: Engine, engine_id: str, gpu_path: str) -> EngineFacts:
    """Ask until the engine answers; also sets the version that ds01's own calls use."""
    told = False
    while True:
        try:
            return await discover(engine, engine_id, gpu_path)
        except (UpstreamLost, UpstreamUnavailable, EngineError, msgspec.MsgspecError) as error:
            if not told:
                log(events.UPSTREAM_LOST, upstream="engine", problem=str(error))
            told = True
            await asyncio.sleep(_RETRY_SECONDS)


async def discover(engine: Engine, engine_id: str, gpu_path: str) -> EngineFacts:
    """Ask the engine who it is. Raises: EngineError, UpstreamLost, UpstreamUnavailable, msgspec.MsgspecError."""
    version = msgspec.json.decode(await _first_answer(engine), type=_Version)
    api_version = _pair(version.ApiVersion)
    engine.version = min(api_version, (1, 51))
    info = msgspec.json.decode(await engine.ask(Operation.SYSTEM_INFO), type=_Info)
    if gpu_path == "auto":
        gpu_path = "cdi" if _knows_gpus_by_cdi(info) else "hook"
    return EngineFacts(
        engine_id=engine_id,
        version=version.Version,
        api_version=api_version,
        min_api_version=_pair(version.MinAPIVersion),
        cgroup_driver=info.CgroupDriver,
        cgroup_version=int(info.CgroupVersion),
        gpu_path=gpu_path,
        runtime=runtime_of(info.Runtimes),
        data_root=info.DockerRootDir,
    )


def shortcomings(facts: EngineFacts) -> tuple[str, ...]:
    """What an admin should know of this engine's version; empty for one without known flaws."""
    version = tuple(int(part) for part in re.findall(r"\d+", facts.version)[:3])
    notes = []
    if version < _ARCHIVES_MENDED:
        notes.append(
            "docker cp follows a bind target that is swapped meanwhile (CVE-2026-42306, GHSA-vp62-88p7-qqf5) before engine "
            "29.5.1; ds01 unpacks uploads itself (CVE-2026-41567), but an update is advised"
        )
    if not any(first <= version < last for first, last in _BODIES_SHOWN):
        notes.append(
            "JSON bodies over 1 MiB are hidden from plugins, unless the distribution has mended it; "
            "ds01 sends none that large, others might"
        )
    if version >= _NATIVE_GRPC:
        notes.append("gRPC on the engine's socket passes AuthZ plugins; the socket must stay root's alone")
    if facts.runtime == PLAIN_RUNTIME:
        notes.append(
            "the runtime ds01 is not configured, so nobody looks when containers start: a bind source can be swapped"
        )
    return tuple(notes)


def _knows_gpus_by_cdi(info: _Info) -> bool:
    """Whether the engine has read a spec with GPUs named by UUID. That it looks for specs says nothing: all new ones do."""
    return any(
        device.Source == "cdi" and _CDI_GPU.match(device.ID) for device in info.DiscoveredDevices or ()
    )


async def _first_answer(engine: Engine) -> bytes:
    refused: EngineError | None = None
    for engine.version in _FIRST_TRIES:
        try:
            return await engine.ask(Operation.SYSTEM_VERSION)
        except EngineError as error:
            if error.status != 400:
                raise
            refused = error
    raise refused or EngineError(400, b"no API version fits")


def _pair(text: str) -> tuple[int, int]:
    major, _, minor = text.partition(".")
    return int(major), int(minor)
