"""Any bytes on a user's socket: each gives a decided refusal in Docker's form or a closed connection, and none reaches dockerd."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.fakes.raw_socket import Answer, connected, exchange, read_answer, request

CREATE = "/v1.41/containers/create"
JSON = "Content-Type: application/json\r\n"


def head(line: str, *fields: str) -> bytes:
    return (line + "\r\n" + "".join(f"{field}\r\n" for field in fields) + "\r\n").encode("latin-1")


def create(body: bytes, **headers: str) -> bytes:
    return request("POST", CREATE, body, headers=headers)


def raw_create(*fields: str) -> bytes:
    return head(f"POST {CREATE} HTTP/1.1", "Host: d", "Content-Type: application/json", *fields)


def get(target: str) -> bytes:
    return head(f"GET {target} HTTP/1.1", "Host: d")


IMAGE = b'"Image":"busybox"'
ROWS: list[tuple[str, bytes]] = [
    # the head
    ("header-over-64-kib", head("GET /_ping HTTP/1.1", "Host: d", "X: " + "a" * 70_000)),
    ("header-without-end", b"GET /_ping HTTP/1.1\r\nHost: d\r\nX: " + b"a" * 200_000),
    ("many-headers", head("GET /_ping HTTP/1.1", "Host: d", *(f"X{n}: 1" for n in range(500)))),
    ("target-over-64-kib", get("/" + "a" * 70_000)),
    ("nul-in-header", head("GET /_ping HTTP/1.1", "Host: d", "X: a\0b")),
    ("nul-in-target", get("/_ping\0")),
    ("bare-lf", b"GET /_ping HTTP/1.1\nHost: d\n\n"),
    ("bare-cr", b"GET /_ping HTTP/1.1\rHost: d\r\r"),
    ("folded-header", b"GET /_ping HTTP/1.1\r\nHost: d\r\n X: a\r\n\r\n"),
    ("space-before-colon", head("GET /_ping HTTP/1.1", "Host : d")),
    ("no-colon", head("GET /_ping HTTP/1.1", "Host: d", "nonsense")),
    ("absolute-form", head("GET http://d/_ping HTTP/1.1", "Host: d")),
    ("connect", head("CONNECT d:80 HTTP/1.1", "Host: d")),
    ("asterisk", head("OPTIONS * HTTP/1.1", "Host: d")),
    ("options", head("OPTIONS /_ping HTTP/1.1", "Host: d")),
    ("trace", head("TRACE /_ping HTTP/1.1", "Host: d")),
    ("lower-case-method", head("get /_ping HTTP/1.1", "Host: d")),
    ("http-1.0", head("GET /_ping HTTP/1.0", "Host: d")),
    ("http-0.9", b"GET /_ping\r\n\r\n"),
    ("http-2.0", head("GET /_ping HTTP/2.0", "Host: d")),
    ("http-2-preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0"),
    ("no-host", head("GET /_ping HTTP/1.1")),
    ("two-hosts", head("GET /_ping HTTP/1.1", "Host: d", "Host: e")),
    ("tls-hello", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 64),
    ("empty-line-only", b"\r\n\r\n"),
    ("expect-other", head("GET /_ping HTTP/1.1", "Host: d", "Expect: the-unexpected")),
    # framing
    ("two-lengths", raw_create("Content-Length: 2", "Content-Length: 3") + b"{}"),
    ("length-list", raw_create("Content-Length: 2, 2") + b"{}"),
    ("length-and-chunked", raw_create("Content-Length: 2", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    ("negative-length", raw_create("Content-Length: -1")),
    ("hexadecimal-length", raw_create("Content-Length: 0x2") + b"{}"),
    ("plus-length", raw_create("Content-Length: +2") + b"{}"),
    ("endless-length", raw_create("Content-Length: " + "9" * 40)),
    ("coding-gzip", raw_create("Transfer-Encoding: gzip, chunked") + b"0\r\n\r\n"),
    ("coding-spelled-oddly", raw_create("Transfer-Encoding: xchunked") + b"0\r\n\r\n"),
    ("coding-twice", raw_create("Transfer-Encoding: chunked", "Transfer-Encoding: chunked") + b"0\r\n\r\n"),
    ("bad-chunk-size", raw_create("Transfer-Encoding: chunked") + b"zz\r\n{}\r\n0\r\n\r\n"),
    ("chunk-extension", raw_create("Transfer-Encoding: chunked") + b"2;x=y\r\n{}\r\n0\r\n\r\n"),
    ("chunk-too-long", raw_create("Transfer-Encoding: chunked") + b"2\r\n{}x\r\n0\r\n\r\n"),
    ("chunk-size-endless", raw_create("Transfer-Encoding: chunked") + b"f" * 64 + b"\r\n"),
    ("chunk-bare-lf", raw_create("Transfer-Encoding: chunked") + b"2\n{}\n0\n\n"),
    ("body-over-limit", create(b'{"Image":"' + b"a" * 1_200_000 + b'"}')),
    ("length-over-limit", raw_create("Content-Length: 99999999") + b"{"),
    # the target
    ("encoded-letter", head("POST /v1.41/containers/cre%61te HTTP/1.1", "Host: d")),
    ("encoded-slash", get("/v1.41/containers%2fjson")),
    ("encoded-dots", get("/v1.41/containers/%2e%2e/json")),
    ("double-slash", get("/v1.41//containers/json")),
    ("dot-segment", get("/v1.41/./containers/json")),
    ("dot-dot-segment", get("/v1.41/x/../containers/json")),
    ("unknown-path", get("/v1.41/unknown")),
    ("root", get("/")),
    ("backslash", get("/v1.41\\containers\\json")),
    ("fragment", get("/v1.41/containers/json#x")),
    ("high-byte", get("/v1.41/containers/\xff/json")),
    ("version-zeros", get("/v01.041/containers/json")),
    ("version-dots", get("/v1..41/containers/json")),
    ("version-major", get("/v1/containers/json")),
    ("version-old", get("/v1.12/containers/json")),
    ("version-future", get("/v9.99/containers/json")),
    ("version-huge", get("/v1." + "4" * 400 + "/containers/json")),
    ("wrong-method", head("DELETE /v1.41/containers/json HTTP/1.1", "Host: d")),
    ("head-elsewhere", head("HEAD /v1.41/containers/json HTTP/1.1", "Host: d")),
    ("query-semicolon", get("/v1.41/containers/json?all=1;limit=1")),
    ("query-twice", get("/v1.41/containers/json?all=0&all=1")),
    ("query-unknown", get("/v1.41/containers/json?superuser=1")),
    ("query-folded", get("/v1.41/containers/json?ALL=1")),
    ("query-broken-escape", get("/v1.41/containers/json?all=%zz")),
    ("query-not-utf-8", get("/v1.41/containers/json?filters=%ff")),
    ("filters-not-json", get("/v1.41/containers/json?filters=x")),
    ("filters-deep", get("/v1.41/containers/json?filters=" + "[" * 3000)),
    ("filters-unknown", get("/v1.41/containers/json?filters={%22x%22:[%22y%22]}")),
    ("limit-word", get("/v1.41/containers/json?limit=ten")),
    ("limit-huge", get("/v1.41/containers/json?limit=99999999999999999999")),
    # the body
    ("no-type", head(f"POST {CREATE} HTTP/1.1", "Host: d", "Content-Length: 2") + b"{}"),
    ("form-body", create(b"Image=busybox", **{"Content-Type": "application/x-www-form-urlencoded"})),
    ("multipart-body", create(b"--x--", **{"Content-Type": "multipart/form-data; boundary=x"})),
    ("utf-16-type", create(b"{}", **{"Content-Type": "application/json; charset=utf-16"})),
    ("text-type", create(b"{}", **{"Content-Type": "text/plain"})),
    ("duplicate-keys", create(b"{" + IMAGE + b"," + IMAGE + b"}")),
    ("duplicate-inside", create(b"{" + IMAGE + b',"HostConfig":{"Privileged":false,"Privileged":true}}')),
    ("folded-key", create(b'{"image":"busybox"}')),
    ("kelvin-key", create(b"{" + IMAGE + ',"HostConfig":{"Networ\u212aMode":"host"}}'.encode())),
    ("long-s-key", create(b"{" + IMAGE + ',"Ho\u017ftConfig":{}}'.encode())),
    ("second-document", create(b"{" + IMAGE + b"}{}")),
    ("trailing-bytes", create(b"{" + IMAGE + b"} x")),
    ("byte-order-mark", create(b"\xef\xbb\xbf{" + IMAGE + b"}")),
    ("utf-16", create(("{" + IMAGE.decode() + "}").encode("utf-16"))),
    ("not-utf-8", create(b'{"Image":"\xff\xfe"}')),
    ("lone-surrogate", create(b'{"Image":"\\ud800"}')),
    ("nul-in-string", create(b'{"Image":"a\\u0000b"}')),
    ("deep-lists", create(b"[" * 100_000)),
    ("deep-objects", create(b'{"a":' * 50_000 + b"1" + b"}" * 50_000)),
    ("huge-number", create(b"{" + IMAGE + b',"HostConfig":{"Memory":1e400}}')),
    ("huge-integer", create(b"{" + IMAGE + b',"HostConfig":{"Memory":' + b"9" * 5000 + b"}}")),
    ("fraction", create(b"{" + IMAGE + b',"HostConfig":{"Memory":1.5}}')),
    ("not-a-number", create(b"{" + IMAGE + b',"HostConfig":{"Memory":NaN}}')),
    ("infinity", create(b"{" + IMAGE + b',"HostConfig":{"Memory":-Infinity}}')),
    ("wrong-type", create(b"{" + IMAGE + b',"HostConfig":[]}')),
    ("number-as-text", create(b"{" + IMAGE + b',"HostConfig":{"Memory":"1g"}}')),
    ("array-body", create(b"[]")),
    ("text-body", create(b'"x"')),
    ("half-a-document", create(b'{"Image":')),
    ("comment", create(b"{/**/" + IMAGE + b"}")),
    ("start-with-body", request("POST", "/v1.41/containers/x/start", b'{"Privileged":true}')),
    ("empty-reference", get("/v1.41/containers//json")),
    ("chunked-bad-json", raw_create("Transfer-Encoding: chunked") + b"1\r\n[\r\n0\r\n\r\n"),
]


@pytest.fixture(scope="module")
def alices(lab: object) -> tuple[Path, str]:
    """Alice's socket and name."""
    return lab.root / "run" / "users" / lab.alice / "docker.sock", lab.alice  # type: ignore[attr-defined]  # the session's Lab


