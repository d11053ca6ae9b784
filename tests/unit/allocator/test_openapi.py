"""docs/allocator-api.yaml against the allocator: the same routes, real bodies and answers as it says, the same words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import pytest
import yaml
from aiohttp import ClientSession, UnixConnector, web

from allocator.api import Api
from allocator.api_foreign import ForeignRoutes
from allocator.api_mig import MigRoutes
from allocator.app import clock, new_id
from allocator.attribution import Kind, Proof
from allocator.ledger import Ledger
from allocator.model import DeviceKind, DeviceState, LeaseState, Link, Obstacle, Problem, RefusalKind
from allocator.parts import Parts
from allocator.readings import ProcessType, RecoveryAction, Throttle
from allocator.settings import parse_settings
from host import listener
from policy.host_processes import HostRule
from policy.model import LeaseId
from tests.fakes.fake_nvml import FakeNvml, gpu, split
from tests.fakes.host_access import World as AccessWorld
from tests.fakes.leasing import Clock, foreign, service
from tests.fakes.routes import NOBODY, TRUSTED
from tests.unit.allocator.test_api_processes import OWNERS, Asked
from tests.unit.allocator.test_mig_apply import GPU, HALF, SMALL, instance, repartition
from tests.unit.allocator.test_mig_apply import World as MigWorld

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from enum import Enum

DOCUMENT: Final[dict[str, Any]] = yaml.safe_load(
    (Path(__file__).parents[3] / "docs/allocator-api.yaml").read_text()
)
SCHEMAS: Final = DOCUMENT["components"]["schemas"]
METHODS: Final = ("get", "post", "put", "delete")
OPERATIONS: Final[dict[tuple[str, str], dict[str, Any]]] = {
    (method.upper(), path): item[method]
    for path, item in DOCUMENT["paths"].items()
    for method in METHODS
    if method in item
}
TYPES: Final[dict[str, tuple[type, ...]]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}
KEYWORDS: Final = frozenset(
    {"$ref", "type", "enum", "description", "required", "properties", "additionalProperties", "items"}
    | {"minimum", "maximum", "minItems", "maxItems", "pattern"}
)
CONTAINER: Final = "1" * 64
FOREIGN: Final = {
    "runs": True,
    "monitor": False,
    "inspect": {
        "Config": {"Env": ["NVIDIA_VISIBLE_DEVICES=0"], "Labels": {"aime.mlc": "alice"}},
        "HostConfig": {"Runtime": "nvidia", "DeviceCgroupRules": ["c 195:0 rw"]},
        "Mounts": [{"Type": "bind", "Source": "/data"}],
    },
}
CARRYING: Final = {
    "id": CONTAINER,
    "pid": 5,
    "owner_uid": 1000,
    "name": "w",
    "carries": {"lease": "lease0", "inspect": FOREIGN["inspect"]},
}
TRUSTED_ONLY: Final = {"processes", "pids", "serial", "foreign", "foreign_owners"}


def resolved(part: dict[str, Any]) -> dict[str, Any]:
    """What a reference names, or the part itself."""
    while "$ref" in part:
        found: Any = DOCUMENT
        for name in part["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        part = found
    return part


def mismatches(value: Any, schema: dict[str, Any], at: str = "$") -> Iterator[str]:
    """Where a value is not as its schema says; a key that the schema does not have is one too."""
    schema = resolved(schema)
    types = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
    known = tuple(kind for name in types for kind in TYPES[name])
    if not isinstance(value, known) or (isinstance(value, bool) and "boolean" not in types):
        yield f"{at}: {value!r} is no {types}"
    elif "enum" in schema and value not in schema["enum"]:
        yield f"{at}: {value!r} is not in {schema['enum']}"
    elif isinstance(value, dict):
        own, other = schema.get("properties", {}), schema.get("additionalProperties")
        yield from (f"{at}: {name} is missing" for name in schema.get("required", ()) if name not in value)
        for name, item in value.items():
            if name in own or isinstance(other, dict):
                yield from mismatches(item, own.get(name, other), f"{at}.{name}")
            else:
                yield f"{at}: {name} is not documented"
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from mismatches(item, schema["items"], f"{at}[{index}]")


def body_schema(operation: dict[str, Any]) -> dict[str, Any] | None:
    body = operation.get("requestBody")
    return None if body is None else resolved(body["content"]["application/json"]["schema"])


# --- The document itself ------------------------------------------------------------------------------------


async def test_it_has_every_route_and_no_other(tmp_path: Path) -> None:
    """Of the application that the daemon serves, method by method."""
    settings = parse_settings(["--root", str(tmp_path)])
    settings.tree.ledger.parent.mkdir(parents=True)
    parts = Parts(settings, now=clock(), new_id=new_id)
    served = {
        (route.method, route.resource.canonical)
        for route in parts.application().router.routes()
        if route.method != "HEAD" and route.resource is not None
    }
    await parts.service.close()
    await parts.access.close()
    parts.processes.close()
    assert set(OPERATIONS) == served


def _schemas(part: Any) -> Iterator[dict[str, Any]]:
    """A schema and all that it is made of."""
    yield part
    nested = [*part.get("properties", {}).values(), part.get("items"), part.get("additionalProperties")]
    for one in nested:
        if isinstance(one, dict):
            yield from _schemas(one)


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_schema_has_known_words_alone(name: str) -> None:
    """No comma in a description has become a key, every reference leads somewhere, and what is required is a property."""
    for one in _schemas(SCHEMAS[name]):
        assert one.keys() <= KEYWORDS
        assert "type" in resolved(one)
        assert isinstance(one.get("description", ""), str)
        assert set(one.get("required", ())) <= one.get("properties", {}).keys()
        if one.get("type") == "object":
            assert "additionalProperties" in one or "required" in one


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=lambda one: one["operationId"])
def test_an_operation_says_who_and_every_answer(operation: dict[str, Any]) -> None:
    """Who may ask, a summary, 400 exactly where a body or a query is read, 403 where not everybody may."""
    assert operation["x-who"] in {"all", "own", "trusted"}
    assert operation["summary"].endswith(".")
    answers = operation["responses"]
    assert ("400" in answers) == ("requestBody" in operation or "parameters" in operation)
    assert "403" in answers or operation["x-who"] != "trusted"
    for answer in answers.values():
        found = resolved(answer)
        assert found.keys() == {"description", "content"}
        assert resolved(found["content"]["application/json"]["schema"])["type"] in {"object", "array"}
    assert len([one for one in OPERATIONS.values() if one["operationId"] == operation["operationId"]]) == 1


@pytest.mark.parametrize(
    ("schema", "words"),
    [
        (SCHEMAS["RefusalKind"], RefusalKind),
        (SCHEMAS["LeaseState"], LeaseState),
        (SCHEMAS["DeviceState"], DeviceState),
        (SCHEMAS["DeviceKind"], DeviceKind),
        (SCHEMAS["ProcessKind"], Kind),
        (SCHEMAS["HostRule"], HostRule),
        (SCHEMAS["Throttle"], Throttle),
        (SCHEMAS["DeviceProcess"]["properties"]["type"], ProcessType),
        (SCHEMAS["Measures"]["properties"]["recovery"], RecoveryAction),
        (SCHEMAS["Proof"], Proof),
        (SCHEMAS["Obstacle"], Obstacle),
    ],
)
def test_the_words_are_those_of_the_code(schema: dict[str, Any], words: type[Enum]) -> None:
    """Each closed set, no word more and none less; null stands for none."""
    assert {word for word in schema["enum"] if word is not None} == {word.value for word in words}
    assert (None in schema["enum"]) == ("null" in schema["type"])


def test_other_words_are_those_of_the_code() -> None:
    """Kinds of outage with what is none, and how near GPUs are."""
    assert set(SCHEMAS["InventoryState"]["enum"]) == {"ok", "no_gpus"} | {one.value for one in Problem}
    assert set(SCHEMAS["Link"]["properties"]["link"]["enum"]) == {one.name.lower() for one in Link}


# --- Real answers -------------------------------------------------------------------------------------------


class Ask(NamedTuple):
    """One question of the play, by the path of the document."""

    method: str
    path: str
    status: int
    body: Any = None
    place: str = ""  # what stands for the {…} of the path
    query: str = ""


WANT: Final = {
    "owner_uid": 1000,
    "owner_name": "alice",
    "limit": 8,
    "wait_seconds": 0,
    "request_id": "0123456789ab",
    "session": "one",
}
MORE: Final = {
    "profile": "any",
    "memory_mib": 1000,
    "classes": ["gpu", "mig"],
    "equivalents": "10/7",
    "groups": [{"name": "g", "devices": 4, "equivalents": "4"}],
    "seconds": 3600,
    "hold_seconds": 60,
    "wait_most_seconds": 60,
    "weight": 2,
    "priority": 1,
    "asked_ms": 5,
}
RESERVE: Final = {"name": "course", "count": 1, "when": "Thu 00:20-12:00"}
ORDER: Final = {"who": "root", "reason": "a new fan"}
LEASE: Final = "/v1/leases/{id}"
QUARANTINE, UNQUARANTINE = "/v1/devices/{uuid}/quarantine", "/v1/devices/{uuid}/unquarantine"
OF_CONTAINER: Final = {"container_id": CONTAINER}
RULES: Final = {
    "host_processes": "warn",
    "unleased": "stop",
    "grace_seconds": 5,
    "exempt": [{"user": "alice", "until": 9, "reason": "a demo"}],
}
ADOPTION: Final = {
    "owner_uid": 1000,
    "owner_name": "alice",
    "groups": ["students"],
    "restarts": False,
    "session": "one",
    "request_id": "0123456789ab",
}
ASKED: Final = {"session": "one", "boot_id": "boot-1", "asked_ms": 1_000_000}
WISH: Final = {"user": "alice", "seconds": 3600, "reason": "profiling", "devices": ["0"]}
PLAY: Final = (
    Ask("GET", "/v1/health", 200),
    Ask("POST", "/v1/leases", 201, WANT | {"count": 1, "wait_seconds": 1}),
    Ask("POST", "/v1/leases", 201, WANT | MORE | {"count": 1, "request_id": "other"}),
    Ask("POST", "/v1/leases", 409, WANT | {"device_ids": ["0"]}),
    Ask("POST", f"{LEASE}/confirm", 200, OF_CONTAINER, "lease0"),
    Ask("POST", f"{LEASE}/confirm", 409, {"container_id": "2" * 64}, "lease0"),
    Ask("POST", f"{LEASE}/start", 200, OF_CONTAINER, "lease0"),
    Ask("POST", f"{LEASE}/start", 404, OF_CONTAINER, "none"),
    Ask("GET", "/v1/inventory", 200),
    Ask("GET", "/v1/leases", 200),
    Ask("GET", "/v1/leases", 400, query="?owner_uid=x"),
    Ask("GET", LEASE, 200, place="lease0"),
    Ask("GET", LEASE, 404, place="none"),
    Ask(
        "POST",
        "/v1/evidence",
        200,
        {
            **ASKED,
            "containers": [
                {"id": CONTAINER, "lease": "lease0", "owner_uid": 1000, "state": "exited"},
                {"id": "2" * 64, "lease": "unknown", "owner_uid": 7},
            ],
            "pending": ["lease1"],
        },
    ),
    Ask("POST", "/v1/evidence", 409, {**ASKED, "boot_id": "another", "containers": []}),
    Ask("POST", QUARANTINE, 200, ORDER, gpu(0).uuid),
    Ask("POST", QUARANTINE, 404, ORDER, "GPU-x"),
    Ask("GET", "/v1/health", 200),
    Ask("POST", UNQUARANTINE, 200, ORDER, gpu(0).uuid),
    Ask("POST", UNQUARANTINE, 404, ORDER, gpu(0).uuid),
    Ask(
        "POST",
        "/v1/reservations",
        201,
        RESERVE | {"group": "course", "profile": "any", "lead_seconds": 60, "by": "ann", "reason": "x"},
    ),
    Ask("PUT", "/v1/reservations", 200, {"reservations": [RESERVE | {"uid": 1000}]}),
    Ask("GET", "/v1/reservations", 200),
    Ask("GET", "/v1/queue", 200),
    Ask("DELETE", "/v1/reservations/{id}", 409, place="policy-0"),
    Ask("DELETE", "/v1/reservations/{id}", 400, place="r1", query="?by="),
    Ask("DELETE", "/v1/reservations/{id}", 200, place="r1", query="?by=ann"),
    Ask("DELETE", "/v1/reservations/{id}", 404, place="r1"),
    Ask("POST", f"{LEASE}/release", 200, {"reason": "removed"}, "lease0"),
    Ask("GET", "/v1/processes", 200),
    Ask("PUT", "/v1/containers", 200, {"containers": [CARRYING]}),
    Ask(
        "PUT",
        "/v1/containers",
        200,
        {"containers": [{"id": CONTAINER, "pid": 5, "owner_uid": None, "name": "w", "foreign": FOREIGN}]},
    ),
    Ask("GET", "/v1/foreign", 200),
    Ask("POST", "/v1/foreign/{id}/lease", 200, ADOPTION, CONTAINER),
    Ask("POST", "/v1/foreign/{id}/lease", 404, ADOPTION, "2" * 64),
    Ask("PUT", "/v1/host-rules", 200, RULES),
    Ask("POST", "/v1/host-access", 201, WISH),
    Ask("POST", "/v1/host-access", 404, WISH | {"user": "nobody-here"}),
    Ask("GET", "/v1/host-access", 200),
    Ask("POST", "/v1/host-access/revoke", 200, {"user": "alice"}),
    Ask("POST", "/v1/host-access/revoke", 404, {"user": "alice"}),
    Ask("GET", "/v1/mig", 200),
    Ask("POST", "/v1/mig/plan", 200, {"layouts": {GPU: {"3g.20gb": 2}}}),
    Ask("POST", "/v1/mig/plan", 409, {"layouts": {"GPU-x": None}}),
    Ask("POST", "/v1/mig/apply", 200, {"layouts": {GPU: None}}),
)


class Served:
    """Every route on one socket, over what the tests of each use; a client that is trusted or not."""

    def __init__(self, path: Path, trusted: frozenset[int]) -> None:
        self.path = path
        self.trusted = trusted
        devices = (gpu(0, minor=0), *split(1, "1g.5gb", "1g.5gb"))
        self.service = service(path / "ledger", FakeNvml(*devices), Clock())
        self.service.foreign.tell([foreign("0", runs=False)])
        self.mig_ledger = Ledger(path / "mig")
        self.access = AccessWorld(path)

    async def start(self) -> None:
        api = Api(self.service, trusted_uids=self.trusted, now=Clock(), new_id=lambda: LeaseId("r1"))
        world = MigWorld(instance(SMALL, 0), instance(HALF, 4))
        changing = repartition(world, self.mig_ledger)
        more = (
            *Asked(self.access, self.trusted, self.service.foreign).routes,
            *ForeignRoutes(self.service, OWNERS, trusted_uids=self.trusted, now=Clock()).routes(),
            *MigRoutes(changing, trusted_uids=self.trusted).routes(),
        )
        self.runner = web.AppRunner(api.application(*more), handler_cancellation=True)
        await self.runner.setup()
        await web.SockSite(self.runner, listener.listen(self.path / "s")).start()
        self.client = ClientSession("http://allocator", connector=UnixConnector(str(self.path / "s")))

    async def close(self) -> None:
        await self.client.close()
        await self.runner.cleanup()
        await self.service.close()
        await self.access.access.close()
        self.access.processes.close()
        self.mig_ledger.close()

    async def call(self, ask: Ask) -> tuple[int, Any]:
        """Status and answer, which is held against the document; so is the body that is sent."""
        path = ask.path.replace("{id}", ask.place).replace("{uuid}", ask.place) + ask.query
        data = None if ask.body is None else json.dumps(ask.body)
        async with self.client.request(ask.method, path, data=data) as answer:
            status, said = answer.status, await answer.json()
        responses = OPERATIONS[ask.method, ask.path]["responses"]
        assert str(status) in responses, (ask, said)
        schema = resolved(responses[str(status)])["content"]["application/json"]["schema"]
        assert list(mismatches(said, schema)) == [], ask
        return status, said


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Callable[[frozenset[int]], Any]]:
    """Gives `await serve(trusted)`: everything served."""
    running: list[Served] = []

    async def start(trusted: frozenset[int]) -> Served:
        one = Served(tmp_path, trusted)
        await one.start()
        running.append(one)
        return one

    yield start
    for one in running:
        await one.close()


async def test_real_answers_are_as_documented(serve: Any) -> None:
    """Each operation is asked for what it gives and for what it refuses; bodies and answers fit their schemas."""
    served: Served = await serve(TRUSTED)
    for ask in PLAY:
        schema = body_schema(OPERATIONS[ask.method, ask.path])
        assert schema is None or list(mismatches(ask.body, schema)) == [], ask
        status, said = await served.call(ask)
        assert status == ask.status, (ask, said)
    assert {(ask.method, ask.path) for ask in PLAY} == set(OPERATIONS)


async def test_bodies_are_read_as_documented(serve: Any) -> None:
    """What is required is missed, what is not documented is refused, and every documented field is taken by some question."""
    served: Served = await serve(TRUSTED)
    sent: dict[tuple[str, str], set[str]] = {}
    for ask in PLAY:
        schema = body_schema(OPERATIONS[ask.method, ask.path])
        if schema is None or ask.status not in (200, 201):
            continue
        assert schema["additionalProperties"] is False
        for name in schema["required"]:
            less = {key: value for key, value in ask.body.items() if key != name}
            assert (await served.call(ask._replace(body=less)))[0] == 400, (ask, name)
        assert (await served.call(ask._replace(body=ask.body | {"more": 1})))[0] == 400, ask
        sent.setdefault((ask.method, ask.path), set()).update(ask.body)
    for key, names in sent.items():
        schema = body_schema(OPERATIONS[key])
        assert schema is not None
        # `device_ids` is for a question of its own, which another holds.
        assert names | {"device_ids", "uid"} >= schema["properties"].keys(), key


async def test_who_may_ask_is_as_documented(serve: Any) -> None:
    """Who is not trusted gets 403 for exactly what is for the trusted; what it sees otherwise is documented too."""
    served: Served = await serve(NOBODY)
    await served.service.sweep()
    for ask in PLAY:
        status, _ = await served.call(ask._replace(place=ask.place or "none"))
        assert (status == 403) == (OPERATIONS[ask.method, ask.path]["x-who"] == "trusted"), ask
    _, inventory = await served.call(Ask("GET", "/v1/inventory", 200))
    told = SCHEMAS["Device"]
    assert {
        name for one in inventory["devices"] for name in told["properties"].keys() - one.keys()
    } == TRUSTED_ONLY
    assert set(told["required"]) == told["properties"].keys() - TRUSTED_ONLY
    assert (await served.call(Ask("GET", "/v1/leases", 403, query="?owner_uid=4242")))[0] == 403


async def test_an_outage_is_as_documented(serve: Any) -> None:
    """503 where devices are needed, the line all the same, and a health that says which kind it is."""
    served: Served = await serve(TRUSTED)
    inventory: FakeNvml = served.service.watch._inventory  # type: ignore[assignment]  # the fake
    inventory.problem, inventory.kind = "the driver is not loaded", Problem.NO_DRIVER
    assert (await served.call(Ask("POST", "/v1/leases", 503, WANT | {"count": 1})))[0] == 503
    assert (await served.call(Ask("GET", "/v1/queue", 200)))[0] == 200
    assert (await served.call(Ask("GET", "/v1/health", 200)))[1]["inventory"] == "no_driver"
    assert (await served.call(Ask("GET", "/v1/inventory", 200)))[1]["fresh"] is False


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"a": True}, "$.a: True is no ['integer']"),
        ({"a": 1, "b": [1, None]}, "$.b[1]: None is no ['integer']"),
        ({}, "$: a is missing"),
        ({"a": 1, "c": 2}, "$: c is not documented"),
        ({"a": 7}, "$.a: 7 is not in [1, 2]"),
        ([], "$: [] is no ['object']"),
    ],
)
def test_the_check_sees_what_is_wrong(value: Any, said: str) -> None:
    """Wrong types, missing and additional keys, and words that are not in the set, each with its place."""
    numbers = {"type": "array", "items": {"type": "integer"}}
    one = {"type": "integer", "enum": [1, 2]}
    schema = {"type": "object", "required": ["a"], "properties": {"a": one, "b": numbers}}
    assert list(mismatches(value, schema)) == [said]
