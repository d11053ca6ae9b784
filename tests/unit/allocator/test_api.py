"""The HTTP API on a real Unix socket: who may ask, what is refused, what the answers look like."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

import pytest
from aiohttp import ClientSession, UnixConnector, web

from allocator import answers
from allocator.api import Api
from allocator.bodies import parse_evidence, parse_want
from allocator.json_values import BadInput
from allocator.model import Problem
from host import listener
from policy.model import LeaseId
from tests.fakes.fake_nvml import FakeNvml, gpu, mig, snapshot, split
from tests.fakes.leasing import Clock, foreign, queued, service

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

WANT: dict[str, Any] = {
    "owner_uid": 1000,
    "owner_name": "alice",
    "count": 1,
    "limit": 2,
    "wait_seconds": 0,
    "request_id": "0123456789ab",
    "session": "one",
}
CONTAINER = "1" * 64
ASKED: dict[str, Any] = {
    "boot_id": "boot-1",
    "asked_ms": 1_001_000,
}  # a second after the clock of these tests begins


class Server:
    """The API of a machine with one GPU and two MIG devices, and a client of it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "s"
        self.trusted = {os.getuid()}
        self.clock = Clock()
        self.nvml = FakeNvml(gpu(0), *split(1, "1g.5gb", "1g.5gb"))
        self.service = service(path / "ledger", self.nvml, self.clock)

    async def __aenter__(self) -> Self:
        api = Api(
            self.service, trusted_uids=frozenset(self.trusted), now=self.clock, new_id=lambda: LeaseId("r1")
        )
        api._trusted = self.trusted  # type: ignore[assignment]  # tests change who is trusted
        self.runner = web.AppRunner(api.application(), handler_cancellation=True)
        await self.runner.setup()
        await web.SockSite(self.runner, listener.listen(self.path)).start()
        self.client = ClientSession("http://allocator", connector=UnixConnector(str(self.path)))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.close()
        await self.runner.cleanup()
        await self.service.close()

    async def call(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body)
        async with self.client.request(method, path, data=data) as answer:
            return answer.status, await answer.json()


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Server]:
    async with Server(tmp_path) as running:
        yield running


async def test_a_lease_from_request_to_release(server: Server) -> None:
    """201 with the lease, then confirmed, listed, found, and released twice."""
    status, lease = await server.call("POST", "/v1/leases", WANT)
    assert status == 201
    assert set(lease) == {
        *("id", "owner_uid", "owner_name", "state", "devices", "generations", "equivalents", "container_id"),
        *("created_at", "seconds", "ends_at", "ends_in_seconds", "note"),
    }
    assert (lease["state"], lease["devices"], lease["container_id"]) == ("pending", [gpu(0).uuid], None)
    path = f"/v1/leases/{lease['id']}"
    status, lease = await server.call("POST", f"{path}/confirm", {"container_id": CONTAINER})
    assert (status, lease["state"], lease["container_id"]) == (200, "bound", CONTAINER)
    status, lease = await server.call("POST", f"{path}/start", {"container_id": CONTAINER})
    assert (status, lease["state"]) == (200, "active")
    assert await server.call("GET", path) == (200, lease)
    assert await server.call("GET", "/v1/leases?owner_uid=1000") == (200, [lease])
    assert await server.call("GET", "/v1/leases?owner_uid=1") == (200, [])
    for _ in range(2):
        status, lease = await server.call("POST", f"{path}/release", {"reason": "removed"})
        assert (status, lease["state"]) == (200, "released")
    status, answer = await server.call("POST", f"{path}/confirm", {"container_id": CONTAINER})
    assert (status, list(answer)) == (409, ["message"])


async def test_a_refusal_says_why(server: Server) -> None:
    """409 with Docker's message and the kind of refusal."""
    status, answer = await server.call("POST", "/v1/leases", WANT | {"count": 3})
    assert (status, answer["refusal"]) == (409, "limit")
    assert answer["message"].startswith("ds01: 3 GPUs asked, limit is 2 (rule gpu_limit)")


