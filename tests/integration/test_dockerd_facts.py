"""What dockerd does with requests that can be read in two ways, and what it tells an AuthZ plugin.

ds01's reader and plugin rest on these facts (tried on 20.10.24); an engine that differs fails here first. The engine is
a lab of its own without ds01; a probe stands in for the plugin where one is needed.
"""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import socketserver
import threading
import time
from base64 import b64decode
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from tests.integration.conftest import bare_engine

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(180)]

API = "/v1.41"
CREATE = f"{API}/containers/create"
JSON = "application/json"


class Answer(NamedTuple):
    status: int
    body: bytes

    @property
    def message(self) -> str:
        return str(json.loads(self.body)["message"])


class Engine:
    """A private dockerd without ds01, and its files."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.socket = root / "run" / "engine.sock"

    def send(
        self,
        method: str,
        target: str,
        body: bytes = b"",
        *,
        media_type: str = JSON,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> Answer:
        """Send exactly this target and this body, on a connection of its own."""
        lines = [f"{method} {target} HTTP/1.1", "Host: docker", "Connection: close"]
        lines += [f"Content-Type: {media_type}", f"Content-Length: {len(body)}"] if body else []
        lines += [f"{name}: {value}" for name, value in headers]
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(60)
            connection.connect(str(self.socket))
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            response = http.client.HTTPResponse(connection)
            response.begin()
            return Answer(response.status, response.read())

    def create(self, text: str | bytes) -> dict[str, Any]:
        """Create a container from exactly this JSON text. Returns: its inspection; the container is removed."""
        answer = self.send("POST", CREATE, text.encode() if isinstance(text, str) else text)
        assert answer.status == 201, answer.body
        container = json.loads(answer.body)["Id"]
        inspected = json.loads(self.send("GET", f"{API}/containers/{container}/json").body)
        assert self.send("DELETE", f"{API}/containers/{container}").status == 204
        return dict(inspected)

    def host_config(self, text: str) -> dict[str, Any]:
        return dict(self.create(f'{{"Image":"busybox",{text}}}')["HostConfig"])

    def set_plugins(self, *names: str) -> None:
        """Change daemon.json and let dockerd read it again."""
        path = self.root / "etc" / "daemon.json"
        settings = json.loads(path.read_text()) | {"authorization-plugins": list(names)}
        path.write_text(json.dumps(settings))
        log = self.root / "log" / "dockerd.log"
        before = log.read_text().count("Reloaded configuration")
        os.kill(int((self.root / "run" / "pids" / "dockerd.pid").read_text()), signal.SIGHUP)
        deadline = time.monotonic() + 30
        while log.read_text().count("Reloaded configuration") == before:
            assert time.monotonic() < deadline, "dockerd did not read its settings again"
            time.sleep(0.05)


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with bare_engine() as root:
        yield Engine(root)


class Probe(socketserver.ThreadingUnixStreamServer):
    """A plugin that writes down what it is asked and answers as told."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Asked)
        self.asked: list[dict[str, Any]] = []
        self.reply: dict[str, Any] = {"Allow": True}


class _Asked(BaseHTTPRequestHandler):
    server: Probe
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        reply: dict[str, Any] = {"Implements": ["authz"]}
        if self.path != "/Plugin.Activate":
            reply = {"Allow": True}
        if self.path == "/AuthZPlugin.AuthZReq":
            self.server.asked.append(json.loads(body))
            reply = self.server.reply
        written = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(written)))
        self.send_header("Connection", "close")  # dockerd would go on asking the probe of an earlier test
        self.end_headers()
        self.wfile.write(written)

    def address_string(self) -> str:
        return "dockerd"  # a Unix peer has no host and port to print

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the base class's name for it
        """Stay quiet."""


@pytest.fixture
def probe(engine: Engine) -> Iterator[Probe]:
    path = engine.root / "p.sock"
    spec = engine.root / "etc" / "docker" / "plugins" / "probe.spec"
    with Probe(path) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        spec.write_text(f"unix://{path}\n")
        engine.set_plugins("probe")
        try:
            yield server
        finally:
            engine.set_plugins()
            server.shutdown()
            serving.join()
            path.unlink(missing_ok=True)


@pytest.mark.parametrize("key", ["HostConfig", "hostconfig", "HOSTCONFIG", "Hoſtconfig"])
def test_keys_match_in_any_case(engine: Engine, key: str) -> None:
    """A field is read under any spelling that folds to its name, the long s included."""
    assert engine.host_config(f'"{key}":{{"PidsLimit":77}}')["PidsLimit"] == 77


