"""Labels, seals and cgroup parents."""

from __future__ import annotations

import pytest

from policy.model import RequestId, Uid
from policy.ownership import (
    SEALED,
    build_cgroup,
    cgroup_parent,
    changed_label,
    format_seal,
    is_reserved_label,
    labels,
    parse_seal,
    seal_message,
)
from tests.fakes.policy_world import ALICE, LEASE

NONCE = "0" * 32


@pytest.mark.parametrize("key", ["ds01.owner", "DS01.Owner", "dſ01.owner", "ds01.new", " ds01.owner"])
def test_reserved_labels_are_known_in_every_spelling(key: str) -> None:
    """Folding covers case and the long s."""
    assert is_reserved_label(key)


@pytest.mark.parametrize("key", ["ds01", "ds011.x", "com.docker.compose.project", "x.ds01.owner"])
def test_other_labels_are_free(key: str) -> None:
    """Only the prefix counts."""
    assert not is_reserved_label(key)


def test_what_was_changed_is_said_in_a_label_of_bounded_length() -> None:
    """Empty without notes: what is left out, dockerd takes from the image."""
    assert changed_label(()) == {"ds01.changed": ""}
    assert changed_label(("a", "b")) == {"ds01.changed": "a; b"}
    assert len(changed_label(("x" * 9000,))["ds01.changed"]) == 2000
    assert labels(ALICE, LEASE, RequestId("abc"))["ds01.changed"] == ""


def test_a_seal_reads_back() -> None:
    """Nonce and signature come out as they went in; anything else is no seal."""
    text = format_seal(NONCE, b"\x01" * 64)
    assert parse_seal(text) == (NONCE, b"\x01" * 64)
    for wrong in ("", text.upper(), text + "0", text + "\n", "v2" + text[2:]):
        assert parse_seal(wrong) is None
    with pytest.raises(ValueError, match="wrong form"):
        format_seal("short", b"")


def test_the_seal_covers_every_label_and_the_nonce() -> None:
    """A change of any sealed label, or text moved from one to the next, changes the message."""
    made = labels(ALICE, LEASE, RequestId("abc"))
    messages = {seal_message(made, NONCE), seal_message(made, "1" * 32)}
    messages |= {seal_message(made | {name: made[name] + "x"}, NONCE) for name in SEALED}
    messages.add(seal_message(made | {SEALED[0]: "alice1", SEALED[1]: "000"}, NONCE))
    assert len(messages) == len(SEALED) + 3


def test_cgroup_parents() -> None:
    """Each driver has its own spelling."""
    assert cgroup_parent(Uid(7), "cgroupfs") == "/ds01/7"
    assert cgroup_parent(Uid(7), "systemd") == "ds01-7.slice"
    with pytest.raises(ValueError, match="driver"):
        cgroup_parent(Uid(7), "other")


@pytest.mark.parametrize(
    ("driver", "path"),
    [("cgroupfs", "/ds01/1000/build"), ("systemd", "/ds01.slice/ds01-1000.slice/build")],
)
def test_builds_are_inside_the_users_cgroup(driver: str, path: str) -> None:
    """As a path, for BuildKit knows no slices."""
    assert build_cgroup(Uid(1000), driver) == path