async def test_a_user_sees_only_its_own(server: Server) -> None:
    """Who is not trusted leases nothing, reads no other's lease and no holder, and learns of none by its errors."""
    _, lease = await server.call("POST", "/v1/leases", WANT | {"owner_uid": 4242})
    server.trusted.clear()
    for path, body in (
        ("/v1/leases", WANT),
        (f"/v1/leases/{lease['id']}/release", {"reason": "mine"}),
        (f"/v1/leases/{lease['id']}/confirm", {"container_id": CONTAINER}),
        ("/v1/evidence", {"session": "one", "containers": []}),
        (f"/v1/devices/{gpu(1).uuid}/quarantine", {"who": "me", "reason": "mine"}),
        (f"/v1/devices/{gpu(1).uuid}/unquarantine", {"who": "me", "reason": "mine"}),
    ):
        status, answer = await server.call("POST", path, body)
        assert (status, list(answer)) == (403, ["message"])
    assert (await server.call("GET", "/v1/leases?owner_uid=4242"))[0] == 403
    assert await server.call("GET", "/v1/leases") == (200, [])
    assert await server.call("GET", f"/v1/leases/{lease['id']}") == await server.call(
        "GET", "/v1/leases/none"
    )
    _, inventory = await server.call("GET", "/v1/inventory")
    held = inventory["devices"][0]
    assert (held["held"], held["holder"], held["lease"]) == (True, None, None)
    assert not {"pids", "processes", "serial"} & held.keys()
    assert "alice" not in json.dumps(inventory)


async def test_the_inventory_shows_holders_to_the_trusted(server: Server) -> None:
    """Devices with class, memory, state and holder."""
    await server.call("POST", "/v1/leases", WANT)
    _, inventory = await server.call("GET", "/v1/inventory")
    whole, mode, part, _ = inventory["devices"]
    assert (whole["kind"], whole["memory_mib"], whole["holder"], whole["in_use"]) == (
        "gpu",
        40960,
        "alice",
        False,
    )
    assert (mode["state"], part["index"], part["profile"], part["held"]) == (
        "unusable",
        "1:0",
        "1g.5gb",
        False,
    )


async def test_the_inventory_shows_who_has_the_file_of_a_gpu(server: Server) -> None:
    """With a MIG device that is gone; the GPU is whole again, and not free."""
    _, lease = await server.call("POST", "/v1/leases", {**WANT, "profile": "1g.5gb"})
    assert lease["devices"] == [mig(1, 0).uuid]
    server.nvml.snapshot = snapshot(gpu(0), gpu(1))
    await server.service.sweep()
    _, inventory = await server.call("GET", "/v1/inventory")
    assert [device["holder"] for device in inventory["devices"]] == [None, "alice"]


async def test_the_inventory_shows_what_ds01_did_not_make(server: Server) -> None:
    """By its name to the trusted; to others the device is in use."""
    await server.service.sweep()
    server.service.foreign.tell([foreign("0")])
    _, inventory = await server.call("GET", "/v1/inventory")
    assert [device["foreign"] for device in inventory["devices"]] == ["old", None, None, None]
    assert inventory["devices"][0]["foreign_owners"][0]["evidence"] is None
    server.trusted.clear()
    _, inventory = await server.call("GET", "/v1/inventory")
    assert [device["in_use"] for device in inventory["devices"]] == [True, False, False, False]
    assert '"old"' not in json.dumps(inventory)


async def test_without_nvml_leases_are_503_and_the_rest_answers(server: Server) -> None:
    """An outage of the driver is told as such."""
    server.service.watch._inventory.problem = "NVML: Driver Not Loaded"  # type: ignore[attr-defined]  # the fake
    status, answer = await server.call("POST", "/v1/leases", WANT)
    assert (status, "Driver Not Loaded" in answer["message"]) == (503, True)
    status, health = await server.call("GET", "/v1/health")
    assert (status, health["state"], health["inventory_age_seconds"]) == (200, "unavailable", None)
    assert health["kernel_log_problem"] == "the kernel log is not read"


async def test_health_names_the_outage(server: Server) -> None:
    """By kind, with a sentence for the admin, and says what there is otherwise."""
    await server.service.sweep()
    _, health = await server.call("GET", "/v1/health")
    assert (health["state"], health["inventory"], health["message"]) == ("ok", "ok", None)
    assert health["devices"] == {"ok": 3, "unusable": 1}
    inventory: FakeNvml = server.service.watch._inventory  # type: ignore[assignment]  # the fake
    inventory.problem, inventory.kind = "the driver is not loaded", Problem.NO_DRIVER
    await server.service.sweep()
    _, health = await server.call("GET", "/v1/health")
    assert (health["state"], health["inventory"]) == ("unavailable", "no_driver")
    assert health["message"] == health["problem"] == "the driver is not loaded"


