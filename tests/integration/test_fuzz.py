"""Five hundred random create bodies: what the engine made of each is what ds01 decided on, and harmless."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.fuzz import Fuzzer, prepared
from tests.attacks.world import opened
from tests.integration.conftest import PREFIX, running_lab

pytestmark = pytest.mark.dockerd

_SEED = 20240117  # one run of `script/attack --fuzz` has another each time
_BODIES = 500


@pytest.fixture(scope="module")
def fuzzer() -> Iterator[Fuzzer]:
    names = (f"{PREFIX}-fuzzer", f"{PREFIX}-beside")
    with running_lab(*names) as own, opened(own) as world, prepared(world, _SEED) as made:
        yield made


def test_each_field_made_wrong_is_noticed(fuzzer: Fuzzer) -> None:
    """The comparison is no comparison if it cannot fail: each field, and each kind of harm, on a real container."""
    assert fuzzer.can_fail() == []


@pytest.mark.timeout(600)
def test_the_engine_makes_what_was_decided(fuzzer: Fuzzer) -> None:
    """Accepted or refused, no body is read in two ways."""
    for _ in range(_BODIES):
        fuzzer.step()
    assert fuzzer.tally.findings == [], f"seed {_SEED}"
    assert fuzzer.tally.accepted > _BODIES // 10
    assert fuzzer.tally.refused.total() > _BODIES // 10
