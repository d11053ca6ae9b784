"""The command line of the lab."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.settings import Parts, parse


def test_nothing_said_means_everything_below_dot_lab() -> None:
    """Without flags the whole system comes up below .lab, in the foreground."""
    settings = parse([])
    assert (settings.root, settings.parts, settings.users) == (Path(".lab"), Parts.ALL, None)
    assert not settings.detach
    assert not settings.stop


def test_users_are_names_once_each() -> None:
    """A list of users keeps its order and drops repetitions."""
    assert parse(["--users", "alice,bob,alice"]).users == ("alice", "bob")


@pytest.mark.parametrize("name", ["root", "../x", "-r", "a b", "Alice", "a" * 33, "1st"])
def test_a_name_that_is_none_is_refused(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A name that useradd would not take, root, and what would be a path or a flag are refused."""
    with pytest.raises(SystemExit) as refused:
        parse([f"--users={name}"])
    assert refused.value.code == 2
    assert "cannot be a user of the lab" in capsys.readouterr().err


def test_an_engine_must_exist(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dockerd that is not there is refused before anything is started."""
    with pytest.raises(SystemExit):
        parse(["--engine", str(tmp_path / "dockerd")])
    assert "there is no program" in capsys.readouterr().err


@pytest.mark.parametrize("said", ["", "usr/sbin/dockerd"])
def test_an_engine_is_a_program_or_the_system_it_lies_in(tmp_path: Path, said: str) -> None:
    """Both spellings of `--engine` name the dockerd of the system."""
    program = tmp_path / "usr/sbin/dockerd"
    program.parent.mkdir(parents=True)
    program.touch()
    assert parse(["--engine", str(tmp_path / said)]).engine == program
