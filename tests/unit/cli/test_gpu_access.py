"""`ds01 gpu grant`, `revoke` and `grants`: words in, words out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.gpu_access import granted, listed, revoked, wish
from cli.main import main
from cli.outcome import Exit, Failed
from cli.server import ask_allocator

Serve = Callable[..., Path]
GRANT: dict[str, Any] = {
    "uid": 1000,
    "user": "alice",
    "devices": [{"uuid": "MIG-5c89", "index": "2:1"}],
    "granted_at": "2026-01-01T00:00:00Z",
    "granted_by": "carol",
    "reason": "profiling\x1b[31m",
    "ends_at": "2026-01-01T04:00:00Z",
    "left_seconds": 3 * 3600 + 125,
}


def test_a_grant_is_asked_for_in_seconds() -> None:
    """Half an hour is half an hour; no device named means all."""
    asked = wish("alice", hours=0.5, reason="x", devices=[])
    assert asked == {"user": "alice", "seconds": 1800, "reason": "x"}
    assert wish("alice", hours=1, reason="x", devices=["2", "2:1"])["devices"] == ["2", "2:1"]


@pytest.mark.parametrize("hours", [0, -1, float("nan"), float("inf")])
def test_no_time_is_a_slip(hours: float) -> None:
    """Exit code 2, with an example."""
    with pytest.raises(Failed) as failed:
        wish("alice", hours=hours, reason="x", devices=[])
    assert failed.value.code is Exit.USAGE


def test_what_holds_is_told() -> None:
    """Which GPUs, until when, by whom; nothing that a reason could do to a terminal."""
    assert "alice may use 2:1 (MIG-5c89) outside containers until 2026-01-01T04:00:00Z" in granted(GRANT)
    assert "all GPUs" in granted({**GRANT, "devices": []})
    head, row = listed({"grants": [GRANT]}).splitlines()
    assert head.split() == ["USER", "DEVICES", "LEFT", "UNTIL", "BY", "REASON"]
    assert row.split()[:6] == ["alice", "2:1", "(MIG-5c89)", "3h02m", "2026-01-01T04:00:00Z", "carol"]
    assert "gone (MIG-5c89)" in granted({**GRANT, "devices": [{"uuid": "MIG-5c89", "index": None}]})
    assert "\x1b" not in row
    assert "12m" in listed({"grants": [{**GRANT, "left_seconds": 720}]})
    assert " 9s " in listed({"grants": [{**GRANT, "left_seconds": 9}]})
    assert "nobody" in listed({"grants": []})
    assert "no longer" in revoked(GRANT)


@pytest.fixture
def allocator(tmp_path: Path, serve: Serve, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serve an answer where the allocator would be."""

    def start(answer: Any, *, status: int = 200) -> Path:
        where = serve(answer, status=status)
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "allocator.sock").symlink_to(where)
        monkeypatch.setenv("DS01_ROOT", str(tmp_path))
        return where

    return start


@pytest.mark.parametrize(
    ("arguments", "answer", "status", "said"),
    [
        (["gpu", "grant", "alice", "--hours", "4", "--reason", "x"], GRANT, 201, "may use"),
        (["gpu", "revoke", "alice"], GRANT, 200, "no longer"),
        (["gpu", "grants"], {"grants": [GRANT]}, 200, "carol"),
    ],
)
def test_each_verb_asks_the_allocator(
    allocator: Serve,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    answer: dict[str, Any],
    status: int,
    said: str,
) -> None:
    """On its own socket, and prints words, or JSON as it came."""
    allocator(answer, status=status)
    assert main(arguments) == Exit.OK
    assert said in capsys.readouterr().out
    assert main([*arguments, "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out) == answer


@pytest.mark.parametrize(
    ("status", "code"),
    [(403, Exit.REFUSED), (404, Exit.REFUSED), (409, Exit.REFUSED), (503, Exit.UNAVAILABLE)],
)
def test_the_allocators_refusals_are_passed_on(allocator: Serve, status: int, code: Exit) -> None:
    """With its words, and an exit code that says whose move it is."""
    allocator({"message": "ds01: no"}, status=status)
    with pytest.raises(Failed, match="no") as failed:
        ask_allocator("/v1/host-access")
    assert failed.value.code is code
