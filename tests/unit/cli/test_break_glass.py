"""Break-glass: recorded before it opens, bounded, readable by the plugin, closed by one command."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from typing import Any

import pytest

from authz_plugin.trusted import parse_break_glass
from cli.break_glass import close_glass, open_glass, shown, who
from cli.outcome import Exit, Failed
from host.clock import boottime_ms
from host.tree import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree.under(tmp_path)
    tree.run.mkdir()
    tree.log.mkdir()
    return tree


def records(tree: Tree) -> list[dict[str, Any]]:
    return [json.loads(line) for line in tree.audit.read_text().splitlines()]


def test_the_plugin_reads_what_is_written(tree: Tree) -> None:
    """Open now, until the minutes are over, with reason and name; others may read it, not write it."""
    opened = open_glass(tree, minutes=10, reason=" upgrade dockerd ", by="carol")
    glass = parse_break_glass(tree.break_glass.read_bytes())
    now = boottime_ms()
    assert (glass.reason, glass.by) == ("upgrade dockerd", "carol")
    assert glass.is_open(now)
    assert not glass.is_open(now + 10 * 60_000)
    assert stat.S_IMODE(tree.break_glass.stat().st_mode) == 0o644
    assert str(tree.engine_socket) in shown(opened)


def test_the_longest_is_open_at_once(tree: Tree) -> None:
    """60 minutes are inside the plugin's own limit."""
    open_glass(tree, minutes=60, reason="x", by="carol")
    assert parse_break_glass(tree.break_glass.read_bytes()).is_open(boottime_ms())


def test_opening_and_closing_are_on_record(tree: Tree) -> None:
    """Who, why, how long; then that it was closed."""
    open_glass(tree, minutes=10, reason="upgrade", by="carol")
    assert close_glass(tree, by="dave")
    assert not tree.break_glass.exists()
    assert [(one["event"], one["by"]) for one in records(tree)] == [
        ("break_glass.opened", "carol"),
        ("break_glass.closed", "dave"),
    ]
    assert records(tree)[0]["reason"] == "upgrade"


def test_without_a_record_nothing_opens(tree: Tree) -> None:
    """The audit file cannot be written, so there is no permission."""
    tree.audit.mkdir()
    with pytest.raises(Failed) as failed:
        open_glass(tree, minutes=10, reason="upgrade", by="carol")
    assert failed.value.code is Exit.UNAVAILABLE
    assert not tree.break_glass.exists()


def test_a_file_that_cannot_be_written_is_taken_back_on_record(tree: Tree) -> None:
    """The trail never says open where it is not."""
    tree.run.rmdir()
    with pytest.raises(Failed, match="nothing was opened"):
        open_glass(tree, minutes=10, reason="upgrade", by="carol")
    assert [one["event"] for one in records(tree)] == ["break_glass.opened", "break_glass.closed"]


@pytest.mark.parametrize("minutes", [-1, 0, 61, 10**9])
def test_minutes_are_bounded(tree: Tree, minutes: int) -> None:
    """1 to 60; what is refused leaves neither file nor record."""
    with pytest.raises(Failed) as failed:
        open_glass(tree, minutes=minutes, reason="upgrade", by="carol")
    assert failed.value.code is Exit.USAGE
    assert not tree.break_glass.exists()
    assert not tree.audit.exists()


@pytest.mark.parametrize("reason", ["", "   ", "two\nlines", "\x1b[2J", "x" * 301])
def test_a_reason_says_something_in_one_line(tree: Tree, reason: str) -> None:
    """An empty reason is no reason; no control characters go into logs."""
    with pytest.raises(Failed) as failed:
        open_glass(tree, minutes=1, reason=reason, by="carol")
    assert failed.value.code is Exit.USAGE


def test_closing_what_is_closed_is_no_error(tree: Tree) -> None:
    """Nothing to remove, nothing to record."""
    assert not close_glass(tree, by="carol")
    assert not tree.audit.exists()


def test_the_name_comes_from_the_login_or_sudo() -> None:
    """root alone only when nobody is known behind it."""
    assert who({})
    assert who({"SUDO_UID": "nonsense"}) == who({})
