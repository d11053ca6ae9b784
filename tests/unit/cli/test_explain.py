"""A decision in full: who, when, what, each reason, and where to read on."""

from __future__ import annotations

from typing import Any

import pytest

from cli.explain import explain, subject
from cli.outcome import Exit, Failed

REASON = {
    "rule": "privileged",
    "field": "HostConfig.Privileged",
    "asked": "true",
    "limit": "false",
    "next_step": "leave out --privileged",
}


def record(**changes: Any) -> dict[str, Any]:
    found = {
        "request_id": "7f3ac0d1e2b4", "time": "2026-01-02T03:04:05.678Z", "actor": "alice", "uid": 1001, "door": "user",
        "method": "POST", "operation": "ContainerCreate", "decision": "refuse", "status": 403,
        "rules": ["privileged"], "message": "ds01: no", "reasons": [REASON],
    }  # fmt: skip
    return found | changes


def test_a_refusal_says_everything_a_user_needs() -> None:
    """Rule, field, what was asked, limit, next step, and the page of the rule."""
    text = explain(record())
    for part in (
        "alice (uid 1001)",
        "POST ContainerCreate",
        "refused with 403",
        "2026-01-02T03:04:05",
        *REASON.values(),
    ):
        assert part in text
    assert "docs/rules/privileged.md" in text


def test_an_allow_has_only_rule_names() -> None:
    """The audit line of an allow names rules alone, and that is shown."""
    text = explain(record(decision="allow", reasons=["resources"], rules=None, message=None, leases=["l-1"]))
    assert "allowed" in text
    assert "docs/rules/resources.md" in text
    assert "l-1" in text


def test_a_refusal_without_reasons_names_its_rules() -> None:
    """What is not visible has a rule and no reason."""
    assert "docs/rules/ownership.md" in explain(record(reasons=[], rules=["ownership"]))


def test_only_rules_with_a_page_are_pointed_to() -> None:
    """A refused lease is no rule of the policy and has a page; an id of an older release has none."""
    assert "docs/rules/gpu_lease.md" in explain(record(reasons=[], rules=["gpu_lease"]))
    text = explain(record(reasons=[], rules=["no_such_rule"]))
    assert "no_such_rule" in text
    assert "docs/rules" not in text


def test_no_field_of_a_record_writes_to_the_terminal() -> None:
    """An admin explains what an attacker asked."""
    evil = "\x1b[2J\n"
    text = explain(
        record(
            operation=None,
            target=evil,
            message=evil,
            actor=evil,
            params={evil: evil},
            reasons=[dict.fromkeys(REASON, evil)],
        )
    )
    assert "\x1b" not in text
    assert "docs/rules" not in text


def test_what_was_changed_is_told() -> None:
    """One line for each change of a create."""
    text = explain(
        record(decision="allow", changed=["ds01: IpcMode host became private", "ds01: x"], message=None)
    )
    assert "IpcMode host became private" in text
    assert text.count("changed") == 2


@pytest.mark.parametrize("text", ["7f3ac0d1e2b4", "app_web_1", "web.2"])
def test_ids_and_names_of_containers_are_sent(text: str) -> None:
    """As they are."""
    assert subject(text) == text


@pytest.mark.parametrize("text", ["", "../status", ".", "a b", "a" * 256, "ab\n", "a/b", "a?b", "ä"])
def test_what_is_neither_is_not_sent(text: str) -> None:
    """The word becomes a part of a path."""
    with pytest.raises(Failed) as failed:
        subject(text)
    assert failed.value.code is Exit.USAGE
