"""Where files are."""

from __future__ import annotations

from pathlib import Path

from host.tree import PRODUCTION, Tree


def test_the_lab_has_everything_under_one_root() -> None:
    """Four directories, as docs/architecture.md names them."""
    tree = Tree.under(Path("/x"))
    assert (tree.run, tree.etc, tree.lib, tree.log) == (
        Path("/x/run"),
        Path("/x/etc"),
        Path("/x/lib"),
        Path("/x/log"),
    )


def test_production_is_spread_as_linux_wants_it() -> None:
    """Nothing of ds01 outside its own directories."""
    assert {path.name for path in (PRODUCTION.run, PRODUCTION.etc, PRODUCTION.lib, PRODUCTION.log)} == {
        "ds01"
    }