def test_two_spellings_are_merged(engine: Engine) -> None:
    """Of an object under two spellings dockerd takes the fields of both, where Python's json keeps one."""
    config = engine.host_config('"HostConfig":{"Privileged":true},"hostconfig":{"PidsLimit":77}')
    assert (config["Privileged"], config["PidsLimit"]) == (True, 77)


def test_the_same_key_twice_is_merged(engine: Engine) -> None:
    """The same spelling twice is merged too."""
    config = engine.host_config('"HostConfig":{"Privileged":true},"HostConfig":{"PidsLimit":77}')
    assert (config["Privileged"], config["PidsLimit"]) == (True, 77)


@pytest.mark.parametrize(
    ("field", "value", "left"),
    [
        pytest.param("PidsLimit", "77", None, id="pointer"),
        pytest.param("CapAdd", '["NET_RAW"]', None, id="list"),
        pytest.param("Sysctls", '{"net.core.somaxconn":"128"}', None, id="map"),
        pytest.param("Privileged", "true", True, id="bool"),
        pytest.param("CpuShares", "512", 512, id="number"),
        pytest.param("NetworkMode", '"none"', "none", id="string"),
    ],
)
def test_a_later_null_clears_some_kinds(engine: Engine, field: str, value: str, left: object) -> None:
    """A later null takes pointers, lists and maps back, but neither bools nor numbers nor strings."""
    config = engine.host_config(f'"HostConfig":{{"{field}":{value},"{field.lower()}":null}}')
    assert config.get(field) == left


def test_percent_encoded_letters_are_decoded(engine: Engine) -> None:
    """A path with %63 for c reaches the same handler."""
    assert engine.send("GET", f"{API}/%63ontainers/json").status == 200


@pytest.mark.parametrize("path", ["//containers/json", "/./containers/json", "/x/../containers/json"])
def test_unclean_paths_are_redirected(engine: Engine, path: str) -> None:
    """Doubled slashes and dot segments are answered 301, not served."""
    assert engine.send("GET", API + path).status == 301


def test_a_second_document_is_ignored_or_refused(engine: Engine) -> None:
    """What follows the first JSON document in a body is not looked at; newer engines (28.5) refuse it."""
    text = '{"Image":"busybox","User":"7"} {"User":"0"} trailing'
    answer = engine.send("POST", CREATE, text.encode())
    if answer.status == 400:
        assert answer.message == "unexpected content after JSON"
    else:
        assert engine.create(text)["Config"]["User"] == "7"


def test_invalid_utf8_is_replaced(engine: Engine) -> None:
    """Bytes that are no UTF-8 become U+FFFD instead of an error."""
    created = engine.create(b'{"Image":"busybox","Labels":{"a":"x\xffy"}}')
    assert created["Config"]["Labels"]["a"] == "x\ufffdy"


def test_the_plugin_is_told_no_user_on_a_unix_socket(engine: Engine, probe: Probe) -> None:
    """Whoever connects, User is absent or empty."""
    engine.send("GET", f"{API}/info")
    assert not probe.asked[-1].get("User")
    assert not probe.asked[-1].get("UserAuthNMethod")


def test_headers_reach_the_plugin_recased(engine: Engine, probe: Probe) -> None:
    """A header of the client's arrives under its canonical name, and of two the last: so a stamp can travel."""
    engine.send("GET", f"{API}/info", headers=(("x-ds01-STAMP", "one"), ("X-DS01-stamp", "two")))
    assert probe.asked[-1]["RequestHeaders"]["X-Ds01-Stamp"] == "two"


def test_credentials_are_kept_from_the_plugin(engine: Engine, probe: Probe) -> None:
    """Authorization and registry headers are removed, so a stamp must not be named like them."""
    names = ("Authorization", "X-Registry-Auth", "X-Registry-Config")
    engine.send("GET", f"{API}/info", headers=tuple((name, "secret") for name in names))
    assert not set(names) & set(probe.asked[-1]["RequestHeaders"])


def test_the_target_reaches_the_plugin_as_it_was_sent(engine: Engine, probe: Probe) -> None:
    """RequestUri is neither decoded nor cleaned."""
    engine.send("GET", f"{API}/%63ontainers/json?all=%31")
    assert probe.asked[-1]["RequestUri"] == f"{API}/%63ontainers/json?all=%31"


