"""The words of refusals: limit, holders, first end, next step."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from allocator import refusals
from allocator.board import Board
from allocator.model import DeviceState, GroupLimit, Refusal, RefusalKind
from allocator.place import place
from allocator.queue import Claims, answer
from allocator.reservations import Reservation, Window
from policy.model import Uid
from policy.when import parse_when
from tests.fakes.fake_nvml import gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, lease, want

NOW = Clock()()
TWO = snapshot(gpu(0), gpu(1))


def refused(outcome: object) -> Refusal:
    assert isinstance(outcome, Refusal)
    return outcome


def test_a_full_machine_says_who_holds_what_class_and_when_it_ends() -> None:
    """Holders with their classes, the first lease that ends for certain, and the command that helps."""
    machine = snapshot(gpu(0), *split(1, "1g.5gb", "1g.5gb"))
    held = (
        replace(lease("a", gpu(0).uuid, owner=1), seconds=3600),
        replace(lease("b", mig(1, 0).uuid, mig(1, 1).uuid, owner=2), seconds=600),
    )
    text = refused(place(Board(machine, held, NOW), want(wait_most_seconds=3600))).message
    assert text == (
        "1 GPU asked, 0 GPUs and 0 MIG devices free (rule gpu_lease); held by user1 (1 GPU), user2 (2 1g.5gb); the"
        " earliest ends in 10min (2026-01-01 00:26 UTC); see ds01 gpu queue, or wait with --label ds01.wait=30m"
    )


def test_a_device_that_an_unseen_process_uses_is_told_so() -> None:
    """With who can find out more."""
    board = Board(TWO, (), NOW, unattributed=frozenset({gpu(0).uuid}))
    refused = refusals.not_free(board, want(), gpu(0))
    assert refused.waiting_helps
    assert "a process that cannot be seen" in refused.message


def test_a_device_of_a_foreign_container_is_told_without_its_name() -> None:
    """By name and by number, beside holders and alone; waiting helps."""
    board = Board(TWO, (), NOW, foreign=frozenset({gpu(0).uuid}))
    named = refused(place(board, want(count=None, device_ids=("0",))))
    assert "GPU 0 is used by a container that ds01 did not make (rule gpu_lease)" in named.message
    assert named.waiting_helps
    several = refused(place(board, want(count=2))).message
    assert "1 GPU free (rule gpu_lease); 1 used by containers that ds01 did not make; see" in several
    held = Board(TWO, (lease("a", gpu(1).uuid, owner=1),), NOW, foreign=frozenset({gpu(0).uuid}))
    both = refused(place(held, want())).message
    assert "held by user1 (1 GPU); 1 used by containers that ds01 did not make; none of it has" in both


@pytest.mark.parametrize(
    ("asked", "kind", "said"),
    [
        pytest.param(
            want(equivalents=Fraction(3, 7), device_ids=("0",), count=None),
            RefusalKind.NOT_ALLOWED,
            "GPU 0 is a GPU, you may have gpu, mig, at most 3/7 of a GPU",
            id="larger than the limit",
        ),
        pytest.param(
            want(classes=("mig",), device_ids=("0",), count=None),
            RefusalKind.NOT_ALLOWED,
            "you may have mig",
            id="class",
        ),
        pytest.param(
            want(equivalents=Fraction(1), count=2),
            RefusalKind.LIMIT,
            "2 of a GPU asked, limit is 1 (rule gpu_limit); ask for a smaller MIG profile",
            id="equivalents",
        ),
        pytest.param(
            want(groups=(GroupLimit(name="g", devices=1),), count=2),
            RefusalKind.LIMIT,
            "2 GPUs asked, limit is 1 for group g together (rule gpu_limit); ask for fewer",
            id="group, never",
        ),
        pytest.param(
            want(groups=(GroupLimit(name="h", devices=1),)),
            RefusalKind.GROUP_LIMIT,
            "group h holds 1",
            id="group, now",
        ),
        pytest.param(
            want(groups=(GroupLimit(name="h", equivalents=Fraction(1)),)),
            RefusalKind.GROUP_LIMIT,
            "group h holds 1 together, its limit is 1",
            id="group, equivalents",
        ),
        pytest.param(
            want(profile="2g.10gb"),
            RefusalKind.TOO_FEW,
            "1 MIG device 2g.10gb asked, this server has 0",
            id="no such",
        ),
    ],
)
def test_limits_are_told(asked: object, kind: RefusalKind, said: str) -> None:
    """What was asked, what is held, and the limit; waiting helps only where others can give something back."""
    held = (replace(lease("a", gpu(1).uuid, owner=7), groups=("h",)),)
    refusal = refused(place(Board(TWO, held, NOW), asked))  # type: ignore[arg-type]  # parametrised
    assert refusal.kind is kind
    assert said in refusal.message
    assert refusal.waiting_helps == (kind is RefusalKind.GROUP_LIMIT)


def test_what_is_not_known_is_not_called_absent_or_used() -> None:
    """Devices that do not answer are counted as out of service; where processes cannot be read it is said so."""
    silent = snapshot(gpu(0, state=DeviceState.UNRESPONSIVE), *split(1, "1g.5gb"))
    text = refused(place(Board(silent, (), NOW), want(count=2))).message
    assert "this server has 1 of one kind" in text
    assert "(gpu, mig), 1 device is out of service: tell the admin (rule gpu_lease)" in text
    unread = snapshot(gpu(0, pids=None), gpu(1, pids=None))
    text = refused(place(Board(unread, (), NOW), want())).message
    assert "of 2 devices the driver does not say whether they are in use" in text


@pytest.mark.parametrize(("value", "text"), [("2", "2"), ("3/7", "3/7"), ("10/7", "10/7"), ("3/2", "3/2")])
def test_amounts_are_in_slices(value: str, text: str) -> None:
    """Whole GPUs plainly, others in sevenths, and what is neither as it is."""
    assert refusals.sevenths(Fraction(value)) == text


def reservation(begin: float, end: float = 3600) -> Window:
    when = "daily 10:00-12:00"
    item = Reservation(
        id="r",
        group="course",
        name="course",
        count=2,
        when=parse_when(when),
        when_text=when,
        lead_seconds=900,
    )
    return Window(reservation=item, begin=begin, end=end)


FOUR = snapshot(gpu(0), gpu(1), gpu(2), gpu(3))
HELD = (replace(lease("a", gpu(0).uuid, owner=1), seconds=600),)
ENDS = "held by user1 (1 GPU); the earliest ends in 10min (2026-01-01 00:26 UTC); "
WAIT = "see ds01 gpu queue, or wait with --label ds01.wait=30m"
BY_NAME = {"count": None, "device_ids": ("1",)}


@pytest.mark.parametrize(
    ("asked", "windows", "ahead", "said"),
    [
        pytest.param(
            {"count": 2},
            [reservation(300)],
            [],
            "2 GPUs asked, 3 GPUs free (rule gpu_lease); what is free is kept for a reservation that begins in 5min;"
            f" {ENDS}give the container an end with --label ds01.gpu.time=4m, {WAIT}",
            id="before a reservation",
        ),
        pytest.param(
            {"count": 2},
            [reservation(-60)],
            [],
            "2 GPUs asked, 3 GPUs free (rule gpu_lease); what is free is kept for a reservation, for 1h 0min more;"
            f" {ENDS}{WAIT}",
            id="during a reservation",
        ),
        pytest.param(
            BY_NAME,
            [reservation(130), reservation(130)],
            [],
            "GPU 1 is kept for a reservation that begins in 2min (rule gpu_lease); others of its class are"
            f" {ENDS}ask for another device, give the container an end with --label ds01.gpu.time=70s, {WAIT}",
            id="a named device before a reservation",
        ),
        pytest.param(
            {"count": 1},
            [],
            [1, 2, 3],
            "1 GPU asked, 3 GPUs free (rule gpu_lease); what is free is for those who are ahead in the queue;"
            f" {ENDS}{WAIT}",
            id="behind others",
        ),
        pytest.param(
            BY_NAME,
            [],
            [1],
            "GPU 1 is for those who are ahead in the queue (rule gpu_lease); others of its class are"
            f" {ENDS}ask for another device, {WAIT}",
            id="a named device behind others",
        ),
    ],
)
def test_what_is_free_for_others_is_told_with_what_is_held(
    asked: dict[str, object], windows: list[Window], ahead: list[int], said: str
) -> None:
    """Why the free ones are not to be had, who holds the others of the class, the first end, and what helps."""
    claims = Claims(devices=frozenset(gpu(number).uuid for number in ahead))
    found = answer(Board(FOUR, HELD, NOW), want(wait_most_seconds=3600, **asked), windows, claims)
    assert refused(found.outcome).message == said


def test_a_full_group_is_told_with_who_of_it_holds_what() -> None:
    """So that one knows whom to ask."""
    held = (replace(HELD[0], groups=("g",)), lease("b", gpu(1).uuid, owner=2))
    group = (GroupLimit(name="g", devices=1),)
    text = refused(place(Board(FOUR, held, NOW), want(groups=group, wait_most_seconds=3600))).message
    assert text == (
        "1 GPU asked, group g holds 1 together, its limit is 1 (rule gpu_limit);"
        f" {ENDS}ask a member to give one back, {WAIT}"
    )


def test_room_for_who_is_ahead_is_told_with_who_uses_the_rest() -> None:
    """Of the same limits alone."""
    group = (GroupLimit(name="g", devices=3),)
    held = (replace(HELD[0], groups=("g",)), lease("b", gpu(1).uuid, owner=2))
    board = Board(FOUR, held, NOW)
    first = answer(board, want(owner_uid=Uid(7), count=3, groups=group), ())
    text = refused(answer(board, want(groups=group), (), first.claims).outcome).message
    assert text.startswith("what alice and the own group may still have is needed by a request ahead")
    assert f"(rule gpu_limit); {ENDS}see ds01 gpu queue" in text


@pytest.mark.parametrize(
    ("seconds", "said"), [(600, ", for 10min more (rule"), (0, " and is overdue (rule"), (None, "Z (rule")]
)
def test_a_named_device_is_told_with_how_long_it_is_held(seconds: int | None, said: str) -> None:
    """What should have ended has no end that could be told."""
    held = (replace(HELD[0], seconds=seconds),)
    assert said in refused(place(Board(TWO, held, NOW), want(count=None, device_ids=("0",)))).message
