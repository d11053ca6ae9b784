"""`ds01 gpu`, `queue`, `why-full`: answers of the allocator in words."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.gpu import queue, state, table, why_full

ALICE = 1000


def _device(index: str = "0", **changes: Any) -> dict[str, Any]:
    return {
        "uuid": f"GPU-{index}",
        "index": index,
        "kind": "gpu",
        "profile": "NVIDIA A100-SXM4-40GB",
        "state": "ok",
        "remark": None,
        "memory_mib": 40960,
        "measures": {"memory_used_mib": 0, "utilisation_percent": 0.0},
        "held": False,
        "in_use": False,
        "holder": None,
        "holder_uid": None,
        "since": None,
        "ends_at": None,
        "obstacle": None,
    } | changes


def _obstacle(kind: str, message: str = "so it is") -> dict[str, Any]:
    return {"obstacle": {"kind": kind, "message": message}}


def _inventory(*devices: dict[str, Any], **changes: Any) -> dict[str, Any]:
    of_a_look: dict[str, Any] = {
        "state": "ok",
        "problem": None,
        "unidentified": {},
        "age_seconds": 1.0,
        "fresh": True,
    }
    return of_a_look | {"devices": list(devices)} | changes


@pytest.mark.parametrize(
    ("device", "word"),
    [
        pytest.param(_device(), "free", id="free"),
        pytest.param(_device(held=True, holder="alice", holder_uid=ALICE), "yours", id="own"),
        pytest.param(_device(held=True), "leased", id="anothers"),
        pytest.param(_device(in_use=True), "in use", id="process"),
        pytest.param(_device(in_use=None), "unknown", id="unknown-is-not-free"),
        pytest.param(
            _device(state="unusable", mig_mode={"current": True, "pending": True}), "MIG", id="split"
        ),
        pytest.param(
            _device(state="unusable", mig_mode={"current": False, "pending": True}),
            "unusable",
            id="on-its-way",
        ),
        pytest.param(_device(state="quarantined"), "quarantined", id="broken"),
        pytest.param(_device(state="lost", held=True, holder_uid=ALICE), "lost", id="lost-and-held"),
        pytest.param(_device(**_obstacle("reserved")), "reserved", id="reserved"),
        pytest.param(_device(**_obstacle("unattributed")), "unattributed", id="memory-of-nobody"),
        pytest.param(_device(**_obstacle("held")), "leased", id="its-gpu-is-leased"),
        pytest.param(_device(**_obstacle("outage")), "unknown", id="nothing-is-known-now"),
        pytest.param(_device(**_obstacle("of another commit")), "unknown", id="no-word-of-ours"),
    ],
)
def test_a_device_is_free_only_if_that_is_known(device: dict[str, Any], word: str) -> None:
    """What is wrong with it comes first."""
    assert state(device, ALICE) == word


def test_the_table_shows_each_device_in_nvidias_order() -> None:
    """N/A where the driver does not say, and remarks below; nothing that a name could do to a terminal."""
    unknown = {"memory_used_mib": None, "utilisation_percent": None}
    shown = table(
        _inventory(
            _device("10", state="quarantined", remark="XID 79"),
            _device(
                "2",
                held=True,
                holder="bob\x1b[31m",
                since="2026-01-01T00:00:00Z",
                ends_at="2026-01-02T00:00:00Z",
            ),
            _device("2:1", measures=unknown, profile="1g.5gb", memory_mib=None),
        ),
        uid=ALICE,
    )
    head, second, part, tenth, remark = shown.splitlines()
    assert head.split() == ["DEVICE", "CLASS", "STATE", "HOLDER", "SINCE", "ENDS", "UTIL", "MEMORY"]
    assert second.startswith("2 ")
    assert "leased" in second
    assert "2026-01-02T00:00:00Z" in second
    assert part.split() == ["2:1", "1g.5gb", "free", "-", "-", "-", "N/A", "N/A", "/", "N/A", "MiB"]
    assert tenth.startswith("10")
    assert remark == "10: XID 79"
    assert "\x1b" not in shown


def test_what_a_holder_was_told_is_below_the_table() -> None:
    """Once for a lease of several devices; nothing for who sees no note."""
    told = {"held": True, "holder": "alice", "holder_uid": ALICE, "note": "XID 31\x1b"}
    lines = table(_inventory(_device("0", **told), _device("1", **told)), uid=ALICE).splitlines()
    assert lines[3:] == ["alice: XID 31\\x1b"]
    assert len(table(_inventory(_device(held=True, note=None)), uid=ALICE).splitlines()) == 2


def test_what_ds01_did_not_make_is_named_where_it_is_told() -> None:
    """To root; others see the device in use."""
    for told, holder in (({"foreign": "old"}, "container old"), ({}, "in use")):
        line = table(_inventory(_device(in_use=True, **told)), uid=ALICE).splitlines()[1]
        assert line.partition("in use")[2].strip().startswith(holder)


def test_whose_a_foreign_container_may_be_is_told_once() -> None:
    """With the evidence, or with what was found instead; however many devices it has."""
    running = {"runs": True, "monitor": False}
    told = {"container": "old", "container_id": "f", "owner_uid": 0, "why": "name old._.0", **running}
    other = {**told, "container": "x\x1b", "container_id": "e", "runs": False, "owner_uid": None, "why": None}
    watching = {**told, "container": "dcgm", "container_id": "d", "monitor": True}
    devices = [_device(at, in_use=True, foreign="old", foreign_owners=[told, other, watching]) for at in "01"]
    assert table(_inventory(*devices), uid=ALICE).splitlines()[3:] == [
        "container dcgm: ds01 did not make it; it takes no GPU, by gpu.monitors of the policy",
        "container old: ds01 did not make it; probably root's, by name old._.0",
        "stopped container x\\x1b: ds01 did not make it; whose it is: not looked at yet",
    ]


def test_no_gpus_and_no_driver_are_told_apart() -> None:
    """And old news is called old."""
    assert table(_inventory()) == "no GPUs"
    assert table(_inventory(state="unavailable", problem="no driver", age_seconds=None)) == (
        "never read: the GPUs cannot be read now, and none is given: no driver"
    )
    old = table(_inventory(_device(**_obstacle("outage")), state="unavailable", age_seconds=61.0))
    assert "as of 61 s ago" in old.splitlines()[-1]
    assert "free" not in old
    assert "never read" in table(_inventory(_device(), state="unavailable", age_seconds=None))


def test_gpus_that_do_not_say_which_they_are_are_told() -> None:
    """They are in no list: without a line of their own they would not be there."""
    mute = {"0": "it has never answered\x1b"}
    said = "GPU 0 could not be read: it has never answered\\x1b"
    line: dict[str, Any] = {"waiting": [], "reservations": []}
    assert table(_inventory(unidentified=mute)) == said
    assert table(_inventory(_device("1"), unidentified=mute)).splitlines()[-1] == said
    assert why_full(_inventory(unidentified=mute), line) == said
    assert said in why_full(_inventory(_device("1"), unidentified=mute), line)
    assert said in why_full(_inventory(_device("1", held=True), unidentified=mute), line)


WAITING = {
    "position": 1,
    "owner_name": None,
    "request_id": None,
    "wants": {"count": 2, "profile": "1g.5gb", "memory_mib": 4000},
    "priority": 0,
    "waited_seconds": 65,
    "wait_seconds": 3600,
    "refusal": "in_use",
}
WINDOW = {
    "reservation": "r1",
    "name": "course",
    "count": 2,
    "profile": "full",
    "begins_at": "2026-01-06T10:00:00Z",
    "ends_at": "2026-01-06T12:00:00Z",
    "running": True,
    "needs": 0,
}


def test_the_queue_says_who_waits_for_what() -> None:
    """Others are somebody; what is kept stands below."""
    lines = queue({"waiting": [WAITING], "reservations": [WINDOW]}).splitlines()
    assert lines[1].split() == [
        "1",
        "somebody",
        "2",
        "x",
        "1g.5gb",
        "of",
        "4000",
        "MiB",
        "1m05s",
        "1h00m",
        "in_use",
    ]
    assert "course" in lines[-1]
    assert "now" in lines[-1]
    assert queue({"waiting": [], "reservations": []}) == "nobody waits for a GPU"
    named = {**WAITING, "owner_name": "alice", "wants": {"device_ids": ["0", "1"]}, "waited_seconds": 5}
    assert "0, 1" in queue({"waiting": [named], "reservations": []})


def test_why_it_is_full() -> None:
    """Who has what, when the first ends, who waits, and the command that helps."""
    line = {"waiting": [WAITING], "reservations": [WINDOW]}
    held = _device("0", held=True, holder="bob", ends_at="2026-01-02T00:00:00Z")
    now = datetime(2026, 1, 1, tzinfo=UTC)
    said = why_full(_inventory(held, _device("1", in_use=True)), line, now=now)
    assert "1 NVIDIA A100-SXM4-40GB leased by bob" in said
    assert "1 NVIDIA A100-SXM4-40GB in use" in said
    assert "the first lease ends at 2026-01-02T00:00:00Z" in said
    assert "1 wait already" in said
    assert "2 kept for course" in said
    assert "overdue" not in said
    assert "ds01.wait=TIME" in said
    late = why_full(_inventory(held, _device("1", held=True)), line, now=now + timedelta(days=2)).splitlines()
    assert "no lease has an end that is known" in late
    assert "1 overdue: the lease should have ended, and its container goes on" in late
    endless = why_full(_inventory(_device(held=True)), {"waiting": [], "reservations": []})
    assert "no lease has an end" in endless


def test_what_nobody_gets_is_not_free() -> None:
    """What is kept, and what somebody uses who cannot be seen: in the table with the words, and not where it is full."""
    kept, ghost = (
        _device("0", **_obstacle("reserved", "kept for x")),
        _device("1", **_obstacle("unattributed", "odd\x1b")),
    )
    shown = table(_inventory(kept, ghost), uid=ALICE).splitlines()
    assert shown[3:] == ["0: kept for x", "1: odd\\x1b"]
    said = why_full(_inventory(kept, ghost), {"waiting": [], "reservations": []})
    assert "not full" not in said
    assert "1 NVIDIA A100-SXM4-40GB reserved" in said
    assert "1 NVIDIA A100-SXM4-40GB unattributed" in said


def test_what_is_not_fresh_any_more_has_its_age() -> None:
    """Though nobody has called it an outage yet."""
    late = _inventory(_device(), fresh=False, age_seconds=17.2)
    line: dict[str, Any] = {"waiting": [], "reservations": []}
    assert "as of 17 s ago" in table(late).splitlines()[-1]
    assert "as of 17 s ago" in why_full(late, line)
    assert "as of" not in table(_inventory(_device()))
    gone = _inventory(_device(**_obstacle("outage")), state="unavailable", fresh=False, age_seconds=17.2)
    assert "as of 17 s ago: the GPUs cannot be read" in why_full(gone, line)


def test_it_is_not_full_while_something_is_free() -> None:
    """Then it says what; without any device it says that."""
    line: dict[str, Any] = {"waiting": [], "reservations": []}
    assert "not full: 0 (NVIDIA A100-SXM4-40GB) free" in why_full(_inventory(_device()), line)
    assert why_full(_inventory(), line) == "no GPUs"
