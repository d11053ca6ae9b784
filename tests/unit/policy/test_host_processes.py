"""`gpu:` of a policy file: what becomes of GPU processes on the host."""

from __future__ import annotations

import pytest

from policy.compile import compile_policy
from policy.document import PolicyInvalid, parse
from policy.host_processes import Exemption, HostProcesses, HostRule

NEW_YEAR = 1798761600  # 2027-01-01T00:00Z


def read(text: str) -> HostProcesses:
    return parse(f"version: 1\ngpu: {text}\n").gpu


def test_silence_means_report() -> None:
    """Nobody's process is touched unless the admin says so."""
    assert parse("version: 1\n").gpu == HostProcesses()
    assert HostProcesses().host_processes is HostRule.REPORT
    assert HostProcesses().unleased is HostRule.REPORT


def test_rule_grace_and_exemptions_are_read() -> None:
    """A day counts in full; a time without an offset is UTC."""
    found = read(
        "{host_processes: stop, unleased: warn, grace: 2h, exempt: ["
        "{user: alice, until: 2026-12-31, reason: day},"
        " {user: bob, until: 2027-01-01T00:00Z, reason: time},"
        " {user: bob, until: '2027-01-01 02:00+01:00', reason: later}]}"
    )
    assert (found.host_processes, found.grace_seconds) == (HostRule.STOP, 7200)
    assert found.unleased is HostRule.WARN
    assert found.exempt == (
        Exemption(user="alice", until=NEW_YEAR, reason="day"),
        Exemption(user="bob", until=NEW_YEAR, reason="time"),
        Exemption(user="bob", until=NEW_YEAR + 3600, reason="later"),
    )


def test_an_exemption_ends() -> None:
    """It holds for its user alone and until its time; of several the last one counts."""
    rules = read(
        "{exempt: [{user: bob, until: 2026-12-30, reason: a}, {user: bob, until: 2026-12-31, reason: b}]}"
    )
    last = rules.exemption("bob", now=NEW_YEAR - 1)
    assert last is not None
    assert last.reason == "b"
    assert rules.exemption("bob", now=NEW_YEAR) is None
    assert rules.exemption("alice", now=0) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{host_processes: kill}", "report, warn, stop"),
        ("{unleased: true}", "report, warn, stop"),
        ("{host_process: stop}", "did you mean host_processes?"),
        ("{grace: soon}", "must be a time"),
        ("{exempt: alice}", "must be a list"),
        ("{exempt: [{user: alice, reason: x}]}", "until is missing"),
        ("{exempt: [{user: alice, until: never, reason: x}]}", "a day or a time"),
        ("{exempt: [{user: alice, until: 2027-02-30, reason: x}]}", "a day or a time"),
        ("{exempt: [{user: alice, until: 2027-01-31}]}", "reason is missing"),
        ("{exempt: [{user: alice, for: 2h}]}", "unknown key for"),
    ],
)
def test_each_mistake_is_told(text: str, part: str) -> None:
    """With what to write instead: an exemption without an end is none."""
    with pytest.raises(PolicyInvalid, match=r"policy.yaml:2: gpu\.") as raised:
        read(text)
    assert part in str(raised.value)


def test_it_stands_in_one_file_and_counts_in_the_digest() -> None:
    """Two files that say it are a mistake; a change of it is a change of the policy."""
    with pytest.raises(PolicyInvalid, match=r"also in a\.yaml"):
        parse({"a.yaml": "version: 1\ngpu: {grace: 1m}", "b.yaml": "gpu: {grace: 2m}"})
    changed, silent = parse("version: 1\ngpu: {grace: 1m}"), parse("version: 1\n")
    assert compile_policy(changed).digest != compile_policy(silent).digest
