"""MIG layouts of a policy file."""

from __future__ import annotations

import pytest

from policy.document import PolicyInvalid, parse
from policy.document_mig import MigLayout


def _mig(text: str) -> tuple[MigLayout, ...]:
    return parse(f"version: 1\ngpu:\n  mig: {text}\n").mig


def test_layouts_are_read() -> None:
    """By index or UUID; profiles in order of their names, and none at all for a whole GPU."""
    found = _mig(
        "[{gpus: [0, GPU-5d5ba0d6], whole: true}, {gpus: [3], profiles: {3g.20gb: 1, 1g.5gb+me: 1}}]"
    )
    assert found == (
        MigLayout(gpus=("0", "GPU-5d5ba0d6"), profiles=None),
        MigLayout(gpus=("3",), profiles=(("1g.5gb+me", 1), ("3g.20gb", 1))),
    )
    assert _mig("[{gpus: [0], profiles: {}}]") == (MigLayout(gpus=("0",), profiles=()),)
    assert _mig("[]") == ()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("{gpus: [0]}", "must be a list", id="no-list"),
        pytest.param("[{whole: true}]", "needs gpus", id="no-gpus"),
        pytest.param("[{gpus: [], whole: true}]", "needs gpus", id="no-gpu"),
        pytest.param("[{gpus: [0]}]", "either profiles", id="neither"),
        pytest.param("[{gpus: [0], whole: true, profiles: {}}]", "either profiles", id="both"),
        pytest.param("[{gpus: [0], whole: false}]", "either profiles", id="not-whole"),
        pytest.param("[{gpus: [all], whole: true}]", "by UUID or by index", id="no-gpu-name"),
        pytest.param("[{gpus: [0], profiles: {big: 1}}]", "big is no MIG profile", id="no-profile"),
        pytest.param("[{gpus: [0], profiles: {1g.5gb: 8}}]", "from 0 to 7", id="too-many"),
        pytest.param("[{gpus: [0], profiles: {1g.5gb: 1, 1g.5gb: 2}}]", "written twice", id="twice"),
        pytest.param("[{gpus: [0], profiles: [1g.5gb]}]", "count for each profile", id="no-counts"),
        pytest.param(
            "[{gpus: [0], whole: true}, {gpus: [0], profiles: {}}]", "stands in two", id="two-layouts"
        ),
        pytest.param("[{gpus: [0], whole: true, mode: 1}]", "unknown key mode", id="unknown-key"),
    ],
)
def test_a_mistake_says_what_to_write(text: str, said: str) -> None:
    """With its line."""
    with pytest.raises(PolicyInvalid) as wrong:
        _mig(text)
    (mistake,) = wrong.value.mistakes
    assert said in mistake.message
    assert mistake.line == 3


def test_layouts_stand_in_one_file() -> None:
    """Two files that both split GPUs contradict each other sooner or later."""
    texts = {"a.yaml": "version: 1\ngpu: {mig: []}\n", "b.yaml": "gpu: {mig: []}\n"}
    with pytest.raises(PolicyInvalid, match=r"also in a\.yaml"):
        parse(texts)
