"""The whole way of requests about another's container: what a share lets through, and what it does not."""

from __future__ import annotations

import asyncio
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from policy.dockerapi.model import Operation
from policy.dockerapi.routes import ROUTES, Route
from policy.model import Share
from policy.sharing import permits
from socket_proxy import grantees
from tests.fakes.whole_proxy import UIDS, WholeProxy, account, document_of, status_of, whole_proxy
from tests.unit.socket_proxy.test_path import headers_for, line_for

if TYPE_CHECKING:
    from pathlib import Path

    from tests.fakes.scripted_dockerd import Talk

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give each user a socket")

_BOB = "b" * 64
_SECRET = "bobs-4711"
_ON_ONE = [
    route
    for route in ROUTES
    if "{container}" in route.template and route.operation is not Operation.CHECKPOINT
]
_BODIES: dict[Operation, dict[str, Any]] = {
    Operation.CONTAINER_EXEC: {"Cmd": ["id"]},
    Operation.CONTAINER_UPDATE: {"Memory": 1},
}


def policy(share: Share) -> str:
    return f"""
version: 1
defaults: {{role: user, allow: {{registries: ["*"]}}}}
groups:
  lab: {{members: [alice, bob], share: {{containers: {share}}}}}
"""


def bobs(world: WholeProxy) -> None:
    """Bob has "theirs", named as ds01 names it."""
    world.own("bob", "theirs", "b")
    world.containers[-1] |= {"Names": ["/u1002.theirs"], "Command": _SECRET, "State": "running"}
    world.answers[f"GET /containers/{_BOB}/json"] = (
        200,
        {"Id": _BOB, "Name": "/u1002.theirs", "Config": {"Env": [f"TOKEN={_SECRET}"]}},
    )
    world.answers[f"POST /containers/{_BOB}/exec"] = (201, {"Id": "e" * 64})


def changes(world: WholeProxy) -> list[str]:
    """What dockerd was asked, but for ds01's own looks."""
    return [line for line in world.asked if not line.startswith("GET /containers/json")]


@pytest.mark.parametrize("share", [Share.NONE, Share.VIEW, Share.USE])
@pytest.mark.parametrize("route", _ON_ONE, ids=lambda route: f"{route.operation}")
async def test_a_group_has_what_its_share_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, route: Route, share: Share
) -> None:
    """dockerd hears of a permitted call, by full id; of any other nothing: 403 where it is seen, 404 where it is not."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=bobs, policy=policy(share)) as world:
        name = "bob.theirs"
        answer = await world.ask(
            "alice", line_for(route, name), _BODIES.get(route.operation), headers_for(route)
        )
        if permits(share, route.operation):
            assert [line.partition("?")[0].split("/")[2] for line in changes(world)] == [_BOB]
            assert status_of(answer) not in (403, 500, 502, 503)
        else:
            assert world.asked == []
            assert status_of(answer) == (404 if share is Share.NONE else 403)
            if route.method != "HEAD":
                assert (b"(rule share)" in answer) == (share is not Share.NONE)
        assert _SECRET.encode() not in answer


@pytest.mark.parametrize("name", ["theirs", "bob.theirs", "u1002.theirs", _BOB, "bbbb"])
async def test_a_third_notices_nothing_of_a_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Carol gets the very bytes that she gets where there is no container at all."""
    answers = []
    for number, prepare in enumerate((bobs, lambda _: None)):
        async with whole_proxy(
            tmp_path / str(number), monkeypatch, prepare=prepare, policy=policy(Share.USE)
        ) as world:
            lines = [
                f"GET /v1.41/containers/{name}/json",
                "GET /v1.41/containers/json",
                "GET /ds01/v1/containers/shares",
            ]
            answers.append([await world.ask("carol", line) for line in lines])
    assert answers[0] == answers[1]
    assert status_of(answers[0][0]) == 404


