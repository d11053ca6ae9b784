"""What prune filters select, as dockerd's own prune would."""

from __future__ import annotations

import pytest

from policy.dockerapi.model import MalformedRequest
from policy.dockerapi.selection import Candidate, moment, select

NOW = moment("2026-01-02T12:00:00Z")
OLD = Candidate(labels={"a": "1", "b": ""}, created_seconds=NOW - 7200)


@pytest.mark.parametrize(
    ("filters", "taken"),
    [
        ({}, True),
        ({"label": {"a": True}}, True),
        ({"label": {"a=1": True}}, True),
        ({"label": {"a=2": True}}, False),
        ({"label": {"a": True, "c": True}}, False),
        ({"label!": {"c": True}}, True),
        ({"label!": {"a=1": True}}, False),
        ({"label!": {"a=2": True}}, True),
        ({"until": {"1h": True}}, True),
        ({"until": {"1h30m": True}}, True),
        ({"until": {"3h": True}}, False),
        ({"until": {"2026-01-02T11:00:00Z": True}}, True),
        ({"until": {"2026-01-02T09:00:00.123456789+00:00": True}}, False),
        ({"until": {"2026-01-02": True}}, False),
        ({"until": {str(int(NOW)): True}}, True),
        ({"label": {"a": True}, "until": {"3h": True}}, False),
    ],
    ids=str,
)
def test_all_filters_must_select(filters: dict[str, dict[str, bool]], taken: bool) -> None:
    """Filters are ANDed, and so are the values of one filter."""
    assert select(filters, OLD, now_seconds=NOW) is taken


def test_an_unknown_age_is_never_old_enough() -> None:
    """Unknown is not zero: nothing is removed for an age that nobody knows."""
    assert not select({"until": {"1h": True}}, Candidate(labels={}, created_seconds=None), now_seconds=NOW)


@pytest.mark.parametrize("text", ["yesterday", "", "1x", "h", "-1h"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A filter that cannot be read removes nothing."""
    with pytest.raises(MalformedRequest):
        select({"until": {text: True}}, OLD, now_seconds=NOW)
