"""Changes written and logged: what cannot be made is reported, and reported once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from allocator.changes import Changes, confirmed, started
from allocator.finishing import Finishing
from allocator.ledger import Conflict, Ledger
from allocator.model import LeaseState
from allocator.reconcile import Change, Contradiction
from observability import events
from policy.model import ContainerId, LeaseId
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from pathlib import Path


ONE = ContainerId("1" * 64)


async def test_a_change_is_kept_with_who_and_why(tmp_path: Path) -> None:
    """In the ledger, for as long as the lease is."""
    ledger, finishing = Ledger(tmp_path / "l"), Finishing()
    ledger.grant(lease("a", "GPU-1"), limit=1)
    changes = Changes(ledger=ledger, durably=finishing.durably, now=Clock())
    await changes.make(
        Change(lease=LeaseId("a"), state=LeaseState.BOUND, why="confirmed", container=ONE), who="uid 0"
    )
    assert ledger.events(LeaseId("a"))[-1] == ("uid 0", "bound", "confirmed")
    assert await changes.make(Change(lease=LeaseId("b"), state=LeaseState.HELD, why=""), who="x") is None
    finishing.close()
    ledger.close()


@pytest.mark.parametrize(
    ("state", "container", "seconds", "may"),
    [
        ("pending", None, None, True),
        ("bound", ONE, None, True),
        ("active", ONE, None, True),
        ("held", ONE, None, True),
        ("lost", ONE, None, False),
        ("lost", None, None, False),
        ("released", ONE, None, False),
        ("released", None, None, False),
        ("bound", ContainerId("2" * 64), None, False),
        ("held", ONE, 0, False),
        ("pending", None, 0, False),
    ],
)
def test_who_may_start(state: str, container: ContainerId | None, seconds: int | None, *, may: bool) -> None:
    """Whose lease lasts and is of this container, or of none yet: then it becomes this one's."""
    old = lease("a", gpu(1).uuid, state=LeaseState(state), container=container, seconds=seconds)
    if not may:
        with pytest.raises(Conflict):
            started(old, ONE, Clock()(), lambda: snapshot(gpu(1)))
        return
    change = started(old, ONE, Clock()(), lambda: snapshot(gpu(1)))
    assert (change.lease, change.state, change.container) == ("a", LeaseState.ACTIVE, ONE)


def test_a_confirm_changes_no_more_than_it_must() -> None:
    """A pending lease is bound; one that went on meanwhile stays as it is."""
    for before, after in (("pending", "bound"), ("active", "active"), ("lost", "lost")):
        assert confirmed(lease("a", "GPU-1", state=LeaseState(before)), ONE).state == after


async def test_what_was_decided_against_is_not_written(tmp_path: Path) -> None:
    """The decision sees the lease as the ledger has it in the moment of the change; its error is who asked's."""
    ledger, finishing = Ledger(tmp_path / "l"), Finishing()
    ledger.grant(lease("a", "GPU-1"), limit=1)
    changes = Changes(ledger=ledger, durably=finishing.durably, now=Clock())
    await changes.decide(LeaseId("a"), lambda old: confirmed(old, ONE), who="x")
    with pytest.raises(Conflict, match="bound"):
        await changes.decide(LeaseId("a"), lambda old: confirmed(old, ContainerId("2" * 64)), who="x")
    assert [what for _, what, _ in ledger.events(LeaseId("a"))] == ["granted", "bound"]
    assert await changes.decide(LeaseId("b"), lambda old: confirmed(old, ONE), who="x") is None
    finishing.close()
    ledger.close()


async def test_what_cannot_be_made_is_a_contradiction_and_logged_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A released lease whose device is another's stays released, and a person is told as long as it lasts, once."""
    logged: list[Any] = []
    monkeypatch.setattr("allocator.changes.log", lambda event, **keys: logged.append((event, keys)))
    ledger, finishing = Ledger(tmp_path / "l"), Finishing()
    ledger.grant(lease("a", "GPU-1"), limit=1)
    ledger.change(LeaseId("a"), LeaseState.RELEASED, who="x", why="x", now=Clock()())
    ledger.grant(lease("b", "GPU-1", owner=2), limit=1)
    changes = Changes(ledger=ledger, durably=finishing.durably, now=Clock())
    back = Change(lease=LeaseId("a"), state=LeaseState.ACTIVE, why="carried", container=ONE)
    for _ in range(2):
        (done,) = await changes.apply([back], who="evidence of one")
        assert isinstance(done, Contradiction)
        changes.report((done,))
    assert [event for event, _ in logged] == [events.LEDGER_RECONCILED]
    finishing.close()
    ledger.close()
