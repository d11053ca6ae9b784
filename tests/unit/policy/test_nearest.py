"""What was meant by a name that is none."""

from __future__ import annotations

import pytest

from policy.nearest import hint


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        pytest.param("cuorse", ("students", "course"), "did you mean course?", id="near"),
        pytest.param("x", ("students", "course"), "known are students, course", id="far"),
        pytest.param("x", (), "known are none", id="nothing known"),
        pytest.param("course" * 10**5, ("course",), "known are course", id="very long"),
    ],
)
def test_a_name_is_suggested_where_one_is_near(name: str, known: tuple[str, ...], said: str) -> None:
    """Else all that there are."""
    assert hint(name, known) == said
