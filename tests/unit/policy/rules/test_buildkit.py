"""The rule `buildkit`: which builder may be used, and whose a session is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Actor, Decision, Effect, EngineFacts, Facts
from policy.rules.buildkit import METHODS, SHARED_KEY, UUID, can_be_confined
from tests.fakes.policy_world import (
    ALICE,
    BOB,
    ENGINE,
    POLICY,
    in_namespace,
    policy,
    request,
    rewrite,
    second_look,
)

NEW = replace(ENGINE, version="28.5.2+dfsg4")
GRPC = replace(request(Operation.GRPC), upgrade="h2c")
BUILD = request(Operation.IMAGE_BUILD, query={"version": ("2",), "session": ("abc",), "t": ("mine",)})
FILES = "/moby.filesync.v1.FileSync/DiffCopy"


def session(**headers: str) -> Request:
    return replace(request(Operation.SESSION), upgrade="h2c", headers={UUID: "abc", **headers})


def decide(asked: Request, *, allow: str = "", engine: EngineFacts = NEW, actor: Actor = ALICE) -> Decision:
    rules = policy(f"defaults: {{role: user, allow: {{{allow}}}}}") if allow else POLICY
    return evaluate(rules, actor, asked, Facts(engine=engine))


@pytest.mark.parametrize("asked", [GRPC, session(), BUILD], ids=["grpc", "session", "build"])
@pytest.mark.parametrize(
    ("allow", "engine"),
    [("builds: classic", NEW), ("", ENGINE), ("builds: opaque", ENGINE)],
    ids=["policy", "old-engine", "old-engine-opaque"],
)
def test_buildkit_is_refused_with_the_advice(asked: Request, allow: str, engine: EngineFacts) -> None:
    """Where policy says classic, and where the engine's BuildKit takes no cgroup, whatever policy says."""
    decision = decide(asked, allow=allow, engine=engine)
    assert decision.effect is Effect.DENY
    assert "DOCKER_BUILDKIT=0" in decision.reasons[0].text()
    assert decision.reasons[0].rule == "buildkit"


def test_anything_but_h2c_is_refused() -> None:
    """What no upgrade was asked for cannot be mediated."""
    assert decide(replace(GRPC, upgrade=None)).effect is Effect.DENY


@pytest.mark.parametrize("allow", ["", "builds: opaque"])
def test_a_connection_is_let_through_and_passes_the_second_look(allow: str) -> None:
    """By default, and where policy says opaque."""
    decision = decide(GRPC, allow=allow)
    assert decision.effect is Effect.ALLOW, decision.reasons
    assert second_look(rewrite(GRPC, decision)) == ()


def test_a_build_by_query_is_let_through_and_must_not_reach_dockerd() -> None:
    """The proxy asks for it by /grpc: what the plugin is shown of it runs in no cgroup."""
    decision = decide(BUILD)
    assert decision.effect is Effect.ALLOW, decision.reasons
    refused = second_look(in_namespace(rewrite(BUILD, decision)))
    assert [reason.rule for reason in refused] == ["buildkit"]


def test_a_build_by_query_passes_opaque() -> None:
    """As /grpc does there."""
    rules = policy("defaults: {role: user, allow: {builds: opaque}}")
    decision = decide(BUILD, allow="builds: opaque")
    assert decision.effect is Effect.ALLOW
    assert second_look(in_namespace(rewrite(BUILD, decision)), under=rules) == ()


def test_a_session_is_its_users() -> None:
    """Its name and its shared key begin with the user; the plugin, which looks again, changes nothing more."""
    asked = session(**{SHARED_KEY: "context"})
    written = rewrite(asked, decide(asked))
    assert written.headers == {UUID: "ds01-1000-abc", SHARED_KEY: "ds01-1000-context"}
    assert second_look(written) == ()


def test_two_users_never_share_an_upload() -> None:
    """Equal names, equal keys, or none at all: what BuildKit joins uploads by differs."""
    written = [rewrite(asked := session(), decide(asked, actor=actor), actor=actor) for actor in (ALICE, BOB)]
    assert written[0].headers[UUID] != written[1].headers[UUID]
    assert written[0].headers[SHARED_KEY] != written[1].headers[SHARED_KEY]


@pytest.mark.parametrize("uuid", ["", "a:ds01-1001-b", "../x", "é", "x" * 200])
def test_a_session_must_have_a_plain_name(uuid: str) -> None:
    """BuildKit takes what stands behind a colon for the name."""
    assert decide(session(**{UUID: uuid})).effect is Effect.DENY


def test_the_engine_may_call_only_known_services_of_a_client() -> None:
    """What would choose exporters or sources is left out."""
    asked = session(**{METHODS: f"{FILES},/moby.exporter.v1.Exporter/FindExporters,/x/y"})
    assert rewrite(asked, decide(asked)).headers[METHODS] == FILES


@pytest.mark.parametrize(
    ("version", "confined"),
    [
        ("20.10.24", False),
        ("23.0.6", False),
        ("24.0.0", True),
        ("28.5.2+dfsg4", True),
        ("dev", False),
        ("", False),
    ],
)
def test_which_engines_can_confine(version: str, *, confined: bool) -> None:
    """An engine that does not say its version cannot."""
    assert can_be_confined(version) is confined
