"""Everything that could be counted is visible before it happens, and counted when it does."""

from __future__ import annotations

from observability.metrics import UNKNOWN, Decided, LeaseResult, Metrics


def made() -> Metrics:
    return Metrics(operation_classes=("own",), rules=("privileged",))


def shown(metrics: Metrics) -> str:
    return metrics.exposition().decode()


def test_all_series_exist_from_the_start() -> None:
    """Zero is visible, and what was not looked at is unknown, not 0."""
    text = shown(made())
    for decision in Decided:
        for kind in ("own", UNKNOWN):
            assert f'ds01_requests_total{{decision="{decision.value}",operation_class="{kind}"}} 0.0' in text
    for result in LeaseResult:
        assert f'ds01_lease_requests_total{{result="{result.value}"}} 0.0' in text
    assert 'ds01_denials_total{rule="privileged"} 0.0' in text
    assert "ds01_canary_ok NaN" in text
    assert "ds01_lifecycle_ok NaN" in text
    assert "ds01_audit_failures_total 0.0" in text


def test_a_decision_is_counted_under_its_kind_and_rules() -> None:
    """With the time it took; a rule from outside the set makes no series of its own."""
    metrics = made()
    metrics.decided("own", Decided.DENIED, 0.003, ("privileged", "made-up"))
    metrics.leased(LeaseResult.REFUSED)
    text = shown(metrics)
    assert 'ds01_requests_total{decision="denied",operation_class="own"} 1.0' in text
    assert 'ds01_denials_total{rule="privileged"} 1.0' in text
    assert 'ds01_lease_requests_total{result="refused"} 1.0' in text
    assert 'ds01_decision_seconds_bucket{le="0.002"} 0.0' in text
    assert 'ds01_decision_seconds_bucket{le="0.005"} 1.0' in text
    assert "made-up" not in text


def test_two_daemons_in_one_process_do_not_collide() -> None:
    """Each has its own registry."""
    first, second = made(), made()
    first.audit_failures.inc()
    assert "ds01_audit_failures_total 0.0" in shown(second)