async def test_a_list_on_one_connection_follows_the_policy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same request again and again: what was written for the first is not sent for the last."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=bobs, policy=policy(Share.NONE)) as world:
        reader, writer = await world.connect("alice")

        async def names() -> list[str]:
            writer.write(b"GET /v1.41/containers/json HTTP/1.1\r\nHost: d\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
            return [each["Names"][0] for each in json.loads(await reader.readexactly(length))]

        async def eventually(wanted: list[str]) -> None:
            async with asyncio.timeout(8):
                while await names() != wanted:  # noqa: ASYNC110  a file has no event
                    await asyncio.sleep(0.05)

        for _ in range(3):
            assert await names() == []
        for share, wanted in ((Share.VIEW, ["/bob.theirs"]), (Share.NONE, []), (Share.USE, ["/bob.theirs"])):
            world.tree.policy.write_text(policy(share))
            await eventually(wanted)
        writer.close()
        await writer.wait_closed()


async def grant(world: WholeProxy, **more: object) -> None:
    wish = {"container": "theirs", "with": ["alice"], "share": "use", **more}
    answer = await world.ask("bob", "POST /ds01/v1/containers/share", wish)
    assert status_of(answer) == 200, answer


async def forever(talk: Talk) -> None:
    await talk.say(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    await talk.reader.read()


@pytest.mark.parametrize("how", ["unshared", "over"])
async def test_a_stream_is_cut_when_the_share_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """logs -f of a granted container: the owner takes it back, or its time is over. dockerd's side is closed too."""
    patch_names(monkeypatch)
    async with whole_proxy(tmp_path, monkeypatch, prepare=bobs, policy=policy(Share.NONE)) as world:
        world.answers[f"GET /containers/{_BOB}/logs"] = forever
        await grant(world, seconds=2 if how == "over" else 3600)
        reader, writer = await world.connect("alice")
        writer.write(b"GET /v1.41/containers/bob.theirs/logs?follow=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
        await reader.readuntil(b"hello")
        if how == "unshared":
            answer = await world.ask("bob", "POST /ds01/v1/containers/unshare", {"container": "theirs"})
            assert status_of(answer) == 200
        rest = await asyncio.wait_for(reader.read(), 5)
        assert b"0\r\n\r\n" not in rest, "half an answer does not look like a whole one"
        writer.close()
        again = await world.ask("alice", "GET /v1.41/containers/bob.theirs/logs?stdout=1")
        assert status_of(again) == 404
        events = [(each["event"], each.get("uid")) for each in world.audit()]
        assert ("container.shared", 1002) in events
        used = next(each for each in world.audit() if each.get("operation") == "ContainerLogs")
        assert (used["uid"], used["shared"]) == (
            1001,
            [{"container": _BOB, "owner_uid": 1002, "share": "use"}],
        )


def patch_names(patch: pytest.MonkeyPatch) -> None:
    """Logins of this server."""
    patch.setattr(grantees, "look_up_name", lambda name: account(UIDS.get(name, -1)))


async def test_an_exec_is_its_makers_and_the_owners(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another member of the group has no part in it, and after the end its maker has none either."""
    text = policy(Share.NONE).replace("alice, bob", "alice, bob, carol")
    patch_names(monkeypatch)
    async with whole_proxy(tmp_path, monkeypatch, prepare=bobs, policy=text) as world:
        world.answers["GET /exec/"] = (200, {"ID": "e" * 64, "ContainerID": _BOB})
        await grant(world, **{"with": ["group:lab"]})
        made = await world.ask("alice", "POST /v1.41/containers/bob.theirs/exec", {"Cmd": ["id"]})
        assert document_of(made)["Id"] == "e" * 64
        line = f"GET /v1.41/exec/{'e' * 64}/json"
        assert [status_of(await world.ask(name, line)) for name in ("alice", "bob", "carol")] == [
            200,
            200,
            404,
        ]
        await world.ask("bob", "POST /ds01/v1/containers/unshare", {"container": "theirs"})
        assert [status_of(await world.ask(name, line)) for name in ("alice", "bob")] == [404, 200]


async def test_an_owners_exec_is_not_the_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may run programs may not join those of others."""
    async with whole_proxy(tmp_path, monkeypatch, prepare=bobs, policy=policy(Share.USE)) as world:
        world.answers["GET /exec/"] = (200, {"ID": "e" * 64, "ContainerID": _BOB})
        await world.ask("bob", "POST /v1.41/containers/theirs/exec", {"Cmd": ["id"]})
        for line in (f"GET /v1.41/exec/{'e' * 64}/json", f"POST /v1.41/exec/{'e' * 64}/start"):
            body: dict[str, Any] | None = {} if line.startswith("POST") else None
            assert status_of(await world.ask("alice", line, body)) == 404
