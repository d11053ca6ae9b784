"""Images that a build must not read."""

from __future__ import annotations

import pytest

from policy.buildkit.sources import Match, Selector, selectors

DIGEST = "sha256:" + "1" * 64


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
    assert selectors([reference, reference]) == (
        Selector(identifier=f"docker-image://{full}", match=Match.EXACT),
        Selector(identifier=f"docker-image://{full}@*", match=Match.WILDCARD),
    )


def test_a_digest_is_denied_with_any_tag() -> None:
    """For the digest alone is looked up."""
    assert selectors([f"x@{DIGEST}"]) == (
        Selector(identifier=f"docker-image://docker.io/library/x*@{DIGEST}", match=Match.WILDCARD),
    )
