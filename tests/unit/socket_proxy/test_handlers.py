"""Which code answers which operation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import pytest

from policy.dockerapi.model import Operation
from policy.dockerapi.routes import ROUTE_OF
from policy.model import LeaseId
from socket_proxy.answers import Answers
from socket_proxy.build import ClassicBuilds
from socket_proxy.builds import Builds
from socket_proxy.containers import Containers
from socket_proxy.fulfil import Fulfilled
from socket_proxy.handlers import Handlers
from socket_proxy.image_removal import ImageRemoval
from socket_proxy.image_transfer import ImageTransfer
from socket_proxy.images import Images
from socket_proxy.prune import Prunes
from socket_proxy.stores import Stores

if TYPE_CHECKING:
    from collections.abc import Mapping

    from socket_proxy.transaction import Handler

_NONE = cast("Any", None)  # no handler is called here, so no part needs what it works with
ANSWERS = Answers(engine=_NONE, index=_NONE, images=_NONE, learn=_NONE)
BUILDS = Builds(
    engine=_NONE,
    answers=ANSWERS,
    policy=_NONE,
    engine_facts=_NONE,
    facts=_NONE,
    owners=_NONE,
    tags=_NONE,
    trail=_NONE,
)
CONTAINERS = Containers(
    engine=_NONE,
    index=_NONE,
    leaser=_NONE,
    answers=ANSWERS,
    binds=_NONE,
    settlements=_NONE,
    facts=_NONE,
    owners=_NONE,
    approvals=None,
    stand_ins=None,
    adoptions=_NONE,
)
IMAGES = Images(engine=_NONE, makers=_NONE, answers=ANSWERS, spools=_NONE, policy=_NONE)
CLASSIC = ClassicBuilds(
    engine=_NONE,
    facts=_NONE,
    owners=_NONE,
    makers=_NONE,
    answers=ANSWERS,
    spools=_NONE,
    policy=_NONE,
    buildkit=_NONE,
)
REMOVAL = ImageRemoval(engine=_NONE, facts=_NONE, owners=_NONE, answers=ANSWERS)
TRANSFER = ImageTransfer(engine=_NONE, facts=_NONE, owners=_NONE, answers=ANSWERS)
STORES = Stores(index=_NONE, records=_NONE, answers=ANSWERS, sealer=_NONE)
PRUNES = Prunes(
    engine=_NONE,
    facts=_NONE,
    index=_NONE,
    records=_NONE,
    containers=CONTAINERS,
    removal=REMOVAL,
    answers=ANSWERS,
)
OWN: tuple[Mapping[Operation, Handler], ...] = tuple(
    part.by_operation for part in (CONTAINERS, IMAGES, CLASSIC, BUILDS, REMOVAL, TRANSFER, STORES, PRUNES)
)


def handlers() -> Handlers:
    return Handlers(answers=ANSWERS, containers=CONTAINERS, others=OWN[1:])


@pytest.mark.parametrize("operation", list(ROUTE_OF))
def test_every_operation_is_answered(operation: Operation) -> None:
    """By the one part that claims it, else by the handler for its kind of answer."""
    claims = [part[operation] for part in OWN if operation in part]
    assert len(claims) <= 1
    expected = claims[0] if claims else ANSWERS.by_kind[ROUTE_OF[operation].answer]
    assert handlers().of(operation) == expected


async def test_an_unsent_request_gives_its_lease_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """And what has no lease gives nothing."""
    released: list[LeaseId] = []

    async def release(lease: LeaseId, _reason: str) -> None:
        released.append(lease)

    monkeypatch.setattr(CONTAINERS, "release", release)
    await handlers().give_back(Fulfilled(labels={}))
    await handlers().give_back(Fulfilled(labels={}, lease=LeaseId("l1")))
    assert released == ["l1"]