async def test_a_server_without_gpus_is_well(tmp_path: Path) -> None:
    """It says that it has none, which is no outage; a create that asks for one is refused, not failed."""
    async with Server(tmp_path) as server:
        for uuid in list(server.service.watch._inventory.snapshot.devices):  # type: ignore[attr-defined]  # the fake
            server.service.watch._inventory.take(uuid)  # type: ignore[attr-defined]  # the fake
        await server.service.sweep()
        _, health = await server.call("GET", "/v1/health")
        assert (health["state"], health["problem"], health["inventory"]) == ("ok", None, "no_gpus")
        assert "no GPU" in health["message"]
        status, answer = await server.call("POST", "/v1/leases", WANT)
        assert (status, answer["refusal"]) == (409, "too_few")


async def test_a_device_is_taken_out_of_service_and_put_back(server: Server) -> None:
    """By the trusted, with who and why; the inventory says so, and its holder's lease carries a note."""
    _, lease = await server.call("POST", "/v1/leases", WANT)
    order = {"who": "root", "reason": "a new fan"}
    path = f"/v1/devices/{gpu(0).uuid}"
    assert (await server.call("POST", f"{path}/quarantine", order))[0] == 200
    whole = (await server.call("GET", "/v1/inventory"))[1]["devices"][0]
    assert (whole["state"], whole["remark"]) == ("quarantined", "a new fan")
    _, lease = await server.call("GET", f"/v1/leases/{lease['id']}")
    assert (lease["state"], "a new fan" in lease["note"]) == ("pending", True)
    assert (await server.call("POST", f"{path}/unquarantine", order))[0] == 200
    assert (await server.call("GET", "/v1/inventory"))[1]["devices"][0]["state"] == "ok"
    status, answer = await server.call("POST", f"{path}/unquarantine", order)
    assert (status, "not in quarantine" in answer["message"]) == (404, True)
    assert (await server.call("POST", "/v1/devices/GPU-x/quarantine", order))[0] == 404
    for body in ({"who": "root"}, {"who": "root", "reason": ""}, {"who": "root", "reason": "x", "more": 1}):
        assert (await server.call("POST", f"{path}/quarantine", body))[0] == 400


async def test_evidence_answers_what_was_changed(server: Server) -> None:
    """Changes and conflicts are listed, and health says that reconciliation has happened."""
    _, lease = await server.call("POST", "/v1/leases", WANT)
    carried = {"id": CONTAINER, "lease": lease["id"], "owner_uid": 1000}
    stray = {"id": "2" * 64, "lease": "unknown", "owner_uid": 7}
    server.clock.seconds += 1
    status, answer = await server.call(
        "POST", "/v1/evidence", {**ASKED, "session": "one", "containers": [carried, stray]}
    )
    assert status == 200
    assert [item["state"] for item in answer["changes"]] == ["bound"]
    assert [item["container"] for item in answer["conflicts"]] == ["2" * 64]
    assert (await server.call("GET", "/v1/health"))[1]["reconciled"] is True
    old = {**ASKED, "asked_ms": 1_000_000, "session": "one", "containers": []}
    status, answer = await server.call("POST", "/v1/evidence", old)
    assert (status, "older than what was settled last" in answer["message"]) == (409, True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        pytest.param({"count": True}, "count", id="bool for a number"),
        pytest.param({"count": 1.0}, "count", id="float"),
        pytest.param({"count": "1"}, "count", id="text for a number"),
        pytest.param({"count": 0}, "count", id="zero devices"),
        pytest.param({"count": None}, "count", id="null"),
        pytest.param({"device_ids": ["0"]}, "exactly one", id="both"),
        pytest.param({"limit": -1}, "limit", id="negative limit"),
        pytest.param({"wait_seconds": 1e9}, "wait_seconds", id="endless wait"),
        pytest.param({"owner_uid": 2**32 - 1}, "owner_uid", id="no uid"),
        pytest.param({"owner_name": "a\nb"}, "owner_name", id="line break"),
        pytest.param({"session": ""}, "session", id="empty"),
        pytest.param({"extra": 1}, "extra", id="unknown key"),
    ],
)
def test_a_wrong_field_is_named(change: dict[str, Any], field: str) -> None:
    """Every field is checked for type and range, and the message names it."""
    with pytest.raises(BadInput, match=field):
        parse_want(WANT | change)


