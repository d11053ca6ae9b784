"""Limits on how many objects of a kind one user holds: what the rules about them have in common."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask
from policy.model import Reason


def one_more(ask: Ask, *, rule: str, used: int | None, limit: int, remedy: str) -> Iterable[Reason]:
    """A reason, if the actor holds `limit` objects already. Unknown usage is not zero, so it is a reason as well.

    Args: rule: the rule's id, which is what it counts. remedy: how the user gets below the limit.
    """
    if used is not None and used < limit:
        return
    yield Reason(
        rule=rule,
        field=rule,
        asked=f"one more than {'an unknown number' if used is None else used}",
        limit=f"{limit} for {ask.grants.label}",
        next_step="try again soon" if used is None else remedy,
    )
