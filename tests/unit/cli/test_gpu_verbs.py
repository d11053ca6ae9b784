"""Each verb of `ds01 gpu` asks the allocator for what it shows, and sends what was asked."""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingUnixStreamServer
from threading import Thread
from typing import TYPE_CHECKING, Any

import pytest

from cli.main import main
from cli.outcome import Exit

if TYPE_CHECKING:
    from collections.abc import Iterator

DEVICE = {
    "uuid": "GPU-1",
    "index": "0",
    "profile": "A100",
    "state": "ok",
    "memory_mib": 40960,
    "held": False,
    "in_use": False,
    "holder": None,
    "obstacle": None,
}
INVENTORY: dict[str, Any] = {
    "state": "ok",
    "problem": None,
    "unidentified": {},
    "age_seconds": 1.0,
    "fresh": True,
    "devices": [DEVICE],
}
EMPTY_ROUND = {
    "scope": "all",
    "at": "t",
    "age_seconds": 1.0,
    "problem": None,
    "unlisted_devices": [],
    "processes": [],
    "elsewhere": [],
    "elsewhere_age_seconds": 1.0,
    "unattributed_memory": [],
    "unread": 0,
}
PLAN = {"gpu": "GPU-1", "index": "0", "steps": [], "kept": [], "missing": {}}


class Allocator(ThreadingUnixStreamServer):
    """Answers by method and path, and remembers what was sent."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), _Handler)
        self.sent: list[tuple[str, str, Any]] = []
        self.status = 200
        self.answers: dict[str, Any] = {
            "GET /v1/inventory": INVENTORY,
            "GET /v1/queue": {"waiting": [], "reservations": []},
            "GET /v1/reservations": {"reservations": []},
            "GET /v1/processes": EMPTY_ROUND,
            "GET /v1/mig": {"gpus": [{"gpu": "GPU-1", "index": "0"}]},
            "POST /v1/mig/plan": {"plans": [PLAN]},
            "POST /v1/mig/apply": {
                "outcomes": [{"plan": PLAN, "done": 0, "problem": None, "waits_for_reset": False}],
                "cdi_problem": None,
            },
            "POST /v1/reservations": {
                "id": "r1",
                "count": 2,
                "profile": "full",
                "name": "course",
                "when": "Tue",
            },
            "DELETE /v1/reservations/r1?by=ann": {},
            "POST /v1/host-access": {"user": "alice", "devices": [], "ends_at": "t"},
            "POST /v1/devices/GPU-1/quarantine": {},
            "POST /v1/devices/GPU-1/unquarantine": {},
        }


class _Handler(BaseHTTPRequestHandler):
    server: Allocator

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.sent.append((self.command, self.path, json.loads(body) if body else None))
        answer = json.dumps(self.server.answers[f"{self.command} {self.path}"]).encode()
        self.send_response(self.server.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def do_POST(self) -> None:
        self.do_GET()

    def do_DELETE(self) -> None:
        self.do_GET()

    def address_string(self) -> str:
        return "peer"

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


@pytest.fixture
def allocator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Allocator]:
    (tmp_path / "run").mkdir()
    server = Allocator(tmp_path / "run" / "allocator.sock")
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    (tmp_path / "etc").mkdir(mode=0o755)
    policy = tmp_path / "etc" / "policy.yaml"
    policy.write_text(
        "version: 1\ngroups: {course: {members: [ann]}}\ngpu: {mig: [{gpus: [0], profiles: {1g.5gb: 7}}]}\n"
    )
    policy.chmod(0o644)
    monkeypatch.setenv("DS01_ROOT", str(tmp_path))
    monkeypatch.setattr("cli.break_glass.who", lambda: "ann")
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["gpu"], "free"),
        (["gpu", "top"], "no GPU process"),
        (["gpu", "top", "--once"], "no GPU process"),
        (["gpu", "queue"], "nobody waits"),
        (["gpu", "reservations"], "nothing is reserved"),
        (["gpu", "why-full"], "it is not full"),
        (["gpu", "reserve", "2", "--group", "course", "--when", "Tue 10:00-12:00"], "kept for course"),
        (["gpu", "unreserve", "r1"], "kept for nobody"),
        (["gpu", "quarantine", "0", "--reason", "x"], "nobody gets it"),
        (["gpu", "unquarantine", "GPU-1", "--reason", "x"], "in service again"),
    ],
)
def test_a_verb_prints_words_and_json(
    allocator: Allocator, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    """Both of what the allocator answered."""
    assert main(arguments) == Exit.OK
    assert said in capsys.readouterr().out
    assert main([*arguments, "--json"]) == Exit.OK
    assert isinstance(json.loads(capsys.readouterr().out), dict)


LOOKS = ("inventory", "processes", "queue", "host-access")
OF_USER = {
    "inventory": INVENTORY,
    "processes": EMPTY_ROUND | {"scope": "own", "unattributed_memory": None, "unread": None},
    "queue": {"waiting": [], "reservations": []},
    "host-access": {"grants": []},
}


@pytest.fixture
def proxy(allocator: Allocator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Allocator]:
    """At the front door of the same tree; who asks is no root, and sees less at the allocator."""
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    allocator.answers |= {f"GET /v1/{name}": OF_USER[name] for name in LOOKS}
    server = Allocator(tmp_path / "run" / "docker.sock")
    server.answers = {f"GET /ds01/v1/gpu/{name}": OF_USER[name] | {"of": "everybody"} for name in LOOKS}
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    ("verb", "asked"),
    [
        (["gpu"], ["inventory"]),
        (["gpu", "top"], ["processes", "inventory"]),
        (["gpu", "queue"], ["queue"]),
        (["gpu", "why-full"], ["inventory", "queue"]),
        (["gpu", "grants"], ["host-access"]),
    ],
)
def test_an_admin_of_the_policy_sees_everything(
    allocator: Allocator,
    proxy: Allocator,
    capsys: pytest.CaptureFixture[str],
    verb: list[str],
    asked: list[str],
) -> None:
    """Through the proxy, which knows roles; who is none, and everybody without a proxy, sees what is theirs."""
    assert main([*verb, "--json"]) == Exit.OK
    assert '"of": "everybody"' in capsys.readouterr().out
    assert [path for _, path, _ in proxy.sent] == [f"/ds01/v1/gpu/{name}" for name in asked]
    assert allocator.sent == []
    proxy.answers = {key: {"message": "ds01: only admins"} for key in proxy.answers}
    proxy.status = 403
    assert main([*verb, "--json"]) == Exit.OK
    assert "everybody" not in capsys.readouterr().out
    assert [path for _, path, _ in allocator.sent] == [f"/v1/{name}" for name in asked]


def test_root_needs_no_proxy(allocator: Allocator, proxy: Allocator, monkeypatch: pytest.MonkeyPatch) -> None:
    """The allocator knows root, also while the proxy is what is looked into."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert main(["gpu", "top"]) == Exit.OK
    assert proxy.sent == []


