"""Whose a record of the build cache is."""

from __future__ import annotations

import pytest

from policy.buildkit.records import is_own
from policy.model import Uid

MOUNT = 'cached mount /c from exec /bin/sh -c make with id "ds01-1000//c"'


@pytest.mark.parametrize(
    ("kind", "description", "own"),
    [
        pytest.param("exec.cachemount", MOUNT, True, id="own"),
        pytest.param("exec.cachemount", MOUNT.replace("1000", "1001"), False, id="anothers"),
        pytest.param("exec.cachemount", MOUNT.replace("1000", "10001"), False, id="longer-number"),
        pytest.param("regular", MOUNT, False, id="a-layer-that-says-so"),
        pytest.param("source.local", "local source for context", False, id="context"),
        pytest.param("exec.cachemount", "", False, id="nothing"),
        pytest.param(
            "exec.cachemount",
            'cached mount /c from exec sh -c echo with id "ds01-1000/x" with id "ds01-1001//c"',
            False,
            id="said-in-a-command",
        ),
        pytest.param("exec.cachemount", MOUNT.removesuffix('"'), False, id="cut-short"),
    ],
)
def test_only_cache_mounts_in_the_own_namespace(kind: str, description: str, *, own: bool) -> None:
    """What BuildKit says last counts, for a command stands before it; unknown is not one's own."""
    assert is_own(Uid(1000), kind=kind, description=description) is own
