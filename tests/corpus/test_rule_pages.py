"""The pages under docs/rules: one for each id that a refusal can name, with examples that end as they say."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from policy.dockerapi.model import Incoming, MalformedRequest, Request, UnknownField, UnknownRoute
from policy.dockerapi.read import read
from policy.evaluate import evaluate
from policy.facts import needed
from policy.model import Decision, Effect, Facts, Kind, ObjectFact, Reference, Usage
from policy.rules import OTHER_IDS, PAGES, RULES
from tests.fakes.docker_lines import call_of
from tests.fakes.policy_world import ALICE, ENGINE, own, policy

ROOT = Path(__file__).parents[2]
PAGE = {path.stem: path.read_text() for path in (ROOT / "docs/rules").glob("*.md")}
ROOMS = ("policy", "socket_proxy", "authz_plugin", "allocator", "http1", "host", "cli", "observability")
SOURCES = [path.read_text() for room in ROOMS for path in (ROOT / room).rglob("*.py")]
IDS = re.compile(r"[(;] ?rule ([a-z_]+)\)|rules=\(((?:\"[a-z_]+\",? ?)+)\)")
RULE_IDS = frozenset(rule.id for rule in RULES)
# Examples of what the whole proxy decides, or of more than one request: what the page says is tested there.
SHOWN_ELSEWHERE = {
    "adopted": "unit/policy/rules/test_adopted.py",
    "bind_mounts": "unit/socket_proxy/test_binds.py",
    "buildkit": "unit/policy/rules/test_buildkit.py",
    "bug": "unit/socket_proxy/test_refusals.py",
    "canary": "unit/socket_proxy/test_path.py",
    "canonical_request": "unit/authz_plugin/test_gate.py",
    "connections": "unit/http1/test_server.py",
    "engine": "unit/socket_proxy/test_refusals.py",
    "gpu_lease": "unit/allocator/test_place.py",
    "gpu_limit": "unit/allocator/test_place.py",
    "identity": "unit/socket_proxy/test_doors.py",
    "image_shares": "unit/socket_proxy/test_sharing.py",
    "image_tags": "unit/socket_proxy/test_image_tar.py",
    "share": "unit/policy/rules/test_share.py",
    "stamp": "unit/authz_plugin/test_gate.py",
    "uploads": "unit/socket_proxy/test_spool.py",
    "unavailable": "unit/socket_proxy/test_refusals.py",
    "volume_names": "unit/socket_proxy/test_stores.py",
}
POLICY = policy(
    'defaults: {role: user, limits: {gpus: 2, containers: 20}, allow: {registries: ["*"], devices: [/dev/fuse]}}'
)


def examples(page: str, heading: str) -> list[str]:
    found = re.search(rf"^## {heading}\n\n```\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)
    assert found, f"no block under {heading}"
    return found[1].splitlines()


LINES = [
    pytest.param(rule, heading, line, id=f"{rule}-{heading}-{number}")
    for rule, page in sorted(PAGE.items())
    if rule not in SHOWN_ELSEWHERE
    for heading in ("Refused", "Accepted")
    for number, line in enumerate(examples(page, heading))
    if not line.startswith("(nothing is refused")
]


def test_every_id_has_a_page_and_every_page_an_id() -> None:
    """Policy rules and the ids of other parts, as they stand in the source, are the pages, and are listed once."""
    named = set(RULE_IDS)
    for source in SOURCES:
        for one, several in IDS.findall(source):
            named |= {one} if one else set(re.findall("[a-z_]+", several))
    assert named == PAGES == PAGE.keys()
    assert not OTHER_IDS & RULE_IDS
    assert SHOWN_ELSEWHERE.keys() <= PAGES


@pytest.mark.parametrize("rule", sorted(PAGE))
def test_a_page_says_what_is_refused_what_is_not_and_why(rule: str) -> None:
    """The same four parts on each page."""
    assert PAGE[rule].startswith(f"# {rule}\n\n")
    assert examples(PAGE[rule], "Refused")
    assert examples(PAGE[rule], "Accepted")
    assert PAGE[rule].partition("\n## Why\n\n")[2].strip()


@pytest.mark.parametrize("rule", sorted(SHOWN_ELSEWHERE))
def test_what_is_shown_elsewhere_is_tested_there(rule: str) -> None:
    """The file named expects a refusal by this id."""
    text = (ROOT / "tests" / SHOWN_ELSEWHERE[rule]).read_text()
    assert re.search(rf"\"{rule}\"|rule {rule}\b", text)


def request_of(line: str) -> Request:
    call = call_of(line)
    assert call is not None, f"no line that can be run: {line}"
    method, target, body = call
    data = None if body is None else json.dumps(body).encode()
    headers = (("content-type", "application/json"),) if data is not None else ()
    return read(
        Incoming(method=method, target=f"/v1.41{target}", headers=headers, body=data), engine_max=(1, 41)
    )


def facts(line: str, request: Request) -> Facts:
    """Own objects by any name, a shared image, and as many containers as the line says it is the next of."""
    objects: dict[Reference, ObjectFact | None] = {}
    for reference in needed(request):
        if reference.kind is Kind.IMAGE:
            known = reference.text.startswith("busybox") and not line.startswith("docker pull")
            shared = ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=None, shared=True)
            objects[reference] = shared if known else None
        else:
            objects[reference] = own(reference.kind)
    nth = re.search(r"# the (\d+)(?:st|th)", line)
    used = int(nth[1]) - 1 if nth else 0
    return Facts(engine=ENGINE, objects=objects, usage=Usage(containers=used, networks=used))


def decided(line: str) -> Decision:
    request = request_of(line)
    return evaluate(POLICY, ALICE, request, facts(line, request))


@pytest.mark.parametrize(("rule", "heading", "line"), LINES)
def test_an_example_ends_as_its_page_says(rule: str, heading: str, line: str) -> None:
    """A refused line is refused by the rule of its page, an accepted one by none."""
    unread = {
        "malformed_request": MalformedRequest,
        "unknown_field": UnknownField,
        "route_table": UnknownRoute,
    }
    if heading == "Refused" and rule in unread:
        with pytest.raises(unread[rule]):
            request_of(line)
        return
    decision = decided(line)
    if heading == "Accepted":
        assert decision.effect is Effect.ALLOW, decision.reasons
        notes = [note for one in decision.obligations if (note := getattr(one, "note", ""))]
        assert notes or "with a warning" not in line
    else:
        assert decision.effect is Effect.DENY
        assert {reason.rule for reason in decision.reasons} == {rule}
