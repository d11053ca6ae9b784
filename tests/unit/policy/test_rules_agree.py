"""Rules and their tests are the same set; their pages are held against them in tests/corpus/test_rule_pages.py."""

from __future__ import annotations

from pathlib import Path

from policy.rules import RULES

ROOT = Path(__file__).parents[3]


def test_rules_and_tests_agree() -> None:
    """Every rule has a module and a test, and none is left over."""
    rules = {rule.id for rule in RULES}
    assert len(rules) == len(RULES)
    assert rules == {path.stem for path in (ROOT / "policy/rules").glob("*.py")} - {"__init__"}
    assert rules == {
        path.stem.removeprefix("test_") for path in (ROOT / "tests/unit/policy/rules").glob("test_*.py")
    }
