"""Laws of combining rules, with stub rules against a ten-line oracle, and of the real rules on a request of every row."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.ask import Ask, Finding, Missing, Permit, Rule
from policy.dockerapi.model import Incoming, MalformedRequest, Operation, Request
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.evaluate import combine, evaluate
from policy.facts import needed
from policy.model import Decision, Effect, Facts, Kind, ObjectFact, Reason, Reference, SetField, Uid, Usage
from policy.rules import PAGES
from tests.fakes.policy_world import (
    ADMIN,
    ALICE,
    BOB,
    ENGINE,
    POLICY,
    facts,
    in_namespace,
    policy,
    request,
    rewrite,
    second_look,
)
from tests.property.strategies import incomings

EMPTY = policy("")
ACTORS = st.sampled_from([ALICE, BOB, ADMIN])


def stub(name: str, behaviour: str) -> Rule:
    """A rule that does what its behaviour says, its words separated by `+`."""

    def decide(_: Ask) -> Iterable[Finding]:
        for word in behaviour.split("+"):
            match word:
                case "permit":
                    yield Permit()
                case "deny":
                    yield Reason(rule=name, field="f", asked="a", limit="l", next_step="n")
                case "miss":
                    yield Missing(reference=Reference(kind=Kind.CONTAINER, text=name))
                case "oblige":
                    yield SetField(path=("HostConfig", name), value=1)
                case "raise":
                    raise RuntimeError("broken rule")

    return Rule(id=name, operations=frozenset(Operation), needs_facts=False, decide=decide)


BEHAVIOURS = st.lists(st.sampled_from(["permit", "deny", "miss", "oblige", "raise"]), max_size=3).map(
    "+".join
)
RULES = st.lists(st.tuples(st.sampled_from("abcdef"), BEHAVIOURS), max_size=6, unique_by=lambda one: one[0])


def combined(rules: Iterable[tuple[str, str]]) -> Decision:
    asked = request(Operation.SYSTEM_PING)
    ask = Ask(grants=POLICY.for_actor(ALICE), actor=ALICE, request=asked, facts=facts(asked))
    return combine([stub(name, behaviour) for name, behaviour in rules], ask)


def oracle(rules: Iterable[tuple[str, str]]) -> Effect:
    """What the rules come to, said as plainly as can be. A rule that raises has said nothing but no."""
    said = {
        word
        for _, behaviour in rules
        for word in ({"raise"} & {*behaviour.split("+")} or behaviour.split("+"))
    }
    if said & {"deny", "raise"}:
        return Effect.DENY
    if "miss" in said:
        return Effect.NOT_VISIBLE
    return Effect.ALLOW if "permit" in said else Effect.DENY


@settings(max_examples=200, deadline=None)
@given(RULES)
def test_rules_come_to_what_the_oracle_says(rules: list[tuple[str, str]]) -> None:
    """Deny beats missing, missing beats permit, silence denies, and a rule that raises denies."""
    assert combined(rules).effect is oracle(rules)


@settings(max_examples=150, deadline=None)
@given(RULES, BEHAVIOURS, st.randoms(use_true_random=False))
def test_another_rule_never_turns_a_deny_into_more(
    rules: list[tuple[str, str]], behaviour: str, random: Any
) -> None:
    """Whatever a further rule says, wherever it stands, a denial stays, and its reasons with it."""
    before = combined(rules)
    if not before.reasons or before.reasons[0].rule == "operation":  # silence: a permit may end that
        return
    more = [*rules, ("z", behaviour)]
    random.shuffle(more)
    after = combined(more)
    assert after.effect is Effect.DENY
    assert set(before.reasons) <= set(after.reasons)


@settings(max_examples=150, deadline=None)
@given(RULES, BEHAVIOURS)
def test_a_rule_that_raises_denies_by_its_name(rules: list[tuple[str, str]], behaviour: str) -> None:
    """Also when it permitted before it broke."""
    decision = combined([*rules, ("z", f"{behaviour}+raise")])
    assert decision.effect is Effect.DENY
    assert "z" in {reason.rule for reason in decision.reasons}
    assert decision.obligations == ()


def reading(incoming: Incoming) -> Request | None:
    """None for a request that is refused before any rule: one of its references is an empty string."""
    try:
        return read(incoming, engine_max=ENGINE.api_version)
    except MalformedRequest as refused:
        assert "by an empty name" in str(refused)  # noqa: PT017  the only refusal of a well-formed request
        return None


def known(asked: Request, owners: list[int | None]) -> Facts:
    """Each reference is of one of `owners` in turn: a uid, -1 for shared, None for absent."""
    objects: dict[Reference, ObjectFact | None] = {}
    for number, reference in enumerate(needed(asked)):
        owner = owners[number % len(owners)] if owners else None
        objects[reference] = (
            None
            if owner is None
            else ObjectFact(
                kind=reference.kind,
                id=f"{number:064x}",
                owner=None if owner < 0 else Uid(owner),
                shared=owner < 0,
            )
        )
    return Facts(engine=ENGINE, objects=objects, usage=Usage(containers=0, networks=0, gpus=0))


# A tag may be told to be taken: tags are one space (ADR 0010).
TAGGING = {Operation.IMAGE_CREATE, Operation.IMAGE_TAG, Operation.IMAGE_BUILD, Operation.IMAGE_COMMIT}
OWNERS = st.lists(st.sampled_from([None, -1, 1000, 1001]), max_size=3)


@settings(max_examples=150, deadline=None)
@given(incomings(), ACTORS, OWNERS)
def test_an_empty_policy_allows_nothing(incoming: Incoming, actor: Any, owners: list[int | None]) -> None:
    """Whoever asks whatever of whosesoever: without a role there is no way in."""
    asked = reading(incoming)
    if asked is not None:
        assert evaluate(EMPTY, actor, asked, known(asked, owners)).effect is not Effect.ALLOW


@settings(max_examples=150, deadline=None)
@given(incomings(), ACTORS, OWNERS)
def test_every_deny_names_rules_that_have_a_page(
    incoming: Incoming, actor: Any, owners: list[int | None]
) -> None:
    """And says what was asked, the limit and the next step, on one line each (I11)."""
    asked = reading(incoming)
    if asked is None:
        return
    decision = evaluate(POLICY, actor, asked, known(asked, owners))
    assert (decision.effect is Effect.DENY) == bool(decision.reasons)
    for reason in decision.reasons:
        assert reason.rule in PAGES
        for text in (reason.field, reason.limit, reason.next_step):
            assert text
            assert "\n" not in text


@settings(max_examples=250, deadline=None)
@given(incomings(), st.sampled_from([ALICE, BOB]), OWNERS)
def test_what_the_proxy_forwards_the_plugin_allows(
    incoming: Incoming, actor: Any, owners: list[int | None]
) -> None:
    """A request of any row, decided, rewritten and written, is read and let through by the second look (I3)."""
    asked = reading(incoming)
    if asked is None:
        return
    decision = evaluate(POLICY, actor, asked, known(asked, owners))
    if decision.effect is not Effect.ALLOW:
        return
    out = write(in_namespace(rewrite(asked, decision, actor), actor))
    again = read(
        Incoming(method=out.method, target=out.target, headers=out.headers, body=out.body),
        engine_max=ENGINE.api_version,
    )
    assert second_look(again, actor) == ()


@settings(max_examples=150, deadline=None)
@given(incomings())
def test_anothers_is_answered_like_absent(incoming: Incoming) -> None:
    """The decision does not tell the two apart, reasons included (I4)."""
    asked = reading(incoming)
    if asked is None or asked.operation in TAGGING:
        return
    theirs = known(asked, [int(BOB.uid)])
    # A name that is to be given is looked for among one's own alone (socket_proxy.facts).
    objects = {reference: None if reference.new else fact for reference, fact in theirs.objects.items()}
    foreign = evaluate(POLICY, ALICE, asked, replace(theirs, objects=objects))
    absent = evaluate(POLICY, ALICE, asked, known(asked, [None]))
    assert (foreign.effect, foreign.reasons, foreign.missing) == (
        absent.effect,
        absent.reasons,
        absent.missing,
    )
