"""The hostile user: every attack of tests/corpus/attacks, a test each, judged by what the engine and the host hold."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.attacks.model import Attack, Refused, Step, load_all
from tests.attacks.runner import Result, attempt
from tests.attacks.world import World, opened
from tests.integration.conftest import PREFIX, running_lab

pytestmark = pytest.mark.dockerd


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    """Bob's things, and alice's, in a lab of their own: what an attack does to dockerd is no other test's matter."""
    with running_lab(f"{PREFIX}-eve", f"{PREFIX}-victim") as own, opened(own) as made:
        yield made


def _parameter(attack: Attack) -> object:
    expected = attack.expected_from
    late = pytest.mark.xfail(reason=f"refused once {expected} is there", strict=False)
    return pytest.param(attack, id=attack.id, marks=[late] if expected else [])


@pytest.mark.parametrize("attack", [_parameter(attack) for attack in load_all()])
def test_an_attack_is_refused_and_changes_nothing(world: World, attack: Attack) -> None:
    """Each step ends as its file says, and nothing shows success."""
    outcome = attempt(world, attack)
    assert outcome.result is Result.REFUSED, f"{attack.title}: {outcome.text()}"


# --- the judge itself: what is no refusal must not be called one ------------------------------------------


def _attack(given: dict[str, object], *shown_by: str, **ends: object) -> Attack:
    kind = next(kind for kind in ("create", "ask", "play") if kind in given)
    user = str(given.pop("as", "alice"))
    step = Step(kind=kind, given=given, user=user, **ends)  # type: ignore[arg-type]  # each row is right
    return Attack(id="judge/x", title="x", danger="x", source="x", steps=(step,), shown_by=shown_by)


_NO = Refused(statuses=frozenset({403}), says=("(rule privileged)",))
_ANY = Refused(statuses=frozenset({200, 201, 403, 404}), says=("",))
_JUDGED = {
    "a create that goes through": (_attack({"create": {}}, "state", refused=_NO), Result.SUCCEEDED),
    "accepted as refused": (_attack({"create": {}}, "state", refused=_ANY), Result.SUCCEEDED),
    "another reason": (
        _attack({"create": {"HostConfig": {"PidMode": "host"}}}, "state", refused=_NO),
        Result.UNEXPLAINED,
    ),
    "the secret told": (
        _attack({"ask": "GET /containers/bobc/json", "as": "bob"}, "secret", answered=200),
        Result.SUCCEEDED,
    ),
    "dockerd asked": (_attack({"ask": "GET /volumes"}, "reached", answered=200), Result.SUCCEEDED),
    "not softened": (
        _attack({"create": {"Tty": True}}, becomes={"Config/Tty": False}),
        Result.SUCCEEDED,
    ),
    "a twin that differs": (
        _attack(
            {"ask": "GET /containers/mine/json"},
            "state",
            answered=200,
            twin={"containers/mine": "containers/none"},
        ),
        Result.SUCCEEDED,
    ),
    "a play that fails": (
        _attack({"play": "inspected", "with": {"container": "none", "becomes": {}}}, answered=200),
        Result.UNEXPLAINED,
    ),
    "a preparation that fails": (
        _attack({"ask": "GET /containers/none/json"}, "state", ok=True),
        Result.UNEXPLAINED,
    ),
}


@pytest.mark.parametrize(("attack", "result"), _JUDGED.values(), ids=_JUDGED)
def test_the_judge_is_not_fooled(world: World, attack: Attack, result: Result) -> None:
    """Success is seen whatever the answers were, and a refusal for another reason is no refusal as meant."""
    assert attempt(world, attack).result is result
