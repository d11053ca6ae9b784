"""Decisions in words."""

from __future__ import annotations

import pytest

from policy.explain import explain, message, not_visible, notes
from policy.model import Kind, Reference, RequestId
from tests.fakes.policy_world import create, decide

ID = RequestId("abc123abc123")


def test_a_refusal_names_rule_limit_and_next_step() -> None:
    """One line of ASCII, whatever the request held."""
    text = message(decide(create({"PidMode": "host\n\x1b[31m"})), ID)
    assert text.isascii()
    assert text.isprintable()
    for part in ("HostConfig.PidMode", "rule namespaces", "leave out --pid", "ds01 explain abc123abc123"):
        assert part in text


def test_notes_tell_what_was_lowered() -> None:
    """The user hears of a lowered limit, and nothing of what is always set."""
    decision = decide(create({"Memory": 10**13}))
    assert notes(decision) == ("ds01: Memory lowered to 8GiB, the limit of your account",)
    assert "changed: ds01: Memory" in explain(decision)
    assert notes(decide(create())) == ()


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Kind.CONTAINER, "x", "No such container: x"),
        (Kind.EXEC, "x", "No such exec instance: x"),
        (Kind.VOLUME, "x", "get x: no such volume"),
        (Kind.NETWORK, "x", "network x not found"),
        (Kind.IMAGE, "h:5000/x", "No such image: h:5000/x:latest"),
        (Kind.IMAGE, "x:1", "No such image: x:1"),
    ],
)
def test_absent_objects_in_the_engines_words(kind: Kind, text: str, words: str) -> None:
    """As dockerd says it, so that clients do what they always do."""
    assert not_visible(Reference(kind=kind, text=text)) == words
