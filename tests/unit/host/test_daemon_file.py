"""Blocks of daemon.yaml."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from host.daemon_file import BLOCKS, load_block
from socket_proxy.settings import load

KEYS = ("a", "b")


def written(directory: Path, text: str) -> Path:
    path = directory / "daemon.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "block"),
    [
        ("x: {a: 1}\ny: 2", {"a": 1}),
        ("x: {b: [1], a: null}", {"b": [1], "a": None}),
        ("x:", {}),
        ("y: 2", {}),
        ("", {}),
    ],
)
def test_a_block_is_read_and_others_are_not(tmp_path: Path, text: str, block: dict[str, object]) -> None:
    """As the YAML has it; a block that is not there is empty."""
    assert load_block(written(tmp_path, text), "x", KEYS) == block


def test_no_file_is_no_block(tmp_path: Path) -> None:
    """Defaults hold then."""
    assert load_block(tmp_path / "none", "x", KEYS) == {}


@pytest.mark.parametrize("text", ["x: {c: 1}", "x: [a]", "x: text", "[a]", "text"])
def test_what_is_no_block_is_a_mistake(tmp_path: Path, text: str) -> None:
    """With the keys that there are."""
    with pytest.raises(ValueError, match="a mapping of a, b is needed"):
        load_block(written(tmp_path, text), "x", KEYS)
    with pytest.raises(yaml.YAMLError):
        load_block(written(tmp_path, "[]x: {"), "x", KEYS)


@pytest.mark.parametrize("name", sorted(BLOCKS))
def test_the_proxy_leaves_blocks_to_their_daemons(tmp_path: Path, name: str) -> None:
    """Whatever is in them."""
    assert load(written(tmp_path, f"users: [a]\n{name}: {{x: 1}}")).users == ("a",)