@pytest.mark.parametrize(
    ("media_type", "given"),
    [
        pytest.param("application/json", True, id="json"),
        pytest.param("application/json; charset=utf-8", True, id="charset"),
        pytest.param("application/x-tar", False, id="tar"),
    ],
)
def test_only_json_bodies_reach_the_plugin(
    engine: Engine, probe: Probe, media_type: str, *, given: bool
) -> None:
    """The plugin sees a body only when its media type is JSON, parameters or not."""
    probe.reply = {"Allow": False, "Msg": "enough"}
    body = b'{"Image":"busybox"}'
    engine.send("POST", CREATE, body, media_type=media_type)
    seen = b64decode(probe.asked[-1].get("RequestBody") or "")
    assert seen == (body if given else b"")


def test_a_large_body_reaches_the_plugin_empty_or_whole_and_is_obeyed(engine: Engine, probe: Probe) -> None:
    """From 1 MiB on the plugin sees nothing while dockerd obeys all of it (CVE-2026-34040), or all where that is mended."""
    padding = "x" * (2 << 20)
    config = engine.host_config(f'"Labels":{{"a":"{padding}"}},"HostConfig":{{"Privileged":true}}')
    asked = next(one for one in probe.asked if one["RequestUri"] == CREATE)
    seen = b64decode(asked.get("RequestBody") or b"")
    assert not seen or json.loads(seen)["Labels"]["a"] == padding
    assert config["Privileged"] is True


@pytest.mark.parametrize(
    ("reply", "status", "message"),
    [
        pytest.param({"Allow": True, "Err": "broken"}, 200, "", id="allow-beside-err"),
        pytest.param(
            {"Allow": False, "Msg": "why"}, 403, "authorization denied by plugin probe: why", id="denied"
        ),
        pytest.param(
            {"Allow": False, "Err": "why"}, 403, "authorization denied by plugin probe: ", id="only-err"
        ),
        pytest.param({}, 403, "authorization denied by plugin probe: ", id="empty"),
    ],
)
def test_only_allow_and_msg_of_a_reply_count(
    engine: Engine, probe: Probe, reply: dict[str, Any], status: int, message: str
) -> None:
    """Err neither denies nor is shown: a denial must fill Msg."""
    probe.reply = reply
    answer = engine.send("GET", f"{API}/info")
    assert answer.status == status
    assert status == 200 or answer.message == message


def test_without_its_plugin_dockerd_refuses_after_its_retries(engine: Engine) -> None:
    """With the plugin gone a call is retried for about 15 s and then refused, never served."""
    path = engine.root / "gone.sock"
    spec = engine.root / "etc" / "docker" / "plugins" / "gone.spec"
    spec.write_text(f"unix://{path}\n")
    with Probe(path) as server:
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        engine.set_plugins("gone")
        engine.send("GET", f"{API}/info")
        server.shutdown()
        serving.join()
    path.unlink()
    started = time.monotonic()
    answer = engine.send("GET", "/_ping")
    waited = time.monotonic() - started
    engine.set_plugins()
    assert answer.status == 500
    assert 10 < waited < 30


def test_a_reload_without_the_key_drops_the_plugin(engine: Engine, probe: Probe) -> None:
    """SIGHUP with the key gone from daemon.json leaves the engine unguarded: hence ds01's canary."""
    probe.reply = {"Allow": False, "Msg": "no"}
    assert engine.send("GET", f"{API}/info").status == 403
    engine.set_plugins()
    assert engine.send("GET", f"{API}/info").status == 200


def test_a_paused_container_is_thawed_to_be_stopped(engine: Engine) -> None:
    """It gets its stop signal and ends by itself: `lifecycle` need not unpause what it stops."""
    polite = ["sh", "-c", 'trap "exit 7" TERM; while :; do sleep 0.1; done']
    made = engine.send("POST", CREATE, json.dumps({"Image": "busybox", "Cmd": polite}).encode())
    path = f"{API}/containers/{json.loads(made.body)['Id']}"
    try:
        assert engine.send("POST", f"{path}/start").status == 204
        time.sleep(0.5)  # the shell sets its trap
        assert engine.send("POST", f"{path}/pause").status == 204
        assert engine.send("POST", f"{path}/stop?t=20").status == 204
        state = json.loads(engine.send("GET", f"{path}/json").body)["State"]
        assert (state["Status"], state["Paused"], state["ExitCode"]) == ("exited", False, 7)
    finally:
        engine.send("DELETE", f"{path}?force=1")
