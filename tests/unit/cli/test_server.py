"""Which socket is asked, and how each kind of answer ends the call."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.outcome import Exit, Failed
from cli.server import Patience, ask, ask_allocator, socket_of

Serve = Callable[..., Path]


@pytest.mark.parametrize(
    ("environment", "path"),
    [
        ({}, "/run/docker.sock"),
        ({"DS01_ROOT": "/lab"}, "/lab/run/docker.sock"),
        ({"DOCKER_HOST": "unix:///my.sock"}, "/my.sock"),
        ({"DOCKER_HOST": "unix:///my.sock", "DS01_ROOT": "/lab"}, "/my.sock"),
        ({"DOCKER_HOST": "tcp://elsewhere:2375"}, "/run/docker.sock"),
    ],
)
def test_the_socket_is_the_one_docker_uses(environment: dict[str, str], path: str) -> None:
    """DOCKER_HOST if it is a Unix socket, then the lab's front door, then the installed one."""
    assert socket_of(environment) == Path(path)


def test_an_answer_is_an_object(serve: Serve) -> None:
    """The JSON of a 200 comes back as it is."""
    assert ask("whoami", {"DOCKER_HOST": f"unix://{serve({'name': 'alice'})}"}) == {"name": "alice"}


@pytest.mark.parametrize(
    ("status", "answer", "code", "text"),
    [
        (404, {"message": "ds01: no decision 1 of yours is on record"}, Exit.REFUSED, "no decision 1"),
        (503, {"message": "ds01: dockerd does not answer"}, Exit.UNAVAILABLE, "dockerd does not answer"),
        (404, {"message": "page not found"}, Exit.UNAVAILABLE, "no socket of ds01"),
        (200, b"hello", Exit.UNAVAILABLE, "no socket of ds01"),
        (200, [1], Exit.UNAVAILABLE, "no socket of ds01"),
    ],
)
def test_other_answers_end_the_call(serve: Serve, status: int, answer: object, code: Exit, text: str) -> None:
    """A refusal is the user's move, everything else the operator's; a plain dockerd is told apart."""
    path = serve(answer, status=status)
    with pytest.raises(Failed, match=text) as failed:
        ask("whoami", {"DOCKER_HOST": f"unix://{path}"})
    assert failed.value.code is code


def test_nobody_there_is_unavailable(tmp_path: Path) -> None:
    """A missing socket is an outage, in one line."""
    with pytest.raises(Failed, match="No such file") as failed:
        ask("status", {"DOCKER_HOST": f"unix://{tmp_path}/none.sock"})
    assert failed.value.code is Exit.UNAVAILABLE


def test_an_answer_that_does_not_come_is_told_with_what_goes_on(tmp_path: Path) -> None:
    """In the words of who asked, and after its time."""
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "run/allocator.sock"))
        silent.listen()
        patience = Patience(seconds=0.05, then="the change goes on without you")
        with pytest.raises(
            Failed, match=r"no answer within 0\.05 seconds; the change goes on without you"
        ) as failed:
            ask_allocator("/v1/mig/apply", {}, patience=patience, environment={"DS01_ROOT": str(tmp_path)})
    assert failed.value.code is Exit.UNAVAILABLE
