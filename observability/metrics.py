"""Counters and gauges for operators. All label values exist from the start, so that zero is visible.

Labels come from closed sets only: no user, id, path or image ever becomes one.
"""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

if TYPE_CHECKING:
    from collections.abc import Iterable


class Decided(StrEnum):
    """How a request ended."""

    ALLOWED = "allowed"
    DENIED = "denied"
    NOT_VISIBLE = "not_visible"
    MALFORMED = "malformed"
    REFUSED = "refused"  # no GPU free
    UNAVAILABLE = "unavailable"
    FAILED = "failed"  # our own bug


class LeaseResult(StrEnum):
    """How asking for GPUs ended."""

    GRANTED = "granted"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"
    CANCELLED = "cancelled"


class Upstream(StrEnum):
    """Whom a daemon asks."""

    ENGINE = "engine"
    ALLOCATOR = "allocator"


_BUCKETS_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """One daemon's metrics in a registry of its own."""

    def __init__(self, *, operation_classes: Iterable[str] = (), rules: Iterable[str] = ()) -> None:
        """Create every time series. operation_classes: values of `Outcome`; rules: ids under policy/rules."""
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "ds01_requests_total",
            "Requests decided.",
            ("operation_class", "decision"),
            registry=self.registry,
        )
        self.denials = Counter("ds01_denials_total", "Denials by rule.", ("rule",), registry=self.registry)
        self.forward_errors = Counter(
            "ds01_forward_errors_total",
            "Failures to reach an upstream.",
            ("upstream",),
            registry=self.registry,
        )
        self.leases = Counter(
            "ds01_lease_requests_total", "Lease requests.", ("result",), registry=self.registry
        )
        self.stamps_refused = Counter("ds01_stamps_refused_total", "Stamps refused.", registry=self.registry)
        self.break_glass_used = Counter(
            "ds01_break_glass_used_total", "Requests let through without a stamp.", registry=self.registry
        )
        self.audit_failures = Counter(
            "ds01_audit_failures_total", "Audit records not written.", registry=self.registry
        )
        self.policy_rejections = Counter(
            "ds01_policy_rejections_total", "Policy files refused.", registry=self.registry
        )
        self.canary_ok = Gauge(
            "ds01_canary_ok",
            "1: an unstamped request was denied. 0: it was not. NaN: not tried yet.",
            registry=self.registry,
        )
        self.connections = Gauge("ds01_open_connections", "Open client connections.", registry=self.registry)
        self.decision_seconds = Histogram(
            "ds01_decision_seconds",
            "Time to decide a request.",
            buckets=_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._create_series(operation_classes, rules)

    def _create_series(self, operation_classes: Iterable[str], rules: Iterable[str]) -> None:
        for operation_class in (*operation_classes, "unknown"):
            for decision in Decided:
                self.requests.labels(operation_class, decision.value)
        for rule in rules:
            self.denials.labels(rule)
        for upstream in Upstream:
            self.forward_errors.labels(upstream.value)
        for result in LeaseResult:
            self.leases.labels(result.value)
        self.canary_ok.set(float("nan"))  # INVARIANT: unknown is never 0

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)
