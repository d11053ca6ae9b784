"""Counters and gauges for operators. All label values exist from the start, so that zero is visible.

Labels come from closed sets only: no user, id, path or image ever becomes one.
"""

from __future__ import annotations

import math
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


UNKNOWN = "unknown"  # the operation class of what no route matched, or could not be read
_BUCKETS_SECONDS = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.05, 0.25, 1.0, 5.0, 30.0)


class Metrics:
    """The proxy's metrics, in a registry of their own."""

    def __init__(self, *, operation_classes: Iterable[str], rules: Iterable[str]) -> None:
        """Create every time series. operation_classes: values of `Outcome`; rules: ids that a refusal can name."""
        self.registry = CollectorRegistry()
        self._requests = self._counter("requests", "Requests decided.", "operation_class", "decision")
        self._denials = self._counter("denials", "Refusals by the rules they name.", "rule")
        self._leases = self._counter("lease_requests", "Lease requests.", "result")
        self.audit_failures = self._counter("audit_failures", "Audit records not written.")
        self.policy_in_force = self._gauge(
            "policy_in_force",
            "1: what the policy files say holds. 0: they have mistakes, and the last good policy holds.",
        )
        self.canary_ok = self._gauge(
            "canary_ok",
            "1: an unstamped request was denied. 0: it was not. NaN: not tried yet, or no plugin asked for.",
        )
        self.lifecycle_ok = self._gauge(
            "lifecycle_ok",
            "1: ds01-lifecycle is at work. 0: it is not, so no time limit ends a container. NaN: not looked at yet.",
        )
        self.connections = self._gauge("open_connections", "Open client connections.")
        self._decision_seconds = Histogram(
            "ds01_decision_seconds",
            "From a request's head to the record of its decision, its waiting for a turn included.",
            buckets=_BUCKETS_SECONDS,
            registry=self.registry,
        )
        # A label is looked up once: the data path only adds.
        self._by_outcome = {
            (kind, decided): self._requests.labels(kind, decided.value)
            for kind in (*operation_classes, UNKNOWN)
            for decided in Decided
        }
        self._by_rule = {rule: self._denials.labels(rule) for rule in rules}
        self._by_result = {result: self._leases.labels(result.value) for result in LeaseResult}
        for unknown in (self.canary_ok, self.lifecycle_ok):
            unknown.set(math.nan)  # INVARIANT: unknown is never 0

    def decided(
        self, operation_class: str, decision: Decided, seconds: float, rules: Iterable[str] = ()
    ) -> None:
        """One request was decided, `seconds` after its head was read. operation_class: UNKNOWN for what was not read."""
        self._by_outcome[operation_class, decision].inc()
        self._decision_seconds.observe(seconds)
        for rule in rules:
            if rule in self._by_rule:  # a label is from the closed set, or it is none
                self._by_rule[rule].inc()

    def leased(self, result: LeaseResult) -> None:
        """GPUs were asked for."""
        self._by_result[result].inc()

    def exposition(self) -> bytes:
        """The text that Prometheus scrapes."""
        return generate_latest(self.registry)

    def _counter(self, noun: str, meaning: str, *labels: str) -> Counter:
        return Counter(f"ds01_{noun}_total", meaning, labels, registry=self.registry)

    def _gauge(self, noun: str, meaning: str) -> Gauge:
        return Gauge(f"ds01_{noun}", meaning, registry=self.registry)
