"""Every log event: its name, its level, its keys. What each means is in docs/log-events.md; a test compares."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """info: normal, denials included. warning: degraded but serving. error: wants a person."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One kind of log line."""

    name: str  # noun.past_verb
    level: Level
    keys: tuple[str, ...]  # beside timestamp, level, event, daemon and what is bound to the context


def _info(name: str, *keys: str) -> Event:
    return Event(name=name, level=Level.INFO, keys=keys)


def _warning(name: str, *keys: str) -> Event:
    return Event(name=name, level=Level.WARNING, keys=keys)


def _error(name: str, *keys: str) -> Event:
    return Event(name=name, level=Level.ERROR, keys=keys)


_HOST_PROCESS = ("pid", "uid", "kind", "unit", "executable", "devices", "reason")

_UNLEASED_PROCESS = ("pid", "uid", "container", "devices", "reason")

# daemons
DAEMON_STARTED = _info("daemon.started", "version", "sockets")
DAEMON_STOPPED = _info("daemon.stopped", "reason")
DAEMON_FAILED = _error("daemon.failed", "problem")
# requests
REQUEST_FORWARDED = _info("request.forwarded", "request_id", "uid", "operation", "status", "duration_ms")
REQUEST_DENIED = _info("request.denied", "request_id", "uid", "operation", "status", "rules")
REQUEST_FAILED = _error("request.failed", "request_id", "uid", "operation", "problem")
PEER_REFUSED = _info("peer.refused", "uid", "pid", "door", "problem")
# the second gate
STAMP_REFUSED = _warning("stamp.refused", "request_id", "method", "path", "problem")
BREAK_GLASS_OPENED = _warning("break_glass.opened", "by", "reason", "until_boottime_ms")
BREAK_GLASS_CLOSED = _info("break_glass.closed", "by", "reason")
BREAK_GLASS_USED = _warning("break_glass.used", "request_id", "method", "path", "by", "reason")
BREAK_GLASS_REFUSED = _error("break_glass.refused", "problem")
KEY_LOADED = _info("key.loaded", "path")
KEY_REFUSED = _error("key.refused", "path", "problem")
CANARY_PASSED = _info("canary.passed", "status")
CANARY_FAILED = _error("canary.failed", "status", "problem")
# container starts
START_ALLOWED = _info("start.allowed", "container", "uid", "lease", "pins", "duration_ms")
START_REFUSED = _info("start.refused", "container", "uid", "problem")
START_FAILED = _error("start.failed", "container", "problem")
COPY_PINNED = _info("copy.pinned", "container", "uid", "lease", "pins", "duration_ms")
COPY_REFUSED = _info("copy.refused", "container", "uid", "problem")
COPY_FAILED = _error("copy.failed", "container", "problem")
PIN_LEFT = _warning("pin.left", "path", "problem")
STAND_INS_UNSWEPT = _warning("stand_ins.unswept", "problem")
APPROVAL_FAILED = _error("approval.failed", "container", "problem")
SHARE_UNSETTLED = _warning("share.unsettled", "problem")
# policy
POLICY_LOADED = _info("policy.loaded", "digest", "files")
POLICY_REJECTED = _error("policy.rejected", "problems")
# GPUs
LEASE_GRANTED = _info("lease.granted", "lease", "uid", "devices")
LEASE_RELEASED = _info("lease.released", "lease", "uid", "reason")
LEASE_REFUSED = _info("lease.refused", "uid", "refusal")
LEASE_UNSETTLED = _warning("lease.unsettled", "lease", "problem")
EVIDENCE_UNSENT = _warning("evidence.unsent", "problem")
LEASE_LOST = _error("lease.lost", "lease", "uid", "devices", "problem")
RESERVATION_MADE = _info(
    "reservation.made", "reservation", "whom", "count", "profile", "when", "by", "reason"
)
RESERVATION_REMOVED = _info("reservation.removed", "reservation", "whom", "by")
CONNECTION_REFUSED = _info("connection.refused", "uid", "limit")
LEDGER_RECONCILED = _info("ledger.reconciled", "changes")
NVML_LOST = _error("nvml.lost", "problem")
NVML_RECOVERED = _info("nvml.recovered")
GPU_QUARANTINED = _error("gpu.quarantined", "device", "problem")
GPU_UNQUARANTINED = _info("gpu.unquarantined", "device", "by", "reason")
GPU_SUSPECTED = _warning("gpu.suspected", "device", "problem")
GPU_XID = _warning("gpu.xid", "device", "xid", "kind", "source", "leases")
XID_UNPLACED = _warning("xid.unplaced", "address", "xid")
KERNEL_LOG_UNAVAILABLE = _warning("kernel_log.unavailable", "path", "problem")
KERNEL_LOG_OVERRUN = _warning("kernel_log.overrun", "path")
HOLDER_TOLD = _info("holder.told", "lease", "uid", "note")
MIG_INSTANCE_LOST = _error("mig_instance.lost", "device", "profile", "start", "problem")
MIG_INSTANCE_RESTORED = _info("mig_instance.restored", "device", "profile", "start")
MIG_STEP_FINISHED = _info("mig_step.finished", "device", "step", "state", "reason")
MIG_UNFINISHED = _error("mig.unfinished", "problem")
CDI_STALE = _error("cdi.stale", "problem")
ATTRIBUTION_FAILED = _error("attribution.failed", "problem")
HOST_PROCESS_REPORTED = _info("host_process.reported", *_HOST_PROCESS)
HOST_PROCESS_WARNED = _info("host_process.warned", *_HOST_PROCESS)
HOST_PROCESS_STOPPED = _warning("host_process.stopped", *_HOST_PROCESS)
HOST_PROCESS_KILLED = _error("host_process.killed", *_HOST_PROCESS)
UNLEASED_PROCESS_REPORTED = _error(
    "unleased_process.reported", "device", "pid", "kind", "container", "step", "uid", "lease", "holder_uid"
)
UNLEASED_PROCESS_WARNED = _info("unleased_process.warned", *_UNLEASED_PROCESS)
UNLEASED_PROCESS_STOPPED = _warning("unleased_process.stopped", *_UNLEASED_PROCESS)
UNLEASED_PROCESS_KILLED = _error("unleased_process.killed", *_UNLEASED_PROCESS)
PROCESS_UNSIGNALLED = _error("process.unsignalled", "pid", "uid", "signal", "problem")
MEMORY_UNATTRIBUTED = _warning("memory.unattributed", "device", "used_mib", "holders")
HOST_ACCESS_GRANTED = _warning("host_access.granted", "uid", "devices", "by", "reason", "until")
HOST_ACCESS_REVOKED = _info("host_access.revoked", "uid", "by", "reason", "ended")
HOST_ACCESS_FAILED = _error("host_access.failed", "uid", "problem")
# what ends by itself
LEASE_WARNED = _info("lease.warned", "lease", "uid", "container", "seconds_left", "terminals")
LEASE_OVERDUE = _warning("lease.overdue", "lease", "uid", "container")
OWNER_UNKNOWN = _warning("owner.unknown", "lease", "uid", "problem")
WARNINGS_UNKEPT = _error("warnings.unkept", "path", "problem")
CONTAINER_STOPPED = _info("container.stopped", "container", "uid", "lease", "reason", "duration_ms")
CONTAINER_UNSTOPPED = _error(
    "container.unstopped", "container", "uid", "lease", "attempt", "again_seconds", "problem"
)
# the engine and what is known of it
UPSTREAM_LOST = _error("upstream.lost", "upstream", "problem")
UPSTREAM_RECOVERED = _info("upstream.recovered", "upstream")
ENGINE_NOTED = _warning("engine.noted", "version", "problem")
METRICS_UNAVAILABLE = _warning("metrics.unavailable", "port", "problem")
INDEX_READY = _info("index.ready", "objects", "duration_ms")
INDEX_LOST = _warning("index.lost", "problem")
# the audit trail
AUDIT_FAILED = _error("audit.failed", "path", "problem")
AUDIT_RECOVERED = _info("audit.recovered", "path")
AUDIT_REPAIRED = _warning("audit.repaired", "path")

ALL: tuple[Event, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Event))
