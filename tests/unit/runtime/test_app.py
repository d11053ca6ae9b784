"""The daemon on a tree of files: wired to the right ones, and in order when it starts and stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from host.listener import listen
from host.tree import Tree
from policy import engine_note
from policy.approval import Approval, message, seal, write
from policy.engine_note import EngineNote
from policy.model import ContainerId, Uid
from runtime import app
from runtime.server import GuardServer

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="the trusted files must be root's")

ID = ContainerId("a" * 64)


@pytest.fixture
def tree(room: Path) -> Tree:
    made = Tree.under(room)
    for directory in (made.run, made.lib, made.approvals):
        directory.mkdir(mode=0o755)
    return made


def test_it_believes_the_proxys_files(tree: Tree) -> None:
    """Key, engine id, note and approvals, from where the proxy writes them."""
    private = Ed25519PrivateKey.generate()
    tree.stamp_public.write_bytes(private.public_key().public_bytes_raw())
    tree.engine_id.write_text("e" * 32 + "\n")
    tree.engine_note.write_bytes(engine_note.write(EngineNote(runtime="ds01", data_root="/d")))
    approval = Approval(container=ID, engine_id="e" * 32, uid=Uid(1000))
    text = write(approval)
    (tree.approvals / ID).write_bytes(seal(text, private.sign(message(text))))
    guard = app.build_guard(tree)
    assert guard._approval(ID) == approval
    assert guard._note().data_root == "/d"


async def test_it_serves_until_told_to_stop(tree: Tree) -> None:
    """SIGTERM ends it in order."""
    guard = app.build_guard(tree)
    server = GuardServer(guard.decide, copy=guard.copy, board=tree.pins)
    with capture_logs():
        async with asyncio.timeout(10), asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run(server, listen(tree.guard_socket)))
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_unix_connection(tree.guard_socket)
            writer.write(b"x")
            writer.write_eof()
            assert (await reader.read()).startswith(b'no"')
            writer.close()
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_second_guard_does_not_start(tree: Tree) -> None:
    """Exit 1, and the first goes on."""
    with listen(tree.guard_socket) as first:
        assert app.main(["--root", str(tree.run.parent)]) == 1
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(tree.guard_socket))
            first.accept()[0].close()
