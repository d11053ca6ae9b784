"""The policy's word on one owner."""

from __future__ import annotations

import pytest

from host.users import Account, Users
from lifecycle.ports import Unavailable
from lifecycle.rules import PolicyRules
from policy.build import build_policy
from policy.compile import Policy
from policy.grants import TimeOver
from policy.model import Gid, Uid

BY_GROUP = "groups: {lab: {unix_group: lab, gpu: {time_over: report}}}"


def policy(text: str) -> Policy:
    return build_policy({"policy.yaml": f"version: 1\n{text}"})


def account(uid: int) -> Account | None:
    groups = {1001: frozenset({"lab"}), 1002: frozenset[str]()}.get(uid)
    if groups is None:
        return None
    return Account(uid=Uid(uid), gid=Gid(uid), name=f"u{uid}", groups=groups, gids=frozenset(), home="/")


@pytest.mark.parametrize(
    ("text", "uid", "word"),
    [
        ("", 1001, TimeOver.STOP),
        ("defaults: {gpu: {time_over: report}}", 1002, TimeOver.REPORT),
        (BY_GROUP, 1001, TimeOver.REPORT),
        (BY_GROUP, 1002, TimeOver.STOP),
        (f"{BY_GROUP}\nusers: {{u1001: {{gpu: {{time_over: stop}}}}}}", 1001, TimeOver.STOP),
    ],
)
async def test_the_policy_is_asked_for_this_owner(text: str, uid: int, word: TimeOver) -> None:
    """With the owner's groups as the host has them; a policy that says nothing stops."""
    made = policy(text)
    rules = PolicyRules(lambda: made, Users(look_up=account, first_uid=1000))
    assert await rules.time_over(Uid(uid)) is word


async def test_a_changed_policy_counts_at_once() -> None:
    """For leases that there are already."""
    current = [policy("")]
    rules = PolicyRules(lambda: current[0], Users(look_up=account, first_uid=1000))
    assert await rules.time_over(Uid(1001)) is TimeOver.STOP
    current[0] = policy(BY_GROUP)
    assert await rules.time_over(Uid(1001)) is TimeOver.REPORT


async def test_an_owner_without_account_is_unknown() -> None:
    """Gone, or a directory that is down: neither stop nor report is known."""
    made = policy("")
    with pytest.raises(Unavailable, match="uid 7 has no account"):
        await PolicyRules(lambda: made, Users(look_up=account, first_uid=1000)).time_over(Uid(7))