@pytest.mark.parametrize(
    "item",
    [
        pytest.param({"id": "abc", "lease": "a", "owner_uid": 1}, id="short id"),
        pytest.param({"id": CONTAINER, "lease": "a"}, id="missing owner"),
        pytest.param({"id": CONTAINER, "lease": 1, "owner_uid": 1}, id="lease no text"),
        pytest.param("x", id="no object"),
    ],
)
def test_wrong_evidence_is_refused_whole(item: Any) -> None:
    """One unreadable container makes all of the evidence unreadable: half of it would release leases."""
    with pytest.raises(BadInput):
        parse_evidence({**ASKED, "session": "s", "containers": [item]})


@pytest.mark.parametrize("name", ["boot_id", "asked_ms"])
def test_evidence_without_a_time_is_refused(name: str) -> None:
    """Nobody could tell which leases it knew of."""
    body = {**ASKED, "session": "s", "containers": []}
    parse_evidence(body)
    del body[name]
    with pytest.raises(BadInput, match=name):
        parse_evidence(body)


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b"{}", id="all missing"),
        pytest.param(json.dumps(WANT).encode()[:-1] + b', "count": 2}', id="duplicate key"),
        pytest.param(b"[" * 100_000, id="too deep"),
        pytest.param(b"\xff{}", id="no UTF-8"),
    ],
)
async def test_a_body_that_cannot_be_read_is_400(server: Server, body: bytes) -> None:
    """Answered with a message, and nothing is leased."""
    status, answer = await server.call("POST", "/v1/leases", body)
    assert (status, list(answer)) == (400, ["message"])
    assert await server.service.leases(None) == ()


async def test_unknown_paths_and_methods_answer_in_docker_s_form(server: Server) -> None:
    """Every error is {"message"}."""
    assert (await server.call("GET", "/v2/x"))[0] == 404
    assert list((await server.call("DELETE", "/v1/leases"))[1]) == ["message"]
    assert (await server.call("GET", "/v1/leases?owner_uid=x"))[0] == 400


async def test_a_client_that_hangs_up_while_it_waits_leaves_the_queue(server: Server) -> None:
    """The freed device is not given to a connection that is closed."""
    _, lease = await server.call("POST", "/v1/leases", WANT)
    waiting = {key: value for key, value in WANT.items() if key != "count"} | {
        "device_ids": ["0"],
        "wait_seconds": 60,
    }
    body = json.dumps(waiting).encode()
    with socket.socket(socket.AF_UNIX) as raw:
        raw.connect(str(server.path))
        raw.sendall(
            b"POST /v1/leases HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
        )
        await queued(server.service, 1)
    await queued(server.service, 0)
    await server.call("POST", f"/v1/leases/{lease['id']}/release", {"reason": "removed"})
    assert await server.service.leases(None) == ()


RESERVATION = {"group": "course", "name": "course", "count": 1, "when": "Thu 00:20-12:00"}


async def test_reservations_are_made_shown_and_taken_back(server: Server) -> None:
    """By the trusted alone; everybody sees them, ahead of time, in the queue too."""
    status, made = await server.call("POST", "/v1/reservations", RESERVATION)
    assert (status, made["id"], made["source"]) == (201, "r1", f"uid {os.getuid()}")
    declared = [RESERVATION | {"profile": "1g.5gb"}]
    status, listed = await server.call("PUT", "/v1/reservations", {"reservations": declared})
    assert (status, [item["id"] for item in listed]) == (200, ["policy-0"])
    await server.call("POST", "/v1/leases", WANT | {"profile": "1g.5gb"})
    server.trusted.clear()
    _, listed = await server.call("GET", "/v1/reservations")
    assert [item["id"] for item in listed["reservations"]] == ["policy-0", "r1"]
    assert [item["next"]["running"] for item in listed["reservations"]] == [False, False]
    _, queue = await server.call("GET", "/v1/queue")
    first = next(item for item in queue["reservations"] if item["reservation"] == "r1")
    assert (first["needs"], first["running"], first["begins_at"]) == (1, False, "2026-01-01T00:20:00Z")
    for method, path in (
        ("POST", "/v1/reservations"),
        ("PUT", "/v1/reservations"),
        ("DELETE", "/v1/reservations/r1"),
    ):
        assert (await server.call(method, path, RESERVATION))[0] == 403
    server.trusted.add(os.getuid())
    assert (await server.call("DELETE", "/v1/reservations/policy-0"))[0] == 409
    assert (await server.call("DELETE", "/v1/reservations/r1?by=" + "x" * 2000))[0] == 400
    assert (await server.call("DELETE", "/v1/reservations/r1?by=ann"))[0] == 200
    assert (await server.call("DELETE", "/v1/reservations/r1"))[0] == 404


