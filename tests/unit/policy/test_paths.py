"""Paths as text."""

from __future__ import annotations

import pytest

from policy.paths import clean_path, is_forbidden_source, is_forbidden_target, is_under


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("/a/", "/a"),
        ("//a//b/.", "/a/b"),
        ("/a/../..", "/"),
        ("a", None),
        ("", None),
        ("/a\n", None),
        ("/a\x00", None),
    ],
)
def test_cleaning(text: str, clean: str | None) -> None:
    """As the engine cleans paths; relative ones and control characters are none."""
    assert clean_path(text) == clean


@pytest.mark.parametrize(
    "path", ["/", "/var", "/etc", "/run/docker.sock", "/dev/sda", "/var/lib/docker/volumes", "/root/x"]
)
def test_sources_that_nobody_gets(path: str) -> None:
    """The system's folders, all in them, and what holds them."""
    assert is_forbidden_source(path)


def test_neighbours_are_free() -> None:
    """Only whole names count."""
    assert not is_forbidden_source("/etcetera")
    assert not is_under("/home/alicex", "/home/alice")
    assert not is_forbidden_target("/dev/shm/x")
    assert is_forbidden_target("/dev/shmx")
