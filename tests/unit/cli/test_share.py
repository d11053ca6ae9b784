"""`ds01 share`: words in, words out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main
from cli.outcome import Exit, Failed
from cli.share import grantees, listed, shared, unshared, wish

Serve = Callable[..., Path]
TOLD = {
    "container": "web",
    "id": "a" * 64,
    "exec_refused": False,
    "with": [{"who": "bob", "share": "use", "left_seconds": 60, "until": "2026-01-01T00:00:00Z"}],
}


@pytest.mark.parametrize(
    ("time", "seconds"), [("30s", 30), ("10m", 600), ("8h", 28800), ("7d", 604800), ("0s", 0)]
)
def test_a_time_is_read(time: str, seconds: int) -> None:
    """Seconds to days; what is too long or too short the server says."""
    assert wish("web", ["user:bob"], use=False, time=time) == {
        "container": "web",
        "with": ["user:bob"],
        "share": "view",
        "seconds": seconds,
    }


@pytest.mark.parametrize("time", ["", "8", "h", "-1h", "1.5h", "8 h", "1w", "12345678s", "١h"])
def test_no_time_is_a_slip(time: str) -> None:
    """Exit code 2, with an example."""
    with pytest.raises(Failed) as failed:
        wish("web", [], use=True, time=time)
    assert failed.value.code is Exit.USAGE


def test_users_and_groups_are_told_apart() -> None:
    """A user `lab` and a group `lab` are two."""
    assert grantees(["lab"], ["lab"]) == ["user:lab", "group:lab"]


def test_the_owner_is_told_what_use_means() -> None:
    """Mounts, processes that stay, and an exec that will be refused."""
    assert shared(TOLD, use=False) == "web: bob may use it until 2026-01-01T00:00:00Z"
    assert "mounts" in shared(TOLD, use=True)
    assert "exec will be refused" in shared({**TOLD, "exec_refused": True}, use=True)
    assert unshared({**TOLD, "with": []}) == "web: only you"


def test_both_lists_are_shown() -> None:
    """Nothing a name holds moves the cursor."""
    text = listed(
        {"own": [TOLD], "shared": [{"container": "carol.\x1bx", "owner": "carol", "share": "view"}]}
    )
    assert "web: bob may use it" in text
    assert "you may see it  by carol" in text
    assert "\x1b" not in text
    assert "ds01 share NAME" in listed({"own": [], "shared": []})


@pytest.mark.parametrize(
    "words", [["share"], ["share", "web"], ["share", "--list", "web"], ["share", "--with", "bob"]]
)
def test_half_a_wish_is_a_slip(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing is asked of the server."""
    assert main(words) == Exit.USAGE
    assert "ds01: share" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["share", "web", "--with", "bob", "--group", "lab", "--use", "--for", "2h"], "web: only you"),
        (["unshare", "web"], "web: only you"),
        (["share", "--list"], "you share no container"),
    ],
)
def test_it_is_asked_of_the_server(
    words: list[str],
    shown: str,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Share, unshare and list, and the answer in words."""
    answer = {**TOLD, "with": [], "own": [], "shared": []}
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve(answer)}")
    assert main(words) == Exit.OK
    assert shown in capsys.readouterr().out


def test_a_container_that_is_not_there_is_a_refusal(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """dockerd's words, exit 1."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve({'message': 'No such container: web'}, status=404)}")
    assert main(["unshare", "web"]) == Exit.REFUSED
    assert "No such container: web" in capsys.readouterr().err