async def test_more_than_there_is_is_reserved_with_a_warning(server: Server) -> None:
    """Who made it and why is kept; while nobody can say what there is, nothing is warned of."""
    await server.service.sweep()
    wish = RESERVATION | {"count": 100, "by": "ann", "reason": "a course"}
    _, made = await server.call("POST", "/v1/reservations", wish)
    assert (made["by"], made["reason"]) == ("ann", "a course")
    assert made["warning"].startswith("100 x full is more than this server has")
    assert (await server.call("POST", "/v1/reservations", RESERVATION))[1]["warning"] is None
    server.nvml.problem = "no driver"
    await server.service.sweep()
    assert (await server.call("POST", "/v1/reservations", wish))[1]["warning"] is None


async def test_the_queue_shows_who_waits(server: Server) -> None:
    """To the trusted with names, to others their own alone."""
    await server.call("POST", "/v1/leases", WANT | {"owner_uid": 1, "profile": "full"})
    async with asyncio.TaskGroup() as tasks:
        body = WANT | {"profile": "full", "wait_seconds": 60}
        asking = tasks.create_task(server.call("POST", "/v1/leases", body))
        await queued(server.service, 1)
        _, queue = await server.call("GET", "/v1/queue")
        server.trusted.clear()
        _, for_others = await server.call("GET", "/v1/queue")
        asking.cancel()
    (waiter,), (other,) = queue["waiting"], for_others["waiting"]
    assert (waiter["position"], waiter["owner_name"], waiter["wants"]) == (
        1,
        "alice",
        {"count": 1, "profile": "full"},
    )
    assert (other["position"], other["owner_name"], other["request_id"]) == (1, None, None)


async def test_a_start_that_nobody_can_judge_is_503(server: Server) -> None:
    """With words for who starts it; a lease that is over is 409 all the same."""
    _, lease = await server.call("POST", "/v1/leases", {**WANT, "count": 1})
    path = f"/v1/leases/{lease['id']}"
    await server.call("POST", f"{path}/confirm", {"container_id": CONTAINER})
    server.nvml.problem = "the NVIDIA driver does not answer"
    await server.service.sweep()
    assert await server.call("POST", f"{path}/start", {"container_id": CONTAINER}) == (
        503,
        {
            "message": "ds01: the GPU lease of this container cannot be checked now: the NVIDIA driver does not"
            " answer (rule gpu_lease); try again in a moment or tell the admin"
        },
    )
    await server.call("POST", f"{path}/release", {"reason": "removed"})
    status, said = await server.call("POST", f"{path}/start", {"container_id": CONTAINER})
    assert status == 409
    assert said["message"] == (
        f"ds01: the GPU lease {lease['id']} of this container has ended (rule gpu_lease); create the container"
        " again to get a new one"
    )


async def test_a_start_is_only_for_who_holds(server: Server) -> None:
    """409 once the lease is over, 404 where there is none, 403 for others."""
    _, lease = await server.call("POST", "/v1/leases", WANT)
    path = f"/v1/leases/{lease['id']}/start"
    await server.call("POST", f"/v1/leases/{lease['id']}/release", {"reason": "removed"})
    assert (await server.call("POST", path, {"container_id": CONTAINER}))[0] == 409
    assert (await server.call("POST", "/v1/leases/none/start", {"container_id": CONTAINER}))[0] == 404
    server.trusted.clear()
    assert (await server.call("POST", path, {"container_id": CONTAINER}))[0] == 403


async def test_the_line_is_known_while_the_devices_are_not(server: Server, tmp_path: Path) -> None:
    """Who waits and what is kept for whom is told in an outage of NVML; what is lacking then nobody knows."""
    reservation = {"count": 1, "name": "course", "group": "course", "when": "daily 10:00-12:00"}
    await server.call("POST", "/v1/reservations", reservation)
    _, lease = await server.call("POST", "/v1/leases", WANT | {"profile": "full"})
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(
            server.call(
                "POST",
                "/v1/leases",
                WANT | {"owner_uid": 2, "profile": "full", "request_id": "b", "wait_seconds": 9},
            )
        )
        await queued(server.service, 1)
        server.nvml.problem = "the driver is gone"
        await server.service.sweep()
        status, line = await server.call("GET", "/v1/queue")
        assert (status, [one["request_id"] for one in line["waiting"]]) == (200, ["b"])
        assert {one["needs"] for one in line["reservations"]} == {None}
        server.nvml.problem = None
        await server.service.sweep()
        _, line = await server.call("GET", "/v1/queue")
        assert {one["needs"] for one in line["reservations"]} == {1}
        await server.call("POST", f"/v1/leases/{lease['id']}/release", {"reason": "removed"})
        assert (await waiting)[0] == 201