@pytest.fixture(scope="module")
def bobs(lab: object) -> tuple[Path, str]:
    """Bob's socket and name."""
    return lab.root / "run" / "users" / lab.bob / "docker.sock", lab.bob  # type: ignore[attr-defined]  # the session's Lab


@pytest.fixture(scope="module", autouse=True)
def _telling(lab: object) -> Iterator[None]:
    """Dockerd logs every call it gets, for as long as this module runs."""
    settings: Path = lab.root / "etc" / "daemon.json"  # type: ignore[attr-defined]  # the session's Lab
    pid = int((lab.root / "run" / "pids" / "dockerd.pid").read_text())  # type: ignore[attr-defined]  # as above
    before = settings.read_text()
    settings.write_text(json.dumps({**json.loads(before), "debug": True}))
    os.kill(pid, signal.SIGHUP)
    time.sleep(0.5)
    yield
    settings.write_text(before)
    os.kill(pid, signal.SIGHUP)


# Engines up to 26 and from 27 on say it differently.
_CALL = re.compile(r'(?:msg="Calling |"handling [A-Z]+ request" method=)([A-Z]+) .*?(/[^\s"]*)')
_OWN = re.compile(r"GET (/v[0-9.]+)?/(_ping|events|containers/json|version|info)")


def reached(lab: object) -> list[str]:
    """Requests that dockerd got and that ds01 does not make by itself, as dockerd logs them."""
    log: Path = lab.root / "log" / "dockerd.log"  # type: ignore[attr-defined]  # the session's Lab
    calls = [" ".join(found) for found in _CALL.findall(log.read_text(errors="replace"))]
    return [call for call in calls if _OWN.match(call) is None]


