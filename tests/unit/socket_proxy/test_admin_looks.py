"""What only admins see of the allocator."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policy.model import Uid
from socket_proxy import admin_looks
from socket_proxy.image_owners import Reader
from socket_proxy.refusals import Refusal, Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policy.model import Json


class Allocator:
    """Answers with what it was asked for, or not at all."""

    def __init__(self, *, answers: bool = True) -> None:
        self.asked: list[str] = []
        self._answers = answers

    async def look(self, path: str) -> Mapping[str, Json]:
        self.asked.append(path)
        if not self._answers:
            raise Unavailable("the GPU allocator does not answer")
        return {"of": path}


def reader(*, everything: bool) -> Reader:
    return Reader(uid=Uid(1000), groups=frozenset(), everything=everything)


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("gpu/inventory", "/v1/inventory"),
        ("gpu/processes", "/v1/processes"),
        ("gpu/queue", "/v1/queue"),
        ("gpu/host-access", "/v1/host-access"),
        ("containers/foreign", "/v1/foreign"),
    ],
)
async def test_an_admin_sees_everything_and_nobody_else(path: str, asked: str) -> None:
    """As the allocator says it to the proxy; a user is refused before it is asked."""
    allocator = Allocator()
    assert admin_looks.is_one(path)
    refused = await admin_looks.look(path, reader(everything=False), allocator)
    assert isinstance(refused, Refusal)
    assert (refused.status, "only admins see" in refused.message) == (403, True)
    assert allocator.asked == []
    assert await admin_looks.look(path, reader(everything=True), allocator) == {"of": asked}


@pytest.mark.parametrize("path", ["gpu", "gpu/leases", "gpu/", "containers/foreign/x", "../v1/leases", ""])
def test_nothing_else_is_passed_on(path: str) -> None:
    """The allocator trusts the proxy with everything."""
    assert not admin_looks.is_one(path)


async def test_an_allocator_that_does_not_answer_is_told() -> None:
    """As every outage, by the edge."""
    with pytest.raises(Unavailable):
        await admin_looks.look("gpu/queue", reader(everything=True), Allocator(answers=False))
