"""Which builder a call to /build is meant for."""

from __future__ import annotations

import pytest

from policy.buildkit.builder import is_buildkit


@pytest.mark.parametrize(
    ("query", "expected"),
    [({}, False), ({"version": ("1",)}, False), ({"version": ("2",)}, True), ({"version": ("02",)}, False)],
)
def test_the_version_says_it(query: dict[str, tuple[str, ...]], *, expected: bool) -> None:
    """And nothing else does."""
    assert is_buildkit(query) is expected