def test_containers_from_before_ds01_are_asked_of_the_proxy(
    proxy: Allocator, capsys: pytest.CaptureFixture[str]
) -> None:
    """For any admin; what it refuses is told in its words."""
    proxy.answers["GET /ds01/v1/containers/foreign"] = {"containers": []}
    assert main(["adopt"]) == Exit.OK
    assert "ds01 made every container" in capsys.readouterr().out
    proxy.answers["GET /ds01/v1/containers/foreign"] = {"message": "ds01: only admins see them"}
    proxy.status = 403
    assert main(["adopt"]) == Exit.REFUSED
    assert "only admins see them" in capsys.readouterr().err


def test_what_is_asked_is_sent(allocator: Allocator) -> None:
    """A group by its name, a user by uid, a device by UUID with who asks and why."""
    main(["gpu", "reserve", "2", "--group", "course", "--when", "Tue 10:00-12:00", "--profile", "any"])
    wish = {"count": 2, "when": "Tue 10:00-12:00", "name": "course", "profile": "any", "group": "course"}
    assert allocator.sent[-1] == ("POST", "/v1/reservations", wish | {"by": "ann"})
    daily = ["gpu", "reserve", "1", "--user", "root", "--when", "daily 10:00-12:00"]
    main([*daily, "--lead", "15m", "--reason", "a demo"])
    assert allocator.sent[-1][2]["reason"] == "a demo"
    assert allocator.sent[-1][2]["lead_seconds"] == 900
    assert allocator.sent[-1][2]["uid"] == 0
    main(["gpu", "unreserve", "r1"])
    assert allocator.sent[-1][:2] == ("DELETE", "/v1/reservations/r1?by=ann")
    allocator.answers["DELETE /v1/reservations/a%20b%23c%2F?by=ann"] = {}
    assert main(["gpu", "unreserve", "a b#c/"]) == Exit.OK
    main(["gpu", "quarantine", "0", "--reason", "it smells"])
    method, path, body = allocator.sent[-1]
    assert (method, path, body["reason"]) == ("POST", "/v1/devices/GPU-1/quarantine", "it smells")
    assert body["who"]