def is_decided(answer: Answer) -> bool:
    """Closed without a word, or a 4xx (505 for another HTTP) in Docker's form; a HEAD has no body to be in a form."""
    if answer.status == 0:
        return True
    if not answer.body and 400 <= answer.status < 500:
        return "content-length" in answer.headers  # to a HEAD
    return (400 <= answer.status < 500 or answer.status == 505) and bool(answer.message)


def test_dockerd_tells_what_reaches_it(lab: object, alices: tuple[Path, str]) -> None:
    """What the other tests count on: a call that is let through is seen in dockerd's log."""
    before = reached(lab)
    assert exchange(*alices, get("/v1.41/volumes")).status == 200
    assert len(reached(lab)) == len(before) + 1


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in ROWS])
def test_what_two_readers_could_read_differently_is_refused(
    lab: object, alices: tuple[Path, str], data: bytes
) -> None:
    """One refusal in Docker's form, or a closed connection; dockerd is asked nothing."""
    before = reached(lab)
    started = time.monotonic()
    answer = exchange(*alices, data, seconds=10, then_close=not data.startswith(b"HEAD"))
    assert is_decided(answer), answer
    assert time.monotonic() - started < 9
    assert reached(lab) == before


def test_noise_ends_decided_and_reaches_nobody(lab: object, alices: tuple[Path, str]) -> None:
    """150 payloads of random bytes: dockerd gets none."""
    chosen = random.Random(20240117)
    before = reached(lab)
    for _ in range(150):
        data = chosen.randbytes(chosen.randrange(1, 600)) + b"\r\n\r\n"
        assert is_decided(answer := exchange(*alices, data, seconds=10, then_close=True)), (data, answer)
    assert reached(lab) == before


