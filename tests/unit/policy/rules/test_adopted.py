"""The rule `adopted`: what an owner may do with a container that was there before ds01, and what not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Actor, Adopted, Decision, Effect, Kind, ObjectFact, Share
from policy.rules.adopted import INSIDE, OPERATIONS, PERMITTED
from policy.sharing import permits
from tests.fakes.container_requests import JOINING, NAME, ON_ONE, asked, kind_of
from tests.fakes.policy_world import ADMIN, ALICE, POLICY, decide, own

OPEN, CLOSED = Adopted(), Adopted(closed="HostConfig.Privileged=true (rule privileged)")
# What changes the host's files, or starts past the guard: the reason for the rule, so it is not read off its table.
NEVER = {
    Operation.CONTAINER_START,
    Operation.CONTAINER_RESTART,
    Operation.CONTAINER_UPDATE,
    Operation.CONTAINER_ARCHIVE,
    Operation.CONTAINER_ARCHIVE_INFO,
    Operation.PUT_CONTAINER_ARCHIVE,
    Operation.CONTAINER_ATTACH,
    Operation.CONTAINER_ATTACH_WEBSOCKET,
}


def adopted(how: Adopted | None, kind: Kind = Kind.CONTAINER) -> ObjectFact:
    return replace(own(kind), adopted=how)


def decided(asked: Request, fact: ObjectFact, actor: Actor = ALICE) -> Decision:
    return decide(asked, actor, POLICY, **{NAME: fact})


@pytest.mark.parametrize("how", [OPEN, CLOSED], ids=["open", "closed"])
@pytest.mark.parametrize("operation", ON_ONE)
def test_an_adopted_container_permits_what_the_tables_say(operation: Operation, how: Adopted) -> None:
    """All else is refused by this rule alone, and nothing of it to who owns a container of ds01's own."""
    decision = decided(asked(operation), adopted(how, kind_of(operation)))
    if operation in PERMITTED or (operation in INSIDE and how is OPEN):
        assert decision.effect is Effect.ALLOW
    else:
        assert decision.effect is Effect.DENY
        assert [reason.rule for reason in decision.reasons] == ["adopted"]
    assert decided(asked(operation), adopted(None, kind_of(operation))).effect is Effect.ALLOW


@pytest.mark.parametrize("operation", sorted(NEVER))
def test_what_would_reach_past_the_guard_is_never_permitted(operation: Operation) -> None:
    """A start, a change of limits, a copy: dockerd would resolve real host paths for it, as root; and the stream of a later start."""
    assert decided(asked(operation), adopted(OPEN)).effect is Effect.DENY


@pytest.mark.parametrize("asked", JOINING.values(), ids=JOINING.keys())
def test_nothing_joins_an_adopted_container(asked: Request) -> None:
    """Its namespaces and mounts may be the host's. A commit joins nothing: it holds the container's own layers."""
    effect = Effect.ALLOW if asked.operation is Operation.IMAGE_COMMIT else Effect.DENY
    decision = decided(asked, adopted(OPEN))
    assert decision.effect is effect
    assert effect is Effect.ALLOW or "adopted" in [reason.rule for reason in decision.reasons]


def test_a_share_of_one_opens_no_more() -> None:
    """Who may use it runs programs in it only if the owner may."""
    shared = replace(own(Kind.CONTAINER, owner=1001), share=Share.USE, adopted=CLOSED)
    for operation in ON_ONE:
        if kind_of(operation) is Kind.CONTAINER and permits(Share.USE, operation):
            effect = Effect.DENY if operation in INSIDE else Effect.ALLOW
            assert decided(asked(operation), shared).effect is effect


def test_admins_act_on_it_as_on_any() -> None:
    """They decide for themselves what it reaches; whether it may have its devices is asked all the same."""
    assert decided(asked(Operation.CONTAINER_START), adopted(CLOSED), ADMIN).effect is Effect.ALLOW


def test_a_refusal_says_why_and_what_to_do() -> None:
    """What the container has that its owner may not have, and how to go on."""
    (reason,) = decided(asked(Operation.CONTAINER_EXEC), adopted(CLOSED)).reasons
    assert "HostConfig.Privileged=true (rule privileged)" in reason.text()
    assert "docker commit" in reason.next_step
    assert "(rule adopted)" in reason.text()


def test_every_place_that_can_name_a_container_is_looked_at() -> None:
    """An operation with a container in its path is one of the rule's."""
    assert set(ON_ONE) <= OPERATIONS
