"""The service on a tree of files: what is wired, and what stops it from starting."""

from __future__ import annotations

import asyncio
import json
import os
import signal
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from authz_plugin import app
from authz_plugin.trusted import parse_break_glass
from authz_plugin.wire import REQUEST
from host.clock import boottime_ms
from host.listener import listen
from host.policy_files import PolicyFiles
from host.tree import Tree
from host.trusted import Untrusted, Watched
from policy import engine_note
from policy.build import build_policy
from policy.dockerapi.model import Operation
from policy.engine_note import EngineNote
from policy.stand_ins import StandIns
from tests.fakes.policy_world import ALICE, create, request

if TYPE_CHECKING:
    from pathlib import Path

    from authz_plugin.gate import Gate
    from policy.compile import Policy

STAND_INS = StandIns("/var/lib/ds01/sources")

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="the trusted files must be root's")


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Files as root leaves them."""
    made = Tree.under(tmp_path)
    for directory in (made.run, made.etc, made.lib):
        directory.mkdir(mode=0o755)
    made.stamp_public.write_bytes(Ed25519PrivateKey.generate().public_key().public_bytes_raw())
    made.engine_id.write_text("ENGINE\n")
    made.engine_note.write_bytes(engine_note.write(EngineNote(runtime="ds01", data_root="/d")))
    (made.etc / "policy.yaml").write_text("version: 1\ndefaults: {role: user}\n")
    return made


def policies(tree: Tree) -> PolicyFiles[Policy]:
    """The policy of the tree, compiled by the real rules."""
    return PolicyFiles(
        tree.etc, build_policy, on_loaded=lambda _digest, _files: None, on_rejected=lambda _problems: None
    )


@pytest.fixture
def gate(tree: Tree) -> Gate:
    """The real gate, reader and rules."""
    return app.build_gate(tree, policies(tree))


def ask(gate: Gate, make_req: Any, **changes: Any) -> bool:
    answer = gate.answer(REQUEST, make_req(**changes))
    assert isinstance(answer, bytes)
    allowed: bool = json.loads(answer)["Allow"]
    return allowed


@root_only
def test_the_break_glass_file_opens_and_closes(tree: Tree, gate: Gate, make_req: Any) -> None:
    """Written by root: open; given to a user, or taken away: closed."""
    path = tree.break_glass
    assert not ask(gate, make_req)
    path.write_text(json.dumps({"until_boottime_ms": boottime_ms() + 60_000, "reason": "test", "by": "root"}))
    path.chmod(0o600)
    assert ask(gate, make_req)
    os.chown(path, 1000, 1000)
    assert not ask(gate, make_req)
    path.unlink()
    assert not ask(gate, make_req)


def test_a_missing_break_glass_file_is_normal(tmp_path: Path) -> None:
    """A bad one is not."""
    glass = Watched(tmp_path / "b", parse_break_glass, owners=frozenset({os.geteuid()}))
    assert app.present(glass) is None
    (tmp_path / "b").write_text("{}")
    with pytest.raises(Untrusted):
        app.present(glass)


@root_only
def test_nothing_starts_without_a_policy(tmp_path: Path) -> None:
    """Exit 1, the reason in the log, no socket left."""
    (tmp_path / "run").mkdir()
    assert app.main(["--root", str(tmp_path)]) == 1
    assert list((tmp_path / "run").iterdir()) == []


@root_only
async def test_it_serves_until_told_to_stop(tree: Tree, gate: Gate) -> None:
    """SIGTERM ends it in order."""
    path = tree.run / "authz.sock"
    with capture_logs():
        async with asyncio.timeout(5), asyncio.TaskGroup() as tasks:
            tasks.create_task(app.run(gate, policies(tree), listen(path)))
            await asyncio.sleep(0.05)
            reader, writer = await asyncio.open_unix_connection(path)
            writer.write(b"POST /Plugin.Activate HTTP/1.1\r\nHost: \r\nContent-Length: 0\r\n\r\n")
            assert b'{"Implements":["authz"]}' in await reader.readuntil(b"}")
            os.kill(os.getpid(), signal.SIGTERM)
        assert await reader.read() == b""
        writer.close()


@root_only
def test_what_the_former_policy_permits_passes_for_a_moment(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy may have decided just before a tighter policy came; seconds later the tighter one holds alone."""
    now = [100.0]
    monkeypatch.setattr("host.policy_files.time.monotonic", lambda: now[0])
    path = tree.etc / "policy.yaml"
    path.write_text("version: 1\ndefaults: {role: user, allow: {registries: ['*']}}\n")
    store = policies(tree)
    check = app.checker(store, lambda: "runc", STAND_INS)
    pull = request(Operation.IMAGE_CREATE, query={"fromImage": ("registry.example/x",), "tag": ("1",)})
    assert not check(ALICE, pull, leases=())
    path.write_text("version: 1\ndefaults: {role: user, allow: {registries: []}}\n")
    assert store.reload_if_changed()
    assert not check(ALICE, pull, leases=())
    now[0] += 6
    assert [reason.rule for reason in check(ALICE, pull, leases=())] == ["registry"]


@root_only
def test_a_create_names_the_runtime_that_the_engine_has(tree: Tree) -> None:
    """The proxy noted which; without the note no create passes, and everything else does."""
    note = Watched(tree.engine_note, engine_note.read, owners=app.ROOT_ONLY)
    check = app.checker(policies(tree), lambda: note.get().runtime, STAND_INS)
    for runtime, passes in (("ds01", True), ("runc", False)):
        asked = create({"Runtime": runtime})
        named = {(reason.rule, reason.field) for reason in check(ALICE, asked, leases=())}
        assert (("runtime", "HostConfig.Runtime") not in named) == passes
    tree.engine_note.unlink()
    with pytest.raises(Untrusted):
        check(ALICE, create(), leases=())
    assert check(ALICE, request(Operation.CONTAINER_LIST), leases=()) == ()


@root_only
def test_with_the_guard_a_host_path_reaches_dockerd_as_a_stand_in(tree: Tree) -> None:
    """A create that names the path itself did not come through the proxy as it is; without the guard nobody replaces it."""
    asked = create({"Binds": [f"{ALICE.home}/d:/d"]})
    for runtime, named in (("ds01", True), ("runc", False)):
        reasons = app.checker(policies(tree), partial(str, runtime), STAND_INS)(ALICE, asked, leases=())
        assert (("mounts", "HostConfig.Binds") in {(one.rule, one.field) for one in reasons}) == named
