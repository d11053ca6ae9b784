"""Carriers as they were told last."""

from __future__ import annotations

from allocator.carried import Carried
from allocator.reconcile import Carrier
from policy.model import ContainerId, LeaseId, Uid

ONE, TWO = (
    Carrier(container=ContainerId(name * 64), lease=LeaseId(name), owner_uid=Uid(1)) for name in ("a", "b")
)


def test_before_anything_was_told_nothing_is_known() -> None:
    """That is another thing than no container."""
    carried = Carried()
    carried.forget(ONE.lease)
    assert (carried.is_known, list(carried.without(()))) == (False, [])
    carried.tell(())
    assert (carried.is_known, list(carried.without(()))) == (True, [])


def test_what_was_told_last_counts() -> None:
    """Without those whose lease is named, or was given back since."""
    carried = Carried()
    carried.tell([ONE])
    carried.tell([ONE, TWO])
    assert list(carried.without({ONE.lease})) == [TWO]
    carried.forget(TWO.lease)
    assert list(carried.without(())) == [ONE]
    carried.tell([TWO])
    assert list(carried.without(())) == [TWO]
