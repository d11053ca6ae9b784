"""What an admin reads of containers from before ds01."""

from __future__ import annotations

import os
from typing import Any

import pytest

from cli import adopt

OLD: dict[str, Any] = {
    "container": "old",
    "container_id": "a" * 64,
    "runs": True,
    "adopted_by": None,
    "probable_owner_uid": 0,
    "evidence": "name",
    "why": "name old._.0",
    "devices": ["GPU-1", "GPU-2"],
}


@pytest.mark.parametrize(("uid", "command"), [(0, "sudo ds01 adopt"), (1000, "ds01 adopt")])
def test_all_are_listed_and_likely_owners_get_a_command(
    monkeypatch: pytest.MonkeyPatch, uid: int, command: str
) -> None:
    """Those that nobody was given come first; unknown is not none. The command is for whoever asked."""
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    others = [
        OLD | {"container": "given", "adopted_by": 0, "devices": []},
        OLD
        | {
            "container": "odd\x1b[2J",
            "probable_owner_uid": None,
            "why": None,
            "devices": None,
            "runs": False,
        },
    ]
    lines = adopt.listed({"containers": [*others, OLD]}).splitlines()
    assert lines == [
        "CONTAINER   STATE    OWNER          GPUS     WHY",
        "odd\\x1b[2J  stopped  unknown        unknown  not looked at yet",
        "old         running  probably root  2        name old._.0",
        "given       running  root           -        adopted",
        "",
        "Evidence is no proof. If it is right:",
        f"  {command} old --owner root",
    ]
    assert adopt.listed({"containers": []}) == "ds01 made every container there is"


def test_what_was_given_says_what_it_is_good_for() -> None:
    """Why no program runs in it, which devices count, and which do not."""
    told = {
        "container": "old",
        "owner": "alice",
        "closed": ["HostConfig.Privileged=true (rule privileged)"],
        "devices": ["GPU-1"],
        "left_out": ["GPU-2"],
    }
    text = adopt.adopted(told)
    for part in (
        "old is alice's",
        "docker exec",
        "  HostConfig.Privileged=true",
        "theirs: GPU-1",
        "leases GPU-2",
    ):
        assert part in text
    bare = adopt.adopted(told | {"closed": [], "devices": [], "left_out": []})
    assert len(bare.splitlines()) == 1
    assert adopt.unadopted({"container": "old"}) == "old is nobody's; only admins see it"
