"""The corpus of attacks as files: each can be read, says all it must, and is judged by something."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.attacks.model import CORPUS, CorpusError, load, load_all
from tests.attacks.plays import PLAYS

GOOD = {
    "title": "t",
    "danger": "d",
    "source": "s",
    "steps": [{"create": {}, "refused": {"status": 403, "rule": "x"}}],
    "shown_by": ["state"],
}


def test_every_file_can_be_read() -> None:
    """At least the two hundred of the first release, and no play that nobody has written."""
    attacks = load_all()
    assert len(attacks) >= 200
    assert len({attack.id for attack in attacks}) == len(list(CORPUS.rglob("*.yaml")))
    named = {step.given["play"] for attack in attacks for step in attack.steps if step.kind == "play"}
    assert named == set(PLAYS)


@pytest.mark.parametrize(
    "change",
    [
        pytest.param({"shown_by": []}, id="judged by nothing"),
        pytest.param({"shown_by": ["status"]}, id="an unknown judge"),
        pytest.param({"danger": " "}, id="no danger"),
        pytest.param({"more": 1}, id="an unknown key"),
        pytest.param({"steps": [{"create": {}, "ok": True}]}, id="only preparations"),
        pytest.param({"steps": [{"create": {}}]}, id="no end"),
        pytest.param({"steps": [{"create": {}, "ok": True, "answered": 200}]}, id="two ends"),
        pytest.param({"steps": [{"create": {}, "refused": {"status": 403}}]}, id="a status without a reason"),
        pytest.param({"steps": [{"tell": "x", "answered": 200}]}, id="an unknown step"),
        pytest.param({"steps": [{"create": {}, "through": "window", "answered": 200}]}, id="an unknown door"),
        pytest.param({"steps": []}, id="no steps"),
    ],
)
def test_a_file_that_would_try_nothing_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    """A slip in a file must not become an attack that is counted and never judged."""
    path = tmp_path / "family" / "x.yaml"
    path.parent.mkdir()
    path.write_text(yaml.safe_dump(GOOD))
    assert load(path, tmp_path).id == "family/x"
    path.write_text(yaml.safe_dump({**GOOD, **change}))
    with pytest.raises(CorpusError):
        load(path, tmp_path)