def test_slips_are_told_before_anything_is_sent(
    allocator: Allocator, capsys: pytest.CaptureFixture[str]
) -> None:
    """A device, a user and an id that cannot be."""
    assert main(["gpu", "quarantine", "7", "--reason", "x"]) == Exit.USAGE
    assert main(["gpu", "reserve", "1", "--user", "no-such-user", "--when", "x"]) == Exit.USAGE
    assert main(["gpu", "reserve", "1", "--user", "root", "--when", "x", "--lead", "soon"]) == Exit.USAGE
    assert main(["gpu", "unreserve", "a\nb"]) == Exit.USAGE
    assert [one for one in allocator.sent if one[0] != "GET"] == []
    assert "no device 7" in capsys.readouterr().err


@pytest.mark.skipif(os.geteuid() != 0, reason="only root reserves, and a policy in force is root's")
def test_devices_are_kept_only_for_a_group_that_there_is(
    allocator: Allocator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A slip in its name is told with the nearest; a policy that cannot be read says of no group that there is one."""
    reserve = ["gpu", "reserve", "1", "--when", "Tue 10:00-12:00", "--group"]
    assert main([*reserve, "cuorse"]) == Exit.USAGE
    assert "no such group in the policy; did you mean course?" in capsys.readouterr().err
    (tmp_path / "etc" / "policy.yaml").write_text("version: 2\n")
    assert main([*reserve, "course"]) == Exit.REFUSED
    assert allocator.sent == []


def test_no_driver_is_an_exit_code(allocator: Allocator) -> None:
    """The operator's move."""
    allocator.answers["GET /v1/inventory"] = INVENTORY | {
        "state": "unavailable",
        "age_seconds": None,
        "devices": [],
    }
    assert main(["gpu"]) == Exit.UNAVAILABLE
    assert main(["gpu", "why-full"]) == Exit.UNAVAILABLE
    allocator.answers["GET /v1/processes"] = EMPTY_ROUND | {"problem": "no driver"}
    assert main(["gpu", "top"]) == Exit.UNAVAILABLE


def test_layouts_of_the_policy_in_force_are_sent(
    allocator: Allocator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """And a policy with a mistake changes nothing."""
    if (tmp_path / "etc").stat().st_uid != 0:
        pytest.skip("a policy in force is root's")
    assert main(["gpu", "mig", "plan"]) == Exit.OK
    assert "as it should be" in capsys.readouterr().out
    assert allocator.sent[-1] == ("POST", "/v1/mig/plan", {"layouts": {"GPU-1": {"1g.5gb": 7}}})
    assert main(["gpu", "mig", "apply"]) == Exit.OK
    (tmp_path / "etc" / "policy.yaml").write_text("version: 1\ngpu: {mig: 1}\n")
    assert main(["gpu", "mig", "apply"]) == Exit.REFUSED
    assert "the policy has mistakes" in capsys.readouterr().err


def test_devices_of_a_grant_are_sent_as_they_were_named(allocator: Allocator) -> None:
    """Both options name GPUs and MIG devices, by index or UUID; the allocator knows which there are."""
    grant = ["gpu", "grant", "alice", "--hours", "1", "--reason", "x"]
    assert main([*grant, "--gpu", "2:1", "--device", "MIG-5c89", "--gpu", "0"]) == Exit.OK
    assert main(grant) == Exit.OK
    told = [body for _, path, body in allocator.sent if path == "/v1/host-access"]
    wish = {"user": "alice", "seconds": 3600, "reason": "x"}
    assert told == [{**wish, "devices": ["2:1", "MIG-5c89", "0"]}, wish]