def test_requests_with_bytes_knocked_out_of_place_make_nothing(lab: object, alices: tuple[Path, str]) -> None:
    """350 payloads: some are whole requests by chance (a length that is no length any more), none makes a container."""
    chosen = random.Random(20240118)
    whole = [data for _, data in ROWS if len(data) < 2000]
    before = containers(lab)
    for _ in range(350):
        mutable = bytearray(chosen.choice(whole))
        for _ in range(chosen.randrange(1, 5)):
            mutable[chosen.randrange(len(mutable))] = chosen.randrange(256)
        data = bytes(mutable)
        answer = exchange(*alices, data, seconds=10, then_close=True)
        assert is_decided(answer) or (answer.status == 200 and data.startswith(b"GET ")), (data, answer)
    assert containers(lab) == before


def containers(lab: object) -> list[str]:
    admin = lab.root / "run" / "admin.sock"  # type: ignore[attr-defined]  # the session's Lab
    return sorted(item["Id"] for item in exchange(admin, "root", get("/v1.41/containers/json?all=1")).json)


def test_the_whole_is_served_after_all_that(bobs: tuple[Path, str]) -> None:
    """The proxy lives, and bob is served."""
    assert exchange(*bobs, get("/_ping")).body == b"OK"


def test_a_good_chunked_create_is_judged_like_any_other(alices: tuple[Path, str]) -> None:
    """JSON in chunks is read whole before it is decided: the plugin would not see it otherwise."""
    body = b'{"Image":"busybox","HostConfig":{"Privileged":true}}'
    sent = raw_create("Transfer-Encoding: chunked") + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    answer = exchange(*alices, sent)
    assert (answer.status, "privileged" in answer.message) == (403, True)


def test_each_pipelined_request_is_decided_on_its_own(alices: tuple[Path, str]) -> None:
    """A good request in front does not carry a bad one through."""
    bad = request("POST", CREATE, {"Image": "busybox", "HostConfig": {"Privileged": True}})
    with connected(*alices) as client:
        client.sendall(get("/_ping") + bad)
        assert read_answers(client, 2) == [200, 403]


