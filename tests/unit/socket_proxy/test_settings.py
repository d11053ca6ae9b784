"""`daemon.yaml`: an empty one is fine, a mistake stops the start and says what to write."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from socket_proxy.settings import DaemonSettings, SettingsInvalid, load, parse

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("text", [None, "", "# nothing\n"])
def test_without_settings_there_are_defaults(tmp_path: Path, text: str | None) -> None:
    """The plugin is required unless the file says otherwise."""
    path = tmp_path / "daemon.yaml"
    if text is not None:
        path.write_text(text)
    assert load(path) == DaemonSettings()
    assert load(path).plugin_required


def test_what_is_given_replaces_its_default_alone(tmp_path: Path) -> None:
    """The lab's tree and file are read together."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "daemon.yaml").write_text("users: [alice, bob]\nengine_socket: /x/engine.sock\n")
    settings = parse(["--root", str(tmp_path)])
    assert settings.daemon.users == ("alice", "bob")
    assert str(settings.engine_socket) == "/x/engine.sock"
    assert settings.daemon.connections == DaemonSettings().connections


def test_what_is_for_another_daemon_is_left_to_it(tmp_path: Path) -> None:
    """The allocator reads its own block of the same file."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "daemon.yaml").write_text("users: [alice]\nallocator: {cdi_command: []}\n")
    assert parse(["--root", str(tmp_path)]).daemon.users == ("alice",)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("user: [alice]", "unknown key user; known are"),
        ("users: alice", "list of names"),
        ("users: [1]", "list of names"),
        ("plugin_required: 0", "plugin_required must be of the kind bool"),
        ("plugin_required: 'no'", "plugin_required must be of the kind bool"),
        ("connections: true", "connections must be of the kind int"),
        ("- alice", "expected keys and values"),
        ("users: [", "daemon.yaml"),
        ("users: !!python/object:os.system []", "daemon.yaml"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, text: str, says: str) -> None:
    """A bool is no number, and a name of a Python object is nothing at all."""
    path = tmp_path / "daemon.yaml"
    path.write_text(text)
    with pytest.raises(SettingsInvalid, match=says):
        load(path)


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    """Bytes that are no UTF-8 stop the start too."""
    path = tmp_path / "daemon.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(SettingsInvalid, match="daemon"):
        load(path)
