"""Every call of the Engine API on the whole way: refused in the words clients cope with, foreign like absent, own at work."""

from __future__ import annotations

import base64
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.corpus.test_engine_api_paths import CALLS, Call
from tests.fakes.raw_socket import Answer, ask, connected, exchange, request
from tests.integration.conftest import Lab

pytestmark = pytest.mark.dockerd
ID = "/containers/{id}", "/exec/{id}", "/networks/{id}", "/volumes/{name}"
BODIES: dict[str, object] = {
    "POST /containers/{id}/exec": {"Cmd": ["id"]},
    "POST /containers/{id}/update": {"Memory": 2**28},
    "POST /exec/{id}/start": {"Detach": True},
    "POST /networks/{id}/connect": {"Container": "own"},
    "POST /networks/{id}/disconnect": {"Container": "own"},
}
QUERIES = {
    "PUT /containers/{id}/archive": "?path=/",
    "GET /containers/{id}/archive": "?path=/",
    "POST /containers/{id}/rename": "?name=new",
    "GET /containers/{id}/logs": "?stdout=1",
    "POST /containers/{id}/resize": "?h=1&w=1",
    "POST /exec/{id}/resize": "?h=1&w=1",
}
ON_OBJECTS = [
    call
    for call in CALLS
    if call.path.startswith(ID) and "checkpoints" not in call.path and not call.path.endswith("/copy")
    and (call.method, call.path) != ("PUT", "/volumes/{name}")
]  # fmt: skip


@pytest.fixture(scope="module")
def bobs(lab: Lab) -> Iterator[dict[str, str]]:
    """What bob has, by the first word of the paths that name it; alice has a container called own."""
    lab.clean()
    box = lab.ok(
        lab.bob, "run", "-d", "--name", "bobs-box", "-v", "bobs-volume:/v", "busybox", "sleep", "600"
    )
    executed = ask(
        lab.root / "run/users" / lab.bob / "docker.sock", lab.bob, "POST", f"/v1.41/containers/{box}/exec",
        {"Cmd": ["sleep", "1"]},
    ).json["Id"]  # fmt: skip
    network = lab.ok(lab.bob, "network", "create", "bobs-net")
    lab.ok(lab.alice, "run", "-d", "--name", "own", "busybox", "sleep", "600")
    yield {"containers": box, "exec": executed, "networks": network, "volumes": "bobs-volume"}
    lab.clean()


def as_alice(lab: Lab, method: str, target: str, body: object = None, **headers: str) -> Answer:
    return ask(lab.root / "run/users" / lab.alice / "docker.sock", lab.alice, method, target, body, **headers)


def as_admin(lab: Lab, method: str, target: str, body: object = None) -> Answer:
    return ask(lab.root / "run/admin.sock", "root", method, target, body)


@pytest.mark.parametrize("call", ON_OBJECTS, ids=lambda call: f"{call.method} {call.path}")
def test_what_is_another_users_answers_as_what_is_absent(lab: Lab, bobs: dict[str, str], call: Call) -> None:
    """The same status, headers and bytes, but for the reference that the client wrote itself."""
    kind = call.path.split("/")[1]
    name = f"{call.method} {call.path}"
    foreign = bobs[kind]
    absent = "9" * len(foreign) if kind != "volumes" else "noones-vol1"
    answers = []
    for reference in (foreign, absent):
        target = "/v1.42" + call.path.replace("{id}", reference).replace("{name}", reference)
        answers.append(as_alice(lab, call.method, target + QUERIES.get(name, ""), BODIES.get(name)))
    theirs, none = answers
    assert theirs.status == none.status == 404, (theirs, none)
    assert {**theirs.headers, "date": ""} == {**none.headers, "date": ""}
    assert theirs.body.replace(foreign.encode(), b"X") == none.body.replace(absent.encode(), b"X")


SWARM_READS = [call for call in CALLS if call.method == "GET" and call.path.startswith(("/swarm", "/services", "/nodes", "/tasks", "/secrets", "/configs"))]  # fmt: skip
CHANGES = [
    call
    for call in CALLS
    if call.path.startswith(("/swarm", "/services", "/nodes", "/secrets", "/configs", "/plugins", "/debug"))
    and call not in SWARM_READS
    and f"{call.method} {call.path}" not in {"GET /plugins", "GET /plugins/{name}/json"}
]


@pytest.mark.parametrize("call", SWARM_READS, ids=lambda call: f"{call.method} {call.path}")
def test_reads_of_a_swarm_are_answered_as_without_one(lab: Lab, call: Call) -> None:
    """In dockerd's words, to users and admins alike: clients ask, and go on."""
    for answer in (
        as_alice(lab, "GET", f"/v1.41{call.example()}"),
        as_admin(lab, "GET", f"/v1.41{call.example()}"),
    ):
        assert answer.status == 503
        assert answer.message.startswith("This node is not a swarm manager.")


@pytest.mark.parametrize("call", CHANGES, ids=lambda call: f"{call.method} {call.path}")
def test_changes_of_the_engine_itself_are_refused_to_users(lab: Lab, call: Call) -> None:
    """Swarm, plugins and the debug pages: the refusal names its rule."""
    answer = as_alice(lab, call.method, f"/v1.41{call.example()}")
    assert answer.status == 403, answer
    assert "(rule operation)" in answer.message


