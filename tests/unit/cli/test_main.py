"""The command from the outside: arguments in, text or JSON and an exit code out."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import main

Serve = Callable[..., Path]


def test_a_refusal_is_one_line_and_exit_1(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The server's message goes to standard error."""
    monkeypatch.setenv(
        "DOCKER_HOST", f"unix://{serve({'message': 'ds01: no decision ab of yours'}, status=404)}"
    )
    assert main(["explain", "ab"]) == 1
    assert capsys.readouterr() == ("", "ds01: no decision ab of yours\n")


@pytest.mark.parametrize("words", [["--json", "explain", "ab"], ["explain", "--json", "ab"]])
def test_json_may_stand_before_or_after_the_verb(
    words: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The answer is printed as it came."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve({'request_id': 'ab'})}")
    assert main(words) == 0
    assert json.loads(capsys.readouterr().out) == {"request_id": "ab"}


def test_failures_are_json_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A script reads one form, whatever happened."""
    monkeypatch.setenv("DOCKER_HOST", "unix:///nonexistent/docker.sock")
    assert main(["status", "--json"]) == 3
    assert json.loads(capsys.readouterr().out)["exit"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(["nonsense"], "invalid choice: 'nonsense'", id="no such verb"),
        pytest.param(["gpu", "reserve", "two", "--when", "x", "--user", "a"], "'two'", id="no number"),
        pytest.param(["gpu", "reserve", "2"], "--when", id="something is missing"),
    ],
)
def test_a_slip_is_json_too(words: list[str], said: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Wherever --json stands; without it, the usage of the verb goes to standard error."""
    for asked in (["--json", *words], [*words, "--json"]):
        assert main(asked) == 2
        out, err = capsys.readouterr()
        answer = json.loads(out)
        assert (answer["exit"], said in answer["message"], err) == (2, True, "")
    assert main(words) == 2
    out, err = capsys.readouterr()
    assert (out, said in err, err.startswith("usage: ds01 ")) == ("", True, True)


def test_an_answer_of_another_shape_is_a_bug_without_traceback(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """70, one line."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve({})}")
    assert main(["whoami"]) == 70
    assert capsys.readouterr().err.count("\n") == 1


def test_policy_check_lists_mistakes_and_ends_with_1(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`file:line: path: message`, one per line, where a reader of the output finds them."""
    bad = tmp_path / "bad.yaml"
    bad.write_text("version: 1\ndefaults:\n  limits: {gpu: 2}\n  rolle: user\n")
    assert main(["policy", "check", str(bad)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{bad}:") for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ["break-glass"],
        ["break-glass", "--minutes", "5"],
        ["break-glass", "--reason", "x"],
        ["break-glass", "--close", "--reason", "x"],
        ["break-glass", "--close", "--minutes", "0"],
    ],
)
def test_break_glass_takes_both_or_close(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Half an order is usage, exit 2."""
    assert main(words) == 2
    assert capsys.readouterr().err.startswith("ds01: break-glass ")


def test_break_glass_is_for_root(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Anybody else is told so before anything is written."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("DS01_ROOT", str(tmp_path))
    assert main(["break-glass", "--minutes", "5", "--reason", "x"]) == 1
    assert "root" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
