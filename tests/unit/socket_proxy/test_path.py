"""The whole way of a request: user's socket, real policy, rewriting, record, dockerd and back."""

from __future__ import annotations

import asyncio
import json
import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from host.tree import Tree
from policy import engine_note
from policy.dockerapi.model import Operation, Outcome, Payload
from policy.dockerapi.routes import ROUTES, Route
from policy.engine_note import EngineNote
from socket_proxy import app
from tests.fakes.proxy_world import ENGINE, MemoryLeaser
from tests.fakes.routes import served
from tests.fakes.whole_proxy import POLICY, UIDS, WholeProxy, document_of, status_of, whole_proxy

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.fakes.scripted_dockerd import Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each user a socket")

_ALICE, _BOB = "a" * 64, "b" * 64
_NAMES_NOTHING = {Operation.BUILD_CANCEL, Operation.SESSION, Operation.GRPC}  # OWN, but no object in the path
_ON_ONE = [
    route
    for route in ROUTES
    if (route.outcome is Outcome.OWN and route.operation not in _NAMES_NOTHING)
    or route.operation in (Operation.CONTAINER_UPDATE, Operation.CONTAINER_EXEC)
]
_BODIES: dict[Operation, dict[str, Any]] = {
    Operation.EXEC_START: {"Detach": False, "Tty": False},
    Operation.CONTAINER_EXEC: {"Cmd": ["id"]},
    Operation.CONTAINER_UPDATE: {"Memory": 1},
    Operation.NETWORK_CONNECT: {"Container": "mine"},
    Operation.NETWORK_DISCONNECT: {"Container": "mine"},
}
_QUERIES = {
    Operation.CONTAINER_ARCHIVE_INFO: "?path=/",
    Operation.CONTAINER_ARCHIVE: "?path=/",
    Operation.PUT_CONTAINER_ARCHIVE: "?path=/",
    Operation.CONTAINER_RENAME: "?name=new",
}


def both(world: WholeProxy) -> None:
    """Alice has "mine", bob "theirs" and an exec in it; dockerd would tell all of it to whoever came through."""
    world.own("alice", "mine", "a")
    world.own("bob", "theirs", "b")
    world.answers["GET /exec/theirs/json"] = (200, {"ContainerID": _BOB})


def alices(world: WholeProxy) -> None:
    world.own("alice", "mine", "a")


def line_for(route: Route, name: str) -> str:
    path = route.template
    for place in ("{container}", "{exec}", "{network...}", "{volume}"):
        path = path.replace(place, name)
    assert "{" not in path
    return f"{route.method} /v1.41{path}{_QUERIES.get(route.operation, '')}"


def headers_for(route: Route) -> str:
    if route.payload is Payload.HIJACK and route.upgrades:
        return f"Connection: Upgrade\r\nUpgrade: {next(iter(route.upgrades))}\r\n"
    return ""


@pytest.mark.parametrize("name", ["theirs", _BOB, "bbbbbbb"], ids=["name", "id", "prefix"])
@pytest.mark.parametrize("route", _ON_ONE, ids=lambda route: f"{route.operation}")
async def test_anothers_object_is_as_absent_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: Route, name: str
) -> None:
    """I4: every byte of the answer is the one that a missing object gives, and dockerd hears nothing of it."""
    answers = []
    for number, prepare in enumerate((both, alices)):
        async with whole_proxy(tmp_path / str(number), monkeypatch, prepare=prepare) as world:
            body = _BODIES.get(route.operation)
            answers.append(await world.ask("alice", line_for(route, name), body, headers_for(route)))
            assert [line for line in world.asked if not line.startswith("GET /exec/")] == []
    theirs, missing = answers
    assert status_of(theirs) == 404
    assert theirs == missing


@pytest.mark.parametrize("verb", ["connect", "disconnect"])
async def test_anothers_object_in_a_body_is_as_absent_as_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    """I4 holds for what a body names too: another's container on one's own network."""
    answers = []
    for number, prepare in enumerate((both, alices)):
        async with whole_proxy(tmp_path / str(number), monkeypatch, prepare=prepare) as world:
            line = f"POST /v1.41/networks/mine/{verb}"
            answers.append(await world.ask("alice", line, {"Container": "theirs"}))
            assert world.asked == []
    assert status_of(answers[0]) == 404
    assert answers[0] == answers[1]


