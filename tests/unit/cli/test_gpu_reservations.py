"""`ds01 gpu reservations`, `reserve` and the table below the queue: answers of the allocator in words."""

from __future__ import annotations

from typing import Any

from cli.gpu_reservations import kept, listed, made

RESERVATION: dict[str, Any] = {
    "id": "ab",
    "count": 2,
    "profile": "full",
    "name": "course",
    "when": "Tue 10:00-12:00",
    "source": "uid 0",
    "by": "ann",
    "reason": "a\x1bcourse",
}
TIME: dict[str, Any] = {
    "begins_at": "2026-01-06T10:00:00Z",
    "ends_at": "2026-01-06T12:00:00Z",
    "running": False,
}


def test_each_reservation_is_a_line_with_its_next_time() -> None:
    """Who made it, why, and what it lacks, as far as is known; one without a further time is over."""
    ahead = RESERVATION | {"next": TIME | {"needs": 1}}
    running = RESERVATION | {"next": TIME | {"running": True, "needs": None}, "reason": None}
    over = RESERVATION | {"next": None, "source": "policy", "by": None}
    lines = [" ".join(line.split()) for line in listed({"reservations": [ahead, running, over]}).splitlines()]
    assert lines == [
        "ID RESERVED FOR WHEN NEXT FROM TO NEEDS MADE BY WHY",
        "ab 2 x full course Tue 10:00-12:00 2026-01-06T10:00:00Z 2026-01-06T12:00:00Z 1 ann a\\x1bcourse",
        "ab 2 x full course Tue 10:00-12:00 now 2026-01-06T12:00:00Z unknown ann -",
        "ab 2 x full course Tue 10:00-12:00 over - - policy a\\x1bcourse",
    ]
    assert listed({"reservations": []}) == "nothing is reserved"


def test_what_a_reservation_lacks_is_below_the_queue() -> None:
    """So that somebody can be asked in time."""
    window = TIME | {"reservation": "ab", "name": "course", "count": 2, "profile": "full", "needs": 1}
    lines = [line.split() for line in kept([window])]
    assert lines[1] == ["RESERVED", "FOR", "FROM", "TO", "NEEDS", "ID"]
    assert lines[2][-3:] == ["ahead", "1", "ab"]
    assert kept([]) == []


def test_a_reservation_says_how_it_ends() -> None:
    """With its id, and a warning where there is one."""
    said = made(RESERVATION | {"warning": None}).splitlines()
    assert said == ["2 x full kept for course, Tue 10:00-12:00", "take it back: ds01 gpu unreserve ab"]
    assert "warning: too much" in made(RESERVATION | {"warning": "too much"})
