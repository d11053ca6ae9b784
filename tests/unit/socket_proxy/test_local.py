"""What ds01 says of devices: free only when known to be, and the holder's name for the holder and admins alone."""

from __future__ import annotations

import pytest

from policy.model import Json
from socket_proxy.local import _device, _listed

OWN = frozenset({"GPU-2"})
FREE: dict[str, Json] = {
    "uuid": "GPU-1",
    "state": "ok",
    "held": False,
    "in_use": False,
    "holder": None,
    "obstacle": None,
}


@pytest.mark.parametrize(
    ("changes", "state"),
    [
        ({}, "free"),
        ({"held": True, "uuid": "GPU-2"}, "yours"),
        ({"held": True, "holder": "an account of the same name, removed"}, "busy"),
        ({"in_use": True}, "busy"),
        ({"in_use": None}, "unknown"),
        ({"state": "quarantined"}, "unusable"),
        ({"state": None}, "unusable"),
        ({"obstacle": {"kind": "reserved", "message": "kept"}}, "reserved"),
        ({"obstacle": {"kind": "unattributed", "message": "memory"}}, "busy"),
        ({"obstacle": {"kind": "outage", "message": "unreadable"}}, "unknown"),
        ({"obstacle": "a word of another commit"}, "unknown"),
    ],
)
def test_unknown_is_never_free(changes: dict[str, Json], state: str) -> None:
    """A device is free only if it works, nobody holds it and no process uses it."""
    assert _device(FREE | changes, OWN, admin=False)["state"] == state


def test_an_allocator_that_does_not_say_says_not_free() -> None:
    """One of an earlier commit tells no obstacle."""
    silent = {key: value for key, value in FREE.items() if key != "obstacle"}
    assert _device(silent, OWN, admin=False)["state"] == "unknown"


def test_before_the_first_look_no_device_is_not_none() -> None:
    """An empty list counts only of a look; so does a list at all."""
    assert _listed({"devices": [FREE, "odd"], "age_seconds": 9.0}) == [FREE]
    assert _listed({"devices": [], "age_seconds": 0.0}) == []
    assert _listed({"devices": [], "age_seconds": None}) is None
    assert _listed({"age_seconds": 1.0}) is None


def test_only_admins_read_the_holder() -> None:
    """Whose a busy GPU is, is not a user's business."""
    held = FREE | {"held": True, "holder": "bob", "lease": "l", "pids": [7]}
    assert "bob" not in _device(held, OWN, admin=False).values()
    assert not {"lease", "pids"} & _device(held, OWN, admin=True).keys()
    assert _device(held, OWN, admin=True)["holder"] == "bob"
