"""The rule `share`: what may be done with another's container, and with what words the rest is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Operation, Request
from policy.model import Actor, Decision, Effect, Kind, ObjectFact, Share
from policy.rules import share
from policy.sharing import permits
from tests.fakes.container_requests import JOINING, NAME, ON_ONE, asked, kind_of
from tests.fakes.policy_world import ADMIN, ALICE, POLICY, decide, own, request


def shared(share: Share, kind: Kind = Kind.CONTAINER) -> ObjectFact:
    return replace(own(kind, owner=1001), share=share)


def decided(asked: Request, fact: ObjectFact | None, actor: Actor = ALICE) -> Decision:
    return decide(asked, actor, POLICY, **{NAME: fact})


@pytest.mark.parametrize("level", [Share.VIEW, Share.USE])
@pytest.mark.parametrize("operation", ON_ONE)
def test_a_share_permits_what_the_table_says(operation: Operation, level: Share) -> None:
    """All else is refused by this rule alone: the container is there to be seen, so 404 would be a lie."""
    decision = decided(asked(operation), shared(level, kind_of(operation)))
    if permits(level, operation):
        assert decision.effect is Effect.ALLOW
    else:
        assert decision.effect is Effect.DENY
        assert [reason.rule for reason in decision.reasons] == ["share"]


@pytest.mark.parametrize("asked", JOINING.values(), ids=JOINING.keys())
def test_nothing_of_ones_own_joins_a_shared_container(asked: Request) -> None:
    """Namespaces, volumes and links of another's container stay with its owner."""
    decision = decided(asked, shared(Share.USE))
    assert decision.effect is Effect.DENY
    assert "share" in [reason.rule for reason in decision.reasons]


@pytest.mark.parametrize("asked", JOINING.values(), ids=JOINING.keys())
def test_an_unshared_one_stays_absent(asked: Request) -> None:
    """Without a share all is decided as for a name that is not there."""
    assert decided(asked, own(Kind.CONTAINER, owner=1001)) == decided(asked, None)


def test_admins_need_no_share() -> None:
    """They see and act on all, as before."""
    decision = decided(asked(Operation.CONTAINER_DELETE), own(Kind.CONTAINER, owner=1001), ADMIN)
    assert decision.effect is Effect.ALLOW


def test_the_next_step_fits() -> None:
    """More of a share helps with logs, and with nothing that is the owner's alone."""
    logs, remove = (
        decided(asked(operation), shared(Share.VIEW)).reasons[0]
        for operation in (Operation.CONTAINER_LOGS, Operation.CONTAINER_DELETE)
    )
    assert "--use" in logs.next_step
    assert "--use" not in remove.next_step
    assert NAME in logs.text()
    assert "(rule share)" in logs.text()


def test_a_privileged_exec_is_refused_in_a_shared_container_too() -> None:
    """A share opens nothing that one's own container would not."""
    wish = request(Operation.CONTAINER_EXEC, {"Cmd": ["id"], "Privileged": True}, container=NAME)
    decision = decided(wish, shared(Share.USE))
    assert [reason.rule for reason in decision.reasons] == ["privileged"]


def test_every_place_that_can_name_a_container_is_looked_at() -> None:
    """An operation with a container in its path is one of the rule's."""
    assert set(ON_ONE) <= share.OPERATIONS
