"""The record of decisions: what is in it, who may read it, and what happens without it."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from observability.audit import AuditLog, AuditUnavailable
from policy.dockerapi.model import Operation
from policy.model import Decision, Effect, LeaseId, Reason, RequestId, Uid
from socket_proxy import trail as trails
from socket_proxy.fulfil import Fulfilled
from socket_proxy.refusals import Refusal
from socket_proxy.trail import Trail
from tests.fakes.proxy_world import ALICE, BOB
from tests.fakes.transactions import transaction

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALLOW = Decision(effect=Effect.ALLOW)
REASON = Reason(rule="privileged", field="F", asked="true", limit="false", next_step="leave it out")
DENY = Decision(effect=Effect.DENY, reasons=(REASON,))
REFUSAL = Refusal(status=403, message="ds01: no", rules=("privileged",))


@pytest.fixture
def audit(tmp_path: Path) -> Iterator[AuditLog]:
    log = AuditLog(tmp_path / "audit.jsonl")
    yield log
    log.close()


@pytest.fixture
def trail(audit: AuditLog) -> Trail:
    return Trail(audit, policy_digest=lambda: "p1")


def lines(tmp_path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]


def refuse(trail: Trail, request_id: str, target: str = "/x") -> None:
    trail.refused(
        ALICE,
        RequestId(request_id),
        REFUSAL,
        method="POST",
        target=target,
        request=None,
        decision=DENY,
    )


def broken(tmp_path: Path) -> None:
    """The file is gone, and none can be made in its place."""
    (tmp_path / "audit.jsonl").unlink()
    (tmp_path / "audit.jsonl").mkdir()


def test_an_allowed_create_says_who_what_and_with_which_lease(tmp_path: Path, trail: Trail) -> None:
    """The body is there as a digest only, since it may hold secrets."""
    asked, _ = transaction(Operation.CONTAINER_CREATE, {"Image": "busybox", "Env": ["KEY=secret"]})
    asked = replace(
        asked,
        actor=replace(ALICE, login_uid=BOB.uid),
        fulfilled=Fulfilled(labels={}, lease=LeaseId("l1")),
    )
    trail.allowed(asked, ALLOW)
    (record,) = lines(tmp_path)
    assert (record["operation"], record["decision"], record["uid"]) == ("ContainerCreate", "allow", 1001)
    assert (record["leases"], record["login_uid"], record["policy"]) == (["l1"], BOB.uid, "p1")
    assert len(record["digest"]) == 64
    assert "secret" not in json.dumps(record)


def test_a_refusal_keeps_its_reasons_and_no_query(tmp_path: Path, trail: Trail) -> None:
    """What was never understood is recorded by its path alone: a query may hold anything."""
    refuse(trail, "r1", "/containers/create?buildargs=secret")
    (record,) = lines(tmp_path)
    assert record["target"] == "/containers/create"
    assert (record["decision"], record["rules"]) == ("refuse", ["privileged"])
    assert record["reasons"][0]["next_step"] == "leave it out"


def test_only_its_user_finds_a_decision(trail: Trail) -> None:
    """Another user gets the answer of an id that never was; without a uid (an admin) it is found."""
    refuse(trail, "r1")
    assert trail.find("r1", uid=ALICE.uid) is not None
    assert trail.find("r1", uid=None) is not None
    assert trail.find("r1", uid=BOB.uid) is None
    assert trail.find("r2", uid=None) is None


def test_a_decision_before_the_restart_is_found(audit: AuditLog, trail: Trail) -> None:
    """From the file, under the same rule of whose it is."""
    refuse(trail, "0123456789ab")
    restarted = Trail(audit, policy_digest=lambda: "p2")
    found = restarted.find("0123456789ab", uid=ALICE.uid)
    assert found is not None
    assert found["rules"] == ["privileged"]
    assert restarted.find("0123456789ab", uid=BOB.uid) is None


def test_memory_is_bounded(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flood of refusals does not grow the proxy."""
    monkeypatch.setattr(trails, "_REMEMBERED", 3)
    for number in range(10):
        refuse(trail, f"r{number}")
    assert list(trail._refused) == ["r7", "r8", "r9"]


@pytest.mark.parametrize(
    ("operation", "stops"),
    [
        (Operation.CONTAINER_CREATE, True),
        (Operation.CONTAINER_DELETE, True),
        (Operation.PUT_CONTAINER_ARCHIVE, True),
        (Operation.CONTAINER_LIST, False),
        (Operation.CONTAINER_ARCHIVE_INFO, False),
    ],
)
def test_what_stops_without_a_record(
    tmp_path: Path, trail: Trail, operation: Operation, *, stops: bool
) -> None:
    """A change does, a read goes on, and a refusal stands either way."""
    broken(tmp_path)
    asked, _ = transaction(operation, container="c")
    if stops:
        with pytest.raises(AuditUnavailable):
            trail.allowed(asked, ALLOW)
    else:
        trail.allowed(asked, ALLOW)
    refuse(trail, "r1")
    assert trail.find("r1", uid=Uid(1001)) is not None


def test_recording_goes_on_when_it_can(tmp_path: Path, trail: Trail) -> None:
    """A repaired file is used without a restart."""
    broken(tmp_path)
    refuse(trail, "r1")
    (tmp_path / "audit.jsonl").rmdir()
    refuse(trail, "r2")
    assert [record["request_id"] for record in lines(tmp_path)] == ["r2"]


def test_what_a_client_writes_does_not_fill_the_disk(tmp_path: Path, trail: Trail) -> None:
    """Long names, targets and fields are cut, so that a refusal is on record and costs a few kilobytes."""
    asked, _ = transaction(Operation.CONTAINER_INSPECT, container="n" * 60_000)
    long = replace(REASON, asked="a" * 60_000)
    trail.refused(
        ALICE,
        RequestId("r1"),
        replace(REFUSAL, message="m" * 60_000),
        method="GET",
        target="/" + "t" * 60_000,
        request=asked.request,
        decision=Decision(effect=Effect.DENY, reasons=(long,) * 100),
    )
    (line,) = lines(tmp_path)
    assert line["params"]["container"].startswith("nnn")
    assert len(json.dumps(line)) < 6000
