"""What reaches the terminal: units, columns, colour, and never a control character of a user's."""

from __future__ import annotations

import io

import pytest

from cli.screen import columns, login, paint, plain, size


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_an_account_is_told_by_its_name() -> None:
    """A uid without one by its number."""
    assert login(0) == "root"
    assert login(4_000_000_001) == "uid 4000000001"


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (64 * 1024**2, "64MiB"),
        (16 * 1024**3, "16GiB"),
        (19968 * 1024**2, "19.5GiB"),
        (-1, "unlimited"),
    ],
)
def test_sizes_read_as_in_the_policy_file(count: int, text: str) -> None:
    """Powers of 1024 with their unit; -1 is unlimited."""
    assert size(count) == text


@pytest.mark.parametrize("letter", ["\x1b", "\n", "\r", "\x07", "\x9b", "\u202e"])
def test_control_characters_never_reach_the_terminal(letter: str) -> None:
    """An image name with an escape sequence is shown, not obeyed."""
    assert letter not in plain(f"a{letter}b")


def test_nothing_is_a_dash() -> None:
    """None and empty are told apart."""
    assert (plain(None), plain("")) == ("-", "")


def test_colour_only_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pipe gets plain text, and so does NO_COLOR."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    assert paint("x", "bad", out=io.StringIO()) == "x"
    assert paint("x", "bad", out=Terminal()) == "\x1b[31mx\x1b[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert paint("x", "bad", out=Terminal()) == "x"


def test_columns_line_up_whatever_is_painted() -> None:
    """Colour takes no room, and short rows do not matter."""
    assert columns([["a", "\x1b[31mx\x1b[0m", "end"], ["long", "yyy", "end"], ["b"]]) == [
        "a     \x1b[31mx\x1b[0m    end",
        "long  yyy  end",
        "b",
    ]
