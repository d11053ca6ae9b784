"""Where files are."""

from __future__ import annotations

from pathlib import Path

from host.tree import Tree


def test_the_lab_has_everything_under_one_root() -> None:
    """Four branches, and the front door among the sockets."""
    tree = Tree.under(Path("/x"))
    assert (tree.run, tree.etc, tree.lib, tree.log) == (
        Path("/x/run"),
        Path("/x/etc"),
        Path("/x/lib"),
        Path("/x/log"),
    )
    assert tree.front_door == Path("/x/run/docker.sock")


def test_production_keeps_to_its_own_directories() -> None:
    """Only the front door, where every client looks first, is outside them."""
    tree = Tree.production()
    assert {path.name for path in (tree.run, tree.etc, tree.lib, tree.log)} == {"ds01"}
    assert tree.front_door == Path("/run/docker.sock")


def test_every_path_is_below_its_branch() -> None:
    """Sockets run, settings stay, secrets lie in lib, records of what happened in log."""
    tree = Tree.under(Path("/x"))
    assert {path.parent for path in (tree.authz_socket, tree.engine_socket, tree.break_glass)} == {tree.run}
    assert tree.user_socket("alice") == tree.run / "users" / "alice" / "docker.sock"
    assert tree.stamp_public.is_relative_to(tree.lib)
    assert tree.stamp_key.is_relative_to(tree.lib)
    assert tree.host_grants.parent == tree.ledger.parent
    assert {path.parent for path in (tree.guard_socket, tree.pins)} == {tree.run}
    assert {path.parent for path in (tree.approvals, tree.engine_note)} == {tree.lib}
