"""Who may see and use whose images, in words and over the socket."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.image import listed, shared
from cli.main import main

Serve = Callable[..., Path]


def test_images_are_listed_with_their_readers() -> None:
    """Own ones, and what others share; nothing a name holds moves the cursor."""
    text = listed(
        {
            "own": [
                {"image": "a:1", "with": []},
                {"image": "b:1", "with": ["bob", "group:lab"]},
                {"image": "c:\x1b1", "with": ["all", "bob"]},
            ],
            "shared": [{"image": "d:1", "owner": "carol"}, {"image": "e:1", "owner": None}],
        }
    )
    assert "a:1      only you" in text
    assert "b:1      you and bob, group lab" in text
    assert "everybody may see and use it" in text
    assert "d:1  by carol" in text
    assert "by the admin" in text
    assert "\x1b" not in text


def test_nothing_to_list_says_how_to_begin() -> None:
    """An empty answer is no empty screen."""
    assert "docker build" in listed({"own": [], "shared": []})


def test_a_share_says_what_holds_now() -> None:
    """One line."""
    assert shared({"image": "a:1", "with": ["bob"]}) == "a:1: you and bob"


@pytest.mark.parametrize(
    "words", [["image", "share", "a:1", "--with", "bob", "--with", "lab"], ["image", "unshare", "a"]]
)
def test_the_command_tells_the_socket(
    words: list[str], serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """POST, and the answer in words."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve({'image': 'a:1', 'with': []})}")
    assert main(words) == 0
    assert capsys.readouterr().out == "a:1: only you\n"


def test_an_image_that_is_not_there_is_a_refusal(
    serve: Serve, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """dockerd's words, exit 1."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{serve({'message': 'No such image: a:1'}, status=404)}")
    assert main(["image", "share", "a:1"]) == 1
    assert "No such image: a:1" in capsys.readouterr().err