@pytest.fixture
def shared() -> Iterator[str]:
    """A directory that every user reaches (tmp_path is for root), with links in it."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        Path(name, "link").symlink_to("/etc")
        for inner in ("real", "accepted"):
            Path(name, inner).mkdir()
        Path(name, "accepted", "link").symlink_to(Path(name, "real"))
        yield name


async def test_a_linked_bind_is_judged_as_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """A symbolic link below a permitted path gives no way out of it, and dockerd hears nothing."""
    policy = POLICY.replace("allow: {", f"allow: {{binds: [{{path: {shared}, setuid_ok: true}}], ")
    async with whole_proxy(tmp_path, monkeypatch, policy=policy) as world:
        world.answers["GET /images/busybox/json"] = (
            200,
            {"Id": "sha256:1", "RepoTags": ["busybox:latest"]},
        )
        world.answers["POST /containers/create"] = (201, {"Id": "d" * 64, "Warnings": []})
        world.answers["GET /containers/d"] = (200, {"Id": "d" * 64, "Name": "/x", "Image": "sha256:1"})
        statuses = {}
        for source in (shared, f"{shared}/link"):
            host = {"Binds": [f"{source}:/x:ro"]}
            create = {"Image": "busybox", "HostConfig": host}
            statuses[source] = await world.ask("alice", "POST /v1.41/containers/create", create)
        assert status_of(statuses[shared]) == 201
        assert status_of(statuses[f"{shared}/link"]) == 403
        assert "/etc" in document_of(statuses[f"{shared}/link"])["message"]
        assert len([line for line in world.asked if line.startswith("POST")]) == 1


async def test_a_linked_bind_needs_the_mount_of_where_it_leads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared: str
) -> None:
    """Policy accepts setuid files at one path and not at another: a link from the first to the second changes nothing."""
    if os.statvfs(shared).f_flag & os.ST_NOSUID:
        pytest.skip("temporary files are on a file system that needs no acceptance")
    paths = f"[{{path: {shared}/accepted, setuid_ok: true}}, {{path: {shared}/real}}]"
    policy = POLICY.replace("allow: {", f"allow: {{binds: {paths}, ")
    async with whole_proxy(tmp_path, monkeypatch, policy=policy) as world:
        world.answers["GET /images/busybox/json"] = (
            200,
            {"Id": "sha256:1", "RepoTags": ["busybox:latest"]},
        )
        create = {"Image": "busybox", "HostConfig": {"Binds": [f"{shared}/accepted/link:/x:ro"]}}
        answer = await world.ask("alice", "POST /v1.41/containers/create", create)
        assert status_of(answer) == 403
        assert "is not mounted nosuid,nodev" in document_of(answer)["message"]


async def test_a_denial_says_rule_and_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """403 in Docker's form, on record, explained to whom it concerns and to nobody else, and dockerd hears nothing."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        world.answers["GET /images/busybox/json"] = (200, {"Id": "sha256:1", "RepoTags": ["busybox:latest"]})
        create = {"Image": "busybox", "HostConfig": {"Privileged": True}}
        denied = await world.ask("alice", "POST /v1.41/containers/create", create)
        assert status_of(denied) == 403
        message = document_of(denied)["message"]
        assert message.startswith("ds01: HostConfig.Privileged")
        assert "(rule privileged)" in message
        request_id = message.rpartition("ds01 explain ")[2]
        assert not [line for line in world.asked if line.startswith("POST")]
        explain = f"GET /ds01/v1/explain/{request_id}"
        assert document_of(await world.ask("alice", explain))["rules"] == ["privileged"]
        assert document_of(await world.ask("carol", explain))["uid"] == UIDS["alice"]
        assert status_of(await world.ask("bob", explain)) == 404


async def test_a_change_is_on_record_before_dockerd_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line is on file when the request arrives at the engine, which it does by its full id."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=alices) as world:
        seen: list[dict[str, Any]] = []

        async def removed(talk: Talk) -> None:
            seen.extend(world.audit())
            await talk.say(b"HTTP/1.1 204 No Content\r\n\r\n")

        world.answers[f"DELETE /containers/{_ALICE}"] = removed
        assert status_of(await world.ask("alice", "DELETE /v1.41/containers/mine")) == 204
        assert [(each["operation"], each["decision"], each["uid"]) for each in seen] == [
            ("ContainerDelete", "allow", UIDS["alice"])
        ]


async def test_without_a_record_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the audit file cannot be written a change is a 503 that dockerd never sees, and a read goes on."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=alices) as world:
        world.tree.audit.unlink()
        world.tree.audit.mkdir()
        assert status_of(await world.ask("alice", "DELETE /v1.41/containers/mine")) == 503
        assert world.asked == []
        answer = await world.ask("alice", "GET /v1.41/containers/json")
        assert status_of(answer) == 200


