"""Everything that could be counted is visible before it happens."""

from __future__ import annotations

from observability.metrics import Decided, Metrics


def test_all_series_exist_from_the_start() -> None:
    """Zero is visible, and the canary's state is unknown, not 0."""
    text = Metrics(operation_classes=("own",), rules=("privileged",)).exposition().decode()
    for decision in Decided:
        assert f'ds01_requests_total{{decision="{decision.value}",operation_class="own"}} 0.0' in text
    assert 'ds01_denials_total{rule="privileged"} 0.0' in text
    assert "ds01_canary_ok NaN" in text
    assert "ds01_audit_failures_total 0.0" in text


def test_two_daemons_in_one_process_do_not_collide() -> None:
    """Each has its own registry."""
    first, second = Metrics(), Metrics()
    first.audit_failures.inc()
    assert b"ds01_audit_failures_total 0.0" in second.exposition()