async def test_what_nobody_gets_is_not_told_as_free(server: Server) -> None:
    """What is kept for others and what somebody uses who cannot be seen say so, and in an outage everything does."""

    async def seen() -> list[Any]:
        _, inventory = await server.call("GET", "/v1/inventory")
        return [None if one["obstacle"] is None else one["obstacle"]["kind"] for one in inventory["devices"]]

    await server.service.sweep()
    assert (await seen())[0] is None
    reserved = {"count": 1, "name": "course", "group": "course", "when": "daily 00:00-24:00"}
    await server.call("POST", "/v1/reservations", reserved)
    assert (await seen())[0] == "reserved"
    assert "course" in json.dumps((await server.call("GET", "/v1/inventory"))[1])
    server.trusted.clear()
    assert "course" not in json.dumps((await server.call("GET", "/v1/inventory"))[1])
    server.service.watch.ghosts = frozenset({gpu(0).uuid})
    assert (await seen())[0] == "unattributed"
    server.nvml.problem = "the driver is gone"
    await server.service.sweep()
    assert set(await seen()) == {"outage"}


async def test_what_is_in_no_list_is_told_beside_it(server: Server) -> None:
    """GPUs that did not say which they are, by index, and why nothing can be read at all."""
    _, inventory = await server.call("GET", "/v1/inventory")
    assert (inventory["problem"], inventory["unidentified"]) == ("NVML was not read yet", {})
    server.nvml.snapshot = replace(server.nvml.snapshot, unidentified={"7": "it has never answered"})
    await server.service.sweep()
    _, inventory = await server.call("GET", "/v1/inventory")
    assert (inventory["problem"], inventory["unidentified"]) == (None, {"7": "it has never answered"})
    server.nvml.problem = "the driver is gone"
    await server.service.sweep()
    assert (await server.call("GET", "/v1/inventory"))[1]["problem"] == "the driver is gone"


async def test_an_old_look_is_told_as_old(server: Server) -> None:
    """From the moment on from which nothing is given on it."""
    await server.service.sweep()
    for seconds, fresh in ((7, True), (2, False)):
        server.clock.seconds += seconds
        _, inventory = await server.call("GET", "/v1/inventory")
        assert (inventory["fresh"], inventory["state"]) == (fresh, "ok")


@pytest.mark.parametrize(
    ("reason", "status"),
    [("Lüfter defekt, ausgebaut", 200), ("风扇坏了", 200), ("two\nlines", 400), ("\u202eback", 400)],
)
async def test_a_reason_is_one_line_of_any_script(server: Server, reason: str, status: int) -> None:
    """It is shown as it was written; what could steer a terminal is refused."""
    await server.service.sweep()
    order = {"who": "root", "reason": reason}
    assert (await server.call("POST", f"/v1/devices/{gpu(0).uuid}/quarantine", order))[0] == status
    shows = (await server.call("GET", "/v1/inventory"))[1]["devices"][0]
    assert shows["remark"] == (reason if status == 200 else None)


async def test_what_is_over_is_not_reserved(server: Server) -> None:
    """A date in the past keeps nothing for anybody; the same times of a day to come do."""
    wish = {"count": 1, "name": "course", "group": "course"}
    status, answer = await server.call("POST", "/v1/reservations", wish | {"when": "2025-12-31 10:00-12:00"})
    assert (status, "2025-12-31 10:00-12:00 is over" in answer["message"]) == (400, True)
    assert (await server.call("GET", "/v1/reservations"))[1] == {"reservations": []}
    status, _ = await server.call("POST", "/v1/reservations", wish | {"when": "2026-01-01 10:00-12:00"})
    assert status == 201


async def test_a_body_has_to_come_in_time(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a request that is never whole would hold its connection for ever."""
    monkeypatch.setattr(answers, "_BODY_SECONDS", 0.1)
    reader, writer = await asyncio.open_unix_connection(str(server.path))
    writer.write(b"POST /v1/leases HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{")
    async with asyncio.timeout(5):
        assert (await reader.readline()).startswith(b"HTTP/1.1 400 ")
    writer.close()
