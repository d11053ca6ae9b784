"""Reading the NVML process's answers. Nothing is guessed from half an answer: what cannot be read is an outage."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from allocator import nvml_codes
from allocator.model import Device, DeviceKind, DeviceState, InventoryUnavailable, Link, Snapshot
from allocator.nvml_codes import Action
from allocator.readings import (
    EccErrors,
    GpuProcess,
    Measures,
    MigMode,
    ProcessType,
    RecoveryAction,
    RemappedRows,
    Span,
    Throttle,
    XidEvent,
)
from policy.model import DeviceUuid

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from allocator.model import DevicePair

Json = dict[str, Any]


def parse(line: bytes) -> Snapshot:
    """The child's answer. Raises: InventoryUnavailable: it says so, or it is unreadable."""
    try:
        said: Json = json.loads(line)
        if "problem" in said:
            raise outage(said)
        found = [_device(item) for item in said["devices"]]
        snapshot = _snapshot(said, {device.uuid: device for device in found})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        raise InventoryUnavailable("the NVML process gave an unreadable answer") from error
    if len(snapshot.devices) != len(found):
        raise InventoryUnavailable("NVML named one device twice")
    return snapshot


def is_last(line: bytes) -> bool:
    """Whether the child that gave this answer, which told a problem, ends by itself."""
    with suppress(ValueError, AttributeError):
        return json.loads(line).get("ends") is True
    return False


def outage(said: Json) -> InventoryUnavailable:
    """What an answer that tells a problem amounts to. Raises: KeyError, TypeError: it is unreadable."""
    code = int(said["code"])
    return InventoryUnavailable(nvml_codes.message(code, str(said["problem"])), nvml_codes.problem(code))


def unanswered(snapshot: Snapshot, why: str) -> Snapshot:
    """The same devices when none of them answers any more: nothing is known of what goes on on them."""
    return Snapshot(
        devices={uuid: _silent(device, why) for uuid, device in snapshot.devices.items()},
        links=snapshot.links,
        unidentified=snapshot.unidentified,
        complete=False,
        awaited=snapshot.awaited,
        driver=snapshot.driver,
    )


def _silent(device: Device, why: str) -> Device:
    known_bad = device.state in (DeviceState.LOST, DeviceState.QUARANTINED)
    return replace(
        device,
        processes=None,
        measures=Measures(),
        state=device.state if known_bad else DeviceState.UNRESPONSIVE,
        remark=device.remark if known_bad else why,
    )


def _snapshot(said: Json, devices: Mapping[DeviceUuid, Device]) -> Snapshot:
    unidentified: Mapping[str, int | None] = said.get("unidentified", {})
    return Snapshot(
        devices=devices,
        events=tuple(_event(item) for item in said.get("events", ())),
        links=_links(said.get("pairs", ())),
        unidentified={index: _why(code) for index, code in unidentified.items()},
        complete=all(
            code is not None and nvml_codes.action(code) is Action.LOST for code in unidentified.values()
        ),
        driver=said.get("driver"),
        cpu_ms=said.get("cpu_ms"),
    )


def _why(code: int | None) -> str:
    return "it has never answered" if code is None else f"NVML error {code} ({nvml_codes.action(code)})"


def _device(item: Json) -> Device:
    parent, processes, mode, placement = (
        item.get(name) for name in ("parent", "processes", "mig_mode", "placement")
    )
    return Device(
        uuid=DeviceUuid(item["uuid"]),
        kind=DeviceKind(item["kind"]),
        index=item["index"],
        parent=None if parent is None else DeviceUuid(parent),
        profile=item["profile"],
        memory_mib=item["memory_mib"],
        gpu_instance_id=item.get("gpu_instance_id"),
        compute_instance_id=item.get("compute_instance_id"),
        placement=None if placement is None else Span(start=placement[0], size=placement[1]),
        mig_mode=None if mode is None else MigMode(current=mode[0], pending=mode[1]),
        processes=None if processes is None else tuple(_process(one) for one in processes),
        measures=_measures(item.get("measures", {})),
        state=DeviceState(item["state"]),
        silent_seconds=item.get("silent_seconds"),
        error=item.get("error"),
        remark=None if item.get("error") is None else _why(item["error"]),
        profile_id=item.get("profile_id"),
        serial=item.get("serial"),
        pci_bus_id=item.get("pci_bus_id"),
        minor=item.get("minor"),
        compute_capability=item.get("compute_capability"),
        numa_node=item.get("numa_node"),
    )


def _process(item: list[Any]) -> GpuProcess:
    pid, memory_mib, gpu_instance, compute_instance, kind = item
    return GpuProcess(
        pid=int(pid),
        memory_mib=memory_mib,
        gpu_instance_id=gpu_instance,
        compute_instance_id=compute_instance,
        type=ProcessType(kind),
    )


def _measures(item: Json) -> Measures:
    made = ("throttles", "ecc", "remapped", "recovery")
    throttles, ecc, rows, recovery = (item.get(name) for name in made)
    return Measures(
        **{name: value for name, value in item.items() if name not in made},
        throttles=None if throttles is None else tuple(Throttle(one) for one in throttles),
        ecc=None if ecc is None else EccErrors(corrected=ecc[0], uncorrected=ecc[1]),
        remapped=None if rows is None else _rows(*rows),
        recovery=None if recovery is None else RecoveryAction(recovery),
    )


def _rows(correctable: int, uncorrectable: int, pending: int, failed: int) -> RemappedRows:
    return RemappedRows(
        correctable=correctable, uncorrectable=uncorrectable, pending=bool(pending), failed=bool(failed)
    )


def _event(item: Json) -> XidEvent:
    return XidEvent(
        gpu=DeviceUuid(item["gpu"]),
        xid=item["xid"],
        gpu_instance_id=item["gpu_instance_id"],
        compute_instance_id=item["compute_instance_id"],
    )


def _links(pairs: Iterable[Json]) -> Mapping[DevicePair, Link] | None:
    """NVLink goes before what PCIe says, unless both are on one board; what neither says is left out."""
    links = {}
    for item in pairs:
        one, other = sorted(DeviceUuid(uuid) for uuid in item["gpus"])
        link = None if item["level"] is None else Link(item["level"])
        if item["nvlink"] and link is not Link.INTERNAL:
            link = Link.NVLINK
        if link is not None:
            links[one, other] = link
    return links or None
