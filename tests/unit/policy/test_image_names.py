"""One image has one spelling, and a repository is its name without tag and digest."""

from __future__ import annotations

import pytest

from policy.image_names import familiar, repository


@pytest.mark.parametrize(
    ("text", "name"),
    [("a", "a"), ("a:1", "a"), ("h:5000/a", "h:5000/a"), ("h:5000/a:1", "h:5000/a"), ("a@sha256:0", "a"),
     ("h:5000/a:1@sha256:0", "h:5000/a")],
)  # fmt: skip
def test_a_repository_is_a_name_without_its_tag(text: str, name: str) -> None:
    """A port is no tag."""
    assert repository(text) == name


@pytest.mark.parametrize(
    ("text", "tag"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox", "busybox:latest"),
        ("docker.io/alice/x:1", "alice/x:1"),
        ("index.docker.io/library/busybox:1", "busybox:1"),
        ("host:5000/x", "host:5000/x:latest"),
        ("host:5000/x:2", "host:5000/x:2"),
        ("x@sha256:1", "x@sha256:1"),
    ],
)
def test_one_image_has_one_spelling(text: str, tag: str) -> None:
    """Ownership by tag would be lost with a second spelling."""
    assert familiar(text) == tag
    assert familiar(tag) == tag