def test_users_have_no_plugins_and_admins_see_the_engines(lab: Lab) -> None:
    """An empty list and a 404, which `docker info` and `docker inspect` cope with; admins get what dockerd says."""
    assert as_alice(lab, "GET", "/v1.41/plugins").json == []
    assert as_alice(lab, "GET", "/v1.41/plugins/x/json").status == 404
    assert as_admin(lab, "GET", "/v1.41/plugins").json == []
    assert "not found" in as_admin(lab, "POST", "/v1.41/plugins/x/disable?force=1").message
    assert as_admin(lab, "POST", "/v1.41/plugins/x/set", ["A=b"]).status == 404
    assert as_admin(lab, "GET", "/v1.41/debug/vars").json["cmdline"]
    assert b"goroutine" in as_admin(lab, "GET", "/debug/pprof/goroutine?debug=1").body


@pytest.mark.parametrize(
    ("method", "target", "body", "headers", "status"),
    [
        ("GET", "/v1.23/containers/json", None, {}, 400),
        ("GET", "/v1.52/containers/json", None, {}, 400),
        ("GET", "/v1/containers/json", None, {}, 400),
        ("GET", "/v01.041/containers/json", None, {}, 400),
        ("GET", "/v1.41/%63ontainers/json", None, {}, 400),
        ("GET", "/v1.41//containers/json", None, {}, 400),
        ("POST", "/v1.41/containers/own/start", {"Privileged": True}, {}, 400),
        ("POST", "/v1.41/containers/own/kill", b"signal=9", {"Content-Type": "application/x-www-form-urlencoded"}, 400),
        ("POST", "/v1.41/containers/own/kill", b"x", {"Content-Type": "multipart/form-data; boundary=x"}, 400),
        ("HEAD", "/v1.41/containers/json", None, {}, 404),
        ("OPTIONS", "/v1.41/containers/json", None, {}, 404),
        ("GET", "/v1.41/images/busybox/attestations", None, {}, 404),
        ("GET", "/v1.41/nothing", None, {}, 404),
    ],
)  # fmt: skip
def test_what_is_no_call_of_this_api(
    lab: Lab,
    bobs: dict[str, str],
    method: str,
    target: str,
    body: object,
    headers: dict[str, str],
    status: int,
) -> None:
    """Other versions, other spellings, forms, and calls that do not exist."""
    del bobs
    assert as_alice(lab, method, target, body, **headers).status == status
    assert lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}}", "own") == "true"


READS = [
    call
    for call in CALLS
    if call.method in {"GET", "HEAD"} and "{" not in call.path and call not in SWARM_READS
]


@pytest.mark.parametrize(
    "call",
    [
        call
        for call in READS
        if not call.path.startswith(("/debug", "/plugins/", "/images/search", "/images/get"))
    ],
    ids=lambda call: f"{call.method} {call.path}",
)
def test_plain_reads_work_in_the_oldest_and_the_newest_version(lab: Lab, call: Call) -> None:
    """Every read without a name answers 200 in each version that has it."""
    for minor in (24, 25, 41):
        if call.since is not None and (1, minor) < call.since:
            continue
        query = "?until=1&since=0" if call.path == "/events" else ""
        answer = exchange(
            lab.root / "run/users" / lab.alice / "docker.sock",
            lab.alice,
            request(call.method, f"/v1.{minor}{call.path}{query}"),
        )
        assert answer.status == 200, answer


def frame(payload: bytes) -> bytes:
    """One final binary frame of a client, masked as RFC 6455 demands."""
    mask = os.urandom(4)
    masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
    return struct.pack("!BB", 0x82, 0x80 | len(payload)) + mask + masked


@pytest.mark.parametrize("whose", ["own", "bobs"])
def test_a_websocket_attaches_to_own_containers_alone(lab: Lab, bobs: dict[str, str], whose: str) -> None:
    """What is written to the terminal of an own container comes back; another's is absent, before any upgrade."""
    lab.ok(lab.alice, "run", "-d", "-i", "--name", "echo", "busybox", "cat")
    container = "echo" if whose == "own" else bobs["containers"]
    head = request(
        "GET",
        f"/v1.41/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1",
        headers={
            "Connection": "Upgrade",
            "Upgrade": "websocket",
            "Origin": "http://localhost",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
        },
    )
    socket_path: Path = lab.root / "run/users" / lab.alice / "docker.sock"
    try:
        with connected(socket_path, lab.alice) as client:
            client.sendall(head)
            answer = b""
            while b"\r\n\r\n" not in answer:
                answer += client.recv(4096)
            if whose == "bobs":
                assert answer.startswith(b"HTTP/1.1 404")
                return
            assert answer.startswith(b"HTTP/1.1 101"), answer
            assert b"sec-websocket-accept" in answer.lower()
            client.sendall(frame(b"through the socket\n"))
            data = answer.partition(b"\r\n\r\n")[2]
            while b"through the socket\n" not in data:
                piece = client.recv(4096)
                assert piece, data
                data += piece
            assert data[0] in {0x81, 0x82}, "a frame of the engine, whole"
    finally:
        lab.docker(lab.alice, "rm", "-f", "echo")
