"""The corpus of creates: decision and the rules behind it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from policy.model import Effect
from tests.fakes.policy_world import create, decide

CORPUS = Path(__file__).parents[2] / "corpus" / "policy"
CASES = [case for path in sorted(CORPUS.glob("*.yaml")) for case in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_corpus(case: dict[str, Any]) -> None:
    """Each create is allowed, or refused by exactly the rules listed."""
    decision = decide(create(case["host"]))
    assert sorted({reason.rule for reason in decision.reasons}) == case["rules"]
    assert (decision.effect is Effect.ALLOW) == (not case["rules"])
