"""Which images a build reads by which names."""

from __future__ import annotations

import pytest

from policy.buildkit.model import Images
from policy.buildkit.sources import Action, Match, Rule, rules

DIGEST = "sha256:" + "1" * 64
OURS = Rule(action=Action.DENY, identifier="docker-image://ds01.invalid*", match=Match.WILDCARD)


def both(action: Action, full: str) -> tuple[Rule, Rule]:
    return (
        Rule(action=action, identifier=f"docker-image://{full}", match=Match.EXACT),
        Rule(action=action, identifier=f"docker-image://{full}@*", match=Match.WILDCARD),
    )


@pytest.mark.parametrize(
    ("reference", "full"),
    [
        ("x:latest", "docker.io/library/x:latest"),
        ("alice/x:1.0", "docker.io/alice/x:1.0"),
        ("docker.io/alice/x:1", "docker.io/alice/x:1"),
        ("reg.example/x:1", "reg.example/x:1"),
        ("localhost/x:1", "localhost/x:1"),
        ("reg:5000/a/b:1", "reg:5000/a/b:1"),
    ],
)
def test_a_tag_is_denied_by_its_full_name(reference: str, full: str) -> None:
    """And with any digest behind it."""
    assert rules(Images(hidden=(reference, reference))) == (OURS, *both(Action.DENY, full))


def test_a_digest_is_denied_with_any_tag() -> None:
    """For the digest alone is looked up."""
    assert rules(Images(hidden=(f"x@{DIGEST}",))) == (
        OURS,
        Rule(
            action=Action.DENY,
            identifier=f"docker-image://docker.io/library/x*@{DIGEST}",
            match=Match.WILDCARD,
        ),
    )


def test_an_own_name_is_converted_first_and_allowed() -> None:
    """Before anything is denied, another's image of that plain name included; of others' local names the shared ones are read."""
    images = Images(
        local={"app:1": "ds01.invalid/u1001/app:1"},
        shared=("ds01.invalid/u1002/base:1",),
        hidden=("app:1", "ds01.invalid/u1002/app:1"),
    )
    convert = Rule(
        action=Action.CONVERT,
        identifier="docker-image://docker.io/library/app:1",
        match=Match.WILDCARD,
        converted="docker-image://ds01.invalid/u1001/app:1",
    )
    rest = (
        OURS,
        *both(Action.ALLOW, "ds01.invalid/u1001/app:1"),
        *both(Action.ALLOW, "ds01.invalid/u1002/base:1"),
        *both(Action.DENY, "docker.io/library/app:1"),
        *both(Action.DENY, "ds01.invalid/u1002/app:1"),
    )
    assert rules(images) == (convert, *rest)
    assert rules(images, fetching=True) == rest, "--pull means what a registry has"