async def test_a_users_list_holds_the_users_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of dockerd's whole list a user gets the own part, an admin all of it."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=both) as world:
        own = document_of(await world.ask("alice", "GET /v1.41/containers/json"))
        every = document_of(await world.ask("carol", "GET /v1.41/containers/json"))
        assert [each["Id"] for each in own] == [_ALICE]
        assert [each["Id"] for each in every] == [_ALICE, _BOB]


async def test_a_user_made_admin_sees_all_on_the_same_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of a repeated question was for the old policy: dockerd is asked for more from then on."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=both) as world:
        reader, writer = await world.connect("alice")
        for members in ("carol", "carol", "carol, alice", "carol, alice"):
            world.tree.policy.write_text(POLICY.replace("carol", members))
            world.running().policies.reload_if_changed()
            writer.write(b"GET /v1.41/containers/json HTTP/1.1\r\nHost: d\r\n\r\n")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
            length = next(
                int(each[15:]) for each in head.split(b"\r\n") if each.lower().startswith(b"content-length:")
            )
            listed = await reader.readexactly(length)
        writer.close()
        await writer.wait_closed()
        assert ["uid%3D1001" in line for line in world.asked] == [True, True, False, False]
        assert len(json.loads(listed)) == 2


async def test_events_of_others_are_not_shown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a stream with everybody's events a user gets the own ones, as they come."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=both) as world:

        async def events(talk: Talk) -> None:
            await talk.say(
                b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for container_id in (_BOB, _ALICE, _BOB):
                actor = {"ID": container_id, "Attributes": {"name": "x"}}
                event = json.dumps({"Type": "container", "Action": "start", "Actor": actor}).encode()
                await talk.say(f"{len(event):x}\r\n".encode() + event + b"\r\n")
            await talk.say(b"0\r\n\r\n")

        world.answers["GET /events"] = events
        answer = await world.ask("alice", "GET /v1.41/events")
        assert answer.count(_ALICE.encode()) == 1
        assert _BOB.encode() not in answer


async def test_after_a_hijack_only_bytes_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An attach goes both ways, half-close included, and what looks like a request in it is none."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=alices) as world:

        async def attached(talk: Talk) -> None:
            await talk.say(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\nhello ")
            await talk.say(await talk.reader.read())

        world.answers[f"POST /containers/{_ALICE}/attach"] = attached
        reader, writer = await world.connect("alice")
        writer.write(
            b"POST /v1.41/containers/mine/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\nHost: d\r\n"
            b"Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 5)
        assert status_of(head) == 101
        writer.write(b"DELETE /v1.41/containers/theirs HTTP/1.1\r\n\r\n")
        writer.write_eof()
        assert (
            await asyncio.wait_for(reader.read(), 5)
            == b"hello DELETE /v1.41/containers/theirs HTTP/1.1\r\n\r\n"
        )
        writer.close()
        await writer.wait_closed()
        assert len(world.asked) == 1


async def test_a_create_cut_off_leaves_its_lease_to_be_settled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine goes away in mid-create: 503, and the lease is neither given back nor forgotten."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        proxy, leaser = world.running(), MemoryLeaser()
        for verb in ("reserve", "confirm", "release", "fetch"):
            monkeypatch.setattr(proxy.allocator, verb, getattr(leaser, verb))

        async def lost(talk: Talk) -> None:
            talk.close()

        settled: list[Any] = []
        monkeypatch.setattr(proxy.settlements, "later", lambda *each: settled.append(each))
        world.answers["GET /images/busybox/json"] = (200, {"Id": "sha256:1", "RepoTags": ["busybox:latest"]})
        world.answers["POST /containers/create"] = lost
        gpus = {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]}
        answer = await world.ask(
            "alice", "POST /v1.41/containers/create", {"Image": "busybox", "HostConfig": gpus}
        )
        assert status_of(answer) == 503
        assert "docker ps -a" in document_of(answer)["message"]
        assert leaser.state("new") == "pending"
        assert len(settled) == 1


async def test_nobody_is_served_while_the_plugin_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unstamped request that dockerd answers closes every door: 503 with the rule, and nothing is forwarded.

    That was looked at before any door opened, and the refusal names the API version as dockerd's errors do.
    """

    def unguarded(world: WholeProxy) -> None:
        world.answers["GET /version"] = (200, {"Version": "20.10.24"})

    async with whole_proxy(tmp_path, monkeypatch, prepare=unguarded, plugin_required=True) as world:
        canary = world.running().canary
        assert canary is not None
        assert canary.singing is False
        answer = await world.ask("alice", "GET /v1.41/containers/json")
        assert status_of(answer) == 503
        assert b"\r\nApi-Version: 1.41\r\n" in answer
        assert "(rule canary)" in document_of(answer)["message"]
        assert "GET /containers/json" not in world.asked
        status = document_of(await world.ask("alice", "GET /ds01/v1/status"))
        assert status["authz_plugin"] == "missing"


async def test_ds01_says_who_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """whoami by the socket alone; a usage that the allocator cannot tell is unknown, not 0."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=both) as world:
        told = document_of(await world.ask("bob", "GET /ds01/v1/whoami"))
        assert (told["name"], told["uid"], told["role"]) == ("bob", UIDS["bob"], "user")
        assert told["usage"] == {"containers": 1, "gpus": None}
        status = document_of(await world.ask("bob", "GET /ds01/v1/status"))
        assert "objects" not in status
        assert status["allocator"]["state"] == "unavailable"
        every = document_of(await world.ask("carol", "GET /ds01/v1/status"))
        assert every["objects"] == {"container": 2, "network": 2, "volume": 2}
        assert status_of(await world.ask("bob", "POST /ds01/v1/whoami")) == 405


async def test_an_admin_looks_at_what_the_allocator_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything, since the allocator trusts the proxy; a user is refused, and an allocator that is away is 503."""

    async def listed(_: web.Request) -> web.Response:
        return web.json_response({"containers": [], "of": "the allocator"})

    look = "GET /ds01/v1/containers/foreign"
    async with whole_proxy(tmp_path, monkeypatch) as world:
        assert status_of(await world.ask("carol", look)) == 503
        async with served(tmp_path, [web.get("/v1/foreign", listed)]):
            world.tree.allocator_socket.symlink_to(tmp_path / "s")
            assert document_of(await world.ask("carol", look)) == {"containers": [], "of": "the allocator"}
            refused = await world.ask("alice", look)
            assert (status_of(refused), "only admins" in document_of(refused)["message"]) == (403, True)


def test_the_engine_is_noted_and_noted_anew_only_when_it_changed(tmp_path: Path) -> None:
    """Plugin and guard read it; a full disk matters only when there is something to write."""
    tree = Tree.under(tmp_path)
    tree.lib.mkdir()
    app.note_engine(tree, replace(ENGINE, runtime="ds01", data_root="/d"))
    first = tree.engine_note.stat()
    app.note_engine(tree, replace(ENGINE, runtime="ds01", data_root="/d"))
    assert tree.engine_note.stat().st_ino == first.st_ino
    assert engine_note.read(tree.engine_note.read_bytes()) == EngineNote(runtime="ds01", data_root="/d")
    app.note_engine(tree, ENGINE)
    assert engine_note.read(tree.engine_note.read_bytes()).runtime == "runc"
    assert first.st_mode & 0o777 == 0o644


async def test_one_users_many_requests_do_not_come_before_anothers_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sixty requests of alice's are there when bob's comes: dockerd gets his before most of them."""
    async with whole_proxy(tmp_path, monkeypatch) as world:
        world.answers["GET /images/json"] = (200, [])
        opened = [await world.connect("alice") for _ in range(60)]
        for _, writer in opened:
            writer.write(b"GET /v1.41/images/json HTTP/1.1\r\nHost: d\r\n\r\n")
        assert status_of(await world.ask("bob", "GET /v1.41/volumes")) == 200
        before = world.asked.index("GET /volumes")
        for reader, writer in opened:  # she is served too, in her turn
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
            writer.close()
        assert before < 30
        assert world.asked.count("GET /images/json") == 60


async def test_what_waits_for_the_engine_holds_nobodys_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten waits of alice's are at dockerd, which does not answer: her list is served all the same."""

    def one(world: WholeProxy) -> None:
        world.own("alice", "mine", "a")

    async def never(_: Talk) -> None:
        await asyncio.Event().wait()

    async with whole_proxy(tmp_path, monkeypatch, prepare=one) as world:
        world.answers["POST /containers/"] = never
        opened = [await world.connect("alice") for _ in range(10)]
        for _, writer in opened:
            writer.write(b"POST /v1.41/containers/mine/wait HTTP/1.1\r\nHost: d\r\n\r\n")
        async with asyncio.timeout(5):
            while len(world.asked) < 10:  # noqa: ASYNC110  the engine has no event for it
                await asyncio.sleep(0.01)
        assert status_of(await world.ask("alice", "GET /v1.41/containers/json")) == 200
        for _, writer in opened:
            writer.close()