def read_answers(client: socket.socket, most: int) -> list[int]:
    """The status of each answer on a connection, until it is quiet."""
    data = b""
    client.settimeout(3)
    try:
        while data.count(b"HTTP/1.1 ") < most and (piece := client.recv(65536)):
            data += piece
    except TimeoutError:
        pass
    return [int(part[:3]) for part in data.split(b"HTTP/1.1 ")[1:]]


def test_nothing_is_parsed_behind_an_upgrade(lab: object, alices: tuple[Path, str]) -> None:
    """Bytes behind a hijacked call are the container's input: a request among them is never served."""
    path, user = alices
    made = exchange(
        path, user, create(b'{"Image":"busybox","Cmd":["cat"],"OpenStdin":true,"AttachStdin":true}')
    )
    container = json.loads(made.body)["Id"]
    try:
        assert exchange(path, user, request("POST", f"/containers/{container}/start")).status == 204
        attach = head(
            f"POST /containers/{container}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1",
            "Host: d",
            "Connection: Upgrade",
            "Upgrade: tcp",
        )
        with connected(path, user) as client:
            client.sendall(attach + request("POST", f"/containers/{container}/kill"))
            assert read_answer(client).status == 101
            client.settimeout(3)
            echoed = client.recv(65536)
        assert b"POST /containers/" in echoed
        assert b"HTTP/1.1 204" not in echoed
        state = json.loads(exchange(path, user, get(f"/containers/{container}/json")).body)["State"]
        assert state["Running"]
    finally:
        exchange(path, user, request("DELETE", f"/containers/{container}?force=1"))


def ping_seconds(bobs: tuple[Path, str]) -> float:
    started = time.monotonic()
    assert exchange(*bobs, get("/_ping")).status == 200
    return time.monotonic() - started


@pytest.fixture
def held(alices: tuple[Path, str]) -> Iterator[list[socket.socket]]:
    """300 connections that alice opens and leaves, at least as many as she may."""
    with ExitStack() as open_ones:
        yield [open_ones.enter_context(connected(*alices)) for _ in range(300)]


def test_idle_connections_of_one_user_do_not_hold_up_another(
    held: list[socket.socket], alices: tuple[Path, str], bobs: tuple[Path, str]
) -> None:
    """Alice is refused beyond the policy's 64, with the rule's name; bob notices nothing."""
    assert ping_seconds(bobs) < 1
    time.sleep(0.2)
    refused = 0
    for client in held:
        client.setblocking(False)
        with suppress(BlockingIOError):
            refused += b"503" in client.recv(4096)
    assert refused == 300 - 64
    answer = exchange(*alices, get("/_ping"))
    assert (answer.status, "limit is 64" in answer.message) == (503, True)
    for client in held:
        client.close()
    time.sleep(0.2)
    assert exchange(*alices, get("/_ping")).status == 200


def test_slow_heads_do_not_hold_up_another(alices: tuple[Path, str], bobs: tuple[Path, str]) -> None:
    """Fifty clients that send a header byte by byte (slowloris) cost bob nothing."""
    with ExitStack() as open_ones:
        slow = [open_ones.enter_context(connected(*alices)) for _ in range(50)]
        for byte in b"GET /_pin":
            for client in slow:
                client.sendall(bytes([byte]))
            assert ping_seconds(bobs) < 1


def test_a_client_that_reads_nothing_does_not_hold_up_another(
    alices: tuple[Path, str], bobs: tuple[Path, str]
) -> None:
    """A thousand pipelined lists whose answers are never read stop being served, not the proxy."""
    with connected(*alices) as client:
        client.setblocking(False)
        sent = get("/v1.41/images/json?all=1") * 1000
        try:
            while sent:
                sent = sent[client.send(sent) :]
        except BlockingIOError:
            pass
        assert ping_seconds(bobs) < 1
