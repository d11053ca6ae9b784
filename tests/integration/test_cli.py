"""The ds01 command against a running system, as users and root call it."""

from __future__ import annotations

import json
import re

import pytest

from tests.integration.conftest import Lab

pytestmark = pytest.mark.dockerd


def test_a_denial_can_be_explained_by_its_user_alone(clean_lab: Lab) -> None:
    """The id in docker's message leads to rule, limit and page; another user learns nothing; root sees it."""
    lab = clean_lab
    denied = lab.docker(lab.alice, "create", "--privileged", "busybox")
    found = re.search(r"ds01 explain ([0-9a-f]{12})", denied.err)
    assert found, denied.err
    mine = lab.run(lab.alice, "ds01", "explain", found[1])
    assert mine.status == 0
    assert "docs/rules/privileged.md" in mine.out
    other = lab.run(lab.bob, "ds01", "explain", found[1])
    assert (other.status, other.out) == (1, "")
    root = lab.run("root", "ds01", "explain", "--json", found[1], host=lab.front_door)
    assert json.loads(root.out)["actor"] == lab.alice


def test_what_was_changed_of_a_create_is_on_the_container_and_explained(clean_lab: Lab) -> None:
    """--ipc=host became private: the warning, the label and `ds01 explain` say so, whatever the request or an image puts there."""
    lab = clean_lab
    label = '{{index .Config.Labels "ds01.changed"}}'
    made = lab.docker(
        lab.alice,
        "create",
        "--name",
        "trainer",
        "--ipc",
        "host",
        "--label",
        "ds01.changed=nothing",
        "busybox",
    )
    assert made.status == 0
    changed = lab.ok(lab.alice, "inspect", "-f", label, "trainer").strip()
    assert "--ipc=host" in changed
    assert changed in made.err
    lab.ok(lab.alice, "create", "--name", "plain", "--label", "ds01.changed=nothing", "busybox")
    assert lab.ok(lab.alice, "inspect", "-f", label, "plain").strip() == ""
    explained = lab.run(lab.alice, "ds01", "explain", "trainer")
    assert explained.status == 0, explained.err
    assert changed in explained.out
    for name in ("trainer", lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", "trainer").strip()):
        other = lab.run(lab.bob, "ds01", "explain", name)
        assert (other.status, other.out) == (1, "")


def test_status_tells_the_holder_and_nobody_else(clean_lab: Lab) -> None:
    """alice reads `yours`, bob reads `busy` and no name."""
    lab = clean_lab
    lab.ok(lab.alice, "create", "--gpus", "1", "busybox")
    mine = lab.run(lab.alice, "ds01", "status", "--json")
    assert mine.status == 0, mine.err
    held = [device["uuid"] for device in json.loads(mine.out)["gpus"] if device["state"] == "yours"]
    assert len(held) == 1
    other = lab.run(lab.bob, "ds01", "status", "--json")
    states = {device["uuid"]: device["state"] for device in json.loads(other.out)["gpus"]}
    assert states[held[0]] == "busy"
    assert lab.alice not in other.out
    assert json.loads(lab.run(lab.alice, "ds01", "whoami", "--json").out)["usage"]["gpus"] == 1


def test_break_glass_opens_the_engine_and_closes_it(lab: Lab) -> None:
    """Closed, open, closed: and both changes are on record."""
    engine = f"unix://{lab.root}/run/engine.sock"
    assert lab.docker("root", "ps", host=engine).status != 0
    refused = lab.run(lab.alice, "ds01", "break-glass", "--minutes", "1", "--reason", "mine")
    assert refused.status == 1
    opened = lab.run("root", "ds01", "break-glass", "--minutes", "1", "--reason", "test of break-glass")
    try:
        assert opened.status == 0, opened.err
        assert lab.docker("root", "ps", host=engine).status == 0
    finally:
        closed = lab.run("root", "ds01", "break-glass", "--close")
    assert closed.status == 0
    assert lab.docker("root", "ps", host=engine).status != 0
    events = [
        json.loads(line)["event"] for line in (lab.root / "log" / "audit.jsonl").read_text().splitlines()
    ]
    assert [event for event in events if event.startswith("break_glass")] == [
        "break_glass.opened",
        "break_glass.closed",
    ]


def test_doctor_finds_what_was_broken(lab: Lab) -> None:
    """A running lab has nothing bad in it; an engine socket open to a group is named."""
    assert lab.run(lab.alice, "ds01", "doctor").status == 1
    well = lab.run("root", "ds01", "doctor", "--json", seconds=90)
    findings = json.loads(well.out)
    assert not [one for one in findings if one["state"] in ("bad", "unknown")], well.out
    assert {one["about"] for one in findings} >= {"AuthZ plugin", "engine", "dockerd settings", "bind mounts"}
    engine = lab.root / "run" / "engine.sock"
    engine.chmod(0o660)
    try:
        broken = lab.run("root", "ds01", "doctor")
    finally:
        engine.chmod(0o600)
    assert broken.status == 1
    assert re.search(r"bad +engine socket +owner 0, mode 0660", broken.out), broken.out
