"""Changes written and logged: what cannot be made is reported, and reported once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from allocator.changes import Changes
from allocator.finishing import Finishing
from allocator.ledger import Ledger
from allocator.model import LeaseState
from allocator.reconcile import Change, Contradiction
from observability import events
from policy.model import ContainerId, LeaseId
from tests.fakes.leasing import Clock, lease

if TYPE_CHECKING:
    from pathlib import Path

    import pytest

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
