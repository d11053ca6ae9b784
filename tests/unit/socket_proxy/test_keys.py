"""The stamp's keys: made once, then read, and never replaced."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from host.tree import Tree
from socket_proxy.keys import KeyUnusable, load_or_create

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.under(tmp_path)


def test_a_second_start_reads_what_the_first_made(tree: Tree) -> None:
    """Key and engine name stay, so old seals stay valid; the private half is the proxy's alone."""
    first, second = load_or_create(tree), load_or_create(tree)
    assert first.private.private_bytes_raw() == second.private.private_bytes_raw()
    assert first.engine_id == second.engine_id
    assert stat.S_IMODE(tree.stamp_key.stat().st_mode) == 0o600


def test_the_public_half_follows_the_private(tree: Tree) -> None:
    """What lies there from elsewhere is overwritten at every start."""
    keys = load_or_create(tree)
    tree.stamp_public.write_text("another")
    load_or_create(tree)
    assert load_pem_public_key(tree.stamp_public.read_bytes()) == keys.public


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_key_that_others_reach_is_not_used(tree: Tree, mode: int) -> None:
    """One bit for group or others is enough."""
    load_or_create(tree)
    tree.stamp_key.chmod(mode)
    with pytest.raises(KeyUnusable, match="0600"):
        load_or_create(tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_anothers_key_is_not_used(tree: Tree) -> None:
    """Whoever owns the file could have written it."""
    load_or_create(tree)
    os.chown(tree.stamp_key, 1001, 1001)
    with pytest.raises(KeyUnusable, match="must belong"):
        load_or_create(tree)


@pytest.mark.parametrize("size", [0, 31, 33])
def test_a_damaged_key_is_kept_and_refused(tree: Tree, size: int) -> None:
    """A new key in its place would make every old seal worthless."""
    load_or_create(tree)
    tree.stamp_key.write_bytes(b"k" * size)
    with pytest.raises(KeyUnusable, match="backup"):
        load_or_create(tree)
    assert tree.stamp_key.read_bytes() == b"k" * size


@pytest.mark.parametrize("text", ["", "E" * 32, "a" * 31, "a" * 33])
def test_a_damaged_engine_name_is_refused(tree: Tree, text: str) -> None:
    """32 lower-case hex digits or nothing."""
    load_or_create(tree)
    tree.engine_id.write_text(text)
    with pytest.raises(KeyUnusable, match="32 hex digits"):
        load_or_create(tree)
