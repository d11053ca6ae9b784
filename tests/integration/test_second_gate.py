"""The second gate on the real engine: what did not come through the proxy is denied, and says why.

The tests act as root with the lab's own key, so that every stamp is as good as the proxy's except in the one thing each
row changes.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boottime_ms
from host.files import write_atomic
from host.tree import Tree
from host.users import Account, look_up_uid
from lab import unix_http
from policy import stamp
from policy.build import build_policy
from policy.compile import Policy
from policy.dockerapi.model import Incoming
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.evaluate import evaluate
from policy.facts import needed
from policy.model import Effect, EngineFacts, Facts, Kind, ObjectFact, RequestId, Uid, Usage
from policy.obligations import apply, put
from socket_proxy.keys import Keys
from socket_proxy.seal import Sealer
from tests.integration.conftest import PREFIX, Lab, eventually, running_lab

pytestmark = pytest.mark.dockerd

_MIB = 1 << 20
_JSON = "application/json"
_CLOSED = "direct access to the engine is closed (rule stamp)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What the engine answered."""

    status: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sent:
    """One request as it goes over the wire; `stamps` are header values."""

    method: str = "GET"
    target: str = "/v1.41/version"
    content_type: str = ""
    upgrade: str = ""
    body: bytes = b""
    chunked: bool = False
    stamps: tuple[str, ...] = ()

    def over(self, path: Path) -> Reply:
        """Send it on a connection of its own and read the whole answer."""
        lines = [f"{self.method} {self.target} HTTP/1.1", "Host: docker"]
        lines += [f"Content-Type: {self.content_type}"] if self.content_type else []
        lines += (
            ["Connection: Upgrade", f"Upgrade: {self.upgrade}"] if self.upgrade else ["Connection: close"]
        )
        lines += [f"X-Ds01-Stamp: {text}" for text in self.stamps]
        body = self.body
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
            body = f"{len(body):x}\r\n".encode() + body + b"\r\n0\r\n\r\n"
        elif body:
            lines.append(f"Content-Length: {len(body)}")
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(30)
            connection.connect(str(path))
            with contextlib.suppress(BrokenPipeError):  # refused before all of it was read
                connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            return _reply(connection)


def _reply(connection: socket.socket) -> Reply:
    with connection.makefile("rb") as file:
        status = int(file.readline().split()[1])
        length = None
        for line in iter(file.readline, b"\r\n"):
            name, _, value = line.decode().partition(":")
            length = int(value) if name.lower() == "content-length" else length
        text = file.read(length) if length is not None else file.read() if status >= 300 else b""
    return Reply(status=status, text=text.decode(errors="replace"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Forger:
    """Signs what it is told to, with the lab's own key unless told otherwise."""

    tree: Tree
    key: Ed25519PrivateKey = field(repr=False)
    engine_id: str

    @classmethod
    def of(cls, lab: Lab) -> Forger:
        tree = Tree.under(lab.root)
        key = Ed25519PrivateKey.from_private_bytes(tree.stamp_key.read_bytes())
        return cls(tree=tree, key=key, engine_id=tree.engine_id.read_text().strip())

    def stamp(self, sent: Sent, *, uid: int = 0, seconds: float = 10, **changed: Any) -> str:
        """The stamp the proxy would make for `sent`, but for what is `changed`."""
        claims = stamp.Claims(
            uid=Uid(uid),
            engine_id=self.engine_id,
            method=sent.method,
            target=sent.target,
            content_type=sent.content_type,
            upgrade=sent.upgrade,
            body=stamp.body_claim(sent.body),
            nonce=secrets.token_hex(16),
            expires_ms=boottime_ms() + round(seconds * 1000),
        )
        claims = replace(claims, **changed)
        return stamp.format_stamp(claims, self.key.sign(stamp.message(claims)))

    def rewritten(self, method: str, target: str, body: Mapping[str, Any], account: Account) -> Sent:
        """The request exactly as the proxy would forward it for `account`, not stamped yet; on no network unless it says."""
        if target.partition("?")[0].endswith("/containers/create"):
            body = {**body, "HostConfig": {"NetworkMode": "none", **body.get("HostConfig", {})}}
        asked = read(
            Incoming(
                method=method,
                target=target,
                headers=(("content-type", _JSON),),
                body=json.dumps(body).encode(),
            ),
            engine_max=(1, 41),
        )
        actor = account.actor()
        engine = self.engine()
        objects = {
            reference: ObjectFact(kind=Kind.IMAGE, id=reference.text, owner=None, shared=True)
            for reference in needed(asked)
            if reference.kind is Kind.IMAGE
        }
        facts = Facts(engine=engine, objects=objects, usage=Usage(containers=0, networks=0))
        decision = evaluate(self.policy(), actor, asked, facts)
        assert decision.effect is Effect.ALLOW, decision.reasons
        labels = Sealer(self.keys()).labels(actor, lease=None, request_id=RequestId(secrets.token_hex(6)))
        outgoing = write(apply(asked, decision.obligations, labels=labels, devices=(), engine=engine))
        return Sent(method=method, target=outgoing.target, content_type=_JSON, body=outgoing.body or b"")

    def engine(self) -> EngineFacts:
        def ask(path: str) -> dict[str, Any]:
            found: dict[str, Any] = json.loads(unix_http.call(self.tree.admin_socket, "GET", path).body)
            return found

        return EngineFacts(
            engine_id=self.engine_id,
            version=ask("/version")["Version"],
            api_version=(1, 41),
            min_api_version=(1, 12),
            cgroup_driver=ask("/info")["CgroupDriver"],
            cgroup_version=int(ask("/info")["CgroupVersion"]),
            gpu_path="hook",
        )

    def policy(self) -> Policy:
        texts = {str(self.tree.policy): self.tree.policy.read_text()}
        return build_policy(texts, user_socket_template=str(self.tree.user_socket("{name}")))

    def keys(self) -> Keys:
        return Keys(private=self.key, public=self.key.public_key(), engine_id=self.engine_id)

    def stamped(self, sent: Sent, **claims: Any) -> Sent:
        return replace(sent, stamps=(self.stamp(sent, **claims),))


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose plugin and engine settings these tests may break."""
    with running_lab(f"{PREFIX}-gate-a", f"{PREFIX}-gate-b", "--gpus", "none") as running:
        yield running


@pytest.fixture
def engine(own: Lab) -> Path:
    return own.root / "run" / "engine.sock"


@pytest.fixture
def forger(own: Lab) -> Forger:
    return Forger.of(own)


@pytest.fixture
def volume(forger: Forger) -> Sent:
    """A create of a volume of root's, rewritten as the proxy does it."""
    name = {"Name": f"gate-{secrets.token_hex(4)}"}
    return forger.rewritten("POST", "/v1.41/volumes/create", name, _account(0))


def _account(uid: int) -> Account:
    found = look_up_uid(uid)
    assert found is not None
    return found


def _message(reply: Reply) -> str:
    said: Mapping[str, str] = json.loads(reply.text)
    return said["message"]


def _assert_denied(reply: Reply, why: str) -> None:
    assert reply.status == 403, reply
    message = _message(reply)
    assert message.startswith("authorization denied by plugin ds01-authz: ds01: "), message
    assert why in message, message


def test_the_forger_signs_as_the_proxy_does(engine: Path, forger: Forger, volume: Sent) -> None:
    """A faultless stamp is accepted, with and without a body: every denial below is due to what its row changes."""
    assert forger.stamped(Sent()).over(engine).status == 200
    assert forger.stamped(volume).over(engine).status == 201


@pytest.mark.parametrize(
    "sent",
    [
        Sent(),
        Sent(target="/_ping"),
        Sent(target="/%63ontainers/json"),
        Sent(method="HEAD", target="/_ping"),
        Sent(target="/v1.41/containers/json?all=1"),
        Sent(
            method="POST", target="/v1.41/containers/create", content_type=_JSON, body=b'{"Image":"busybox"}'
        ),
        Sent(method="POST", target="/v1.41/build?remote=x", content_type="application/x-tar", body=b"x"),
        Sent(method="POST", target="/session", upgrade="h2c"),
        Sent(method="POST", target="/v1.41/swarm/init", content_type=_JSON, body=b"{}"),
    ],
    ids=lambda sent: f"{sent.method} {sent.target}",
)
def test_nothing_is_allowed_without_a_stamp(engine: Path, sent: Sent) -> None:
    """Root on the engine's own socket is sent to its ds01 socket, whatever it asks."""
    reply = sent.over(engine)
    assert reply.status == 403
    if sent.method != "HEAD":
        _assert_denied(reply, _CLOSED)


def test_a_stamp_is_good_for_one_request(engine: Path, forger: Forger, volume: Sent) -> None:
    """A captured stamp, sent again with the very same request, is refused as used."""
    sent = forger.stamped(volume)
    assert sent.over(engine).status == 201
    _assert_denied(sent.over(engine), "it was used before")


@pytest.mark.parametrize("plugin_restarts", [False, True], ids=["same plugin", "plugin restarted"])
def test_a_replayed_stamp_that_has_expired_stays_refused(
    own: Lab, engine: Path, forger: Forger, *, plugin_restarts: bool
) -> None:
    """What is forgotten of used stamps, by time or by a crash, has expired or is refused all the same."""
    sent = forger.stamped(Sent(), seconds=1)
    assert sent.over(engine).status == 200
    if plugin_restarts:
        own.kill("authz")
    time.sleep(1.1)
    _assert_denied(sent.over(engine), "it has expired")


_OTHER = {
    "method": ({"method": "GET"}, "its signature does not fit"),
    "URI": ({"target": "/v1.41/volumes/prune"}, "its signature does not fit"),
    "query": ({"target": "/v1.41/volumes/create?x=1"}, "its signature does not fit"),
    "spelling of the URI": ({"target": "/v1.41/volumes/%63reate"}, "its signature does not fit"),
    "content type": ({"content_type": "application/json; charset=utf-8"}, "its signature does not fit"),
    "upgrade": ({"upgrade": "h2c"}, "its signature does not fit"),
    "body": ({"body": b'{"Name":"other"}'}, "the body is not the one it was made for"),
    "one more space": ({"body": b'{"Name": "gate" }'}, "the body is not the one it was made for"),
    "no body": ({"body": b"", "content_type": ""}, "it claims a JSON body, and none reached the plugin"),
    "body of no JSON type": (
        {"content_type": "text/plain"},
        "it claims a JSON body, and none reached the plugin",
    ),
}


@pytest.mark.parametrize(("change", "why"), _OTHER.values(), ids=_OTHER)
def test_a_stamp_fits_nothing_but_its_request(
    engine: Path, forger: Forger, volume: Sent, change: dict[str, Any], why: str
) -> None:
    """Method, URI, content type, upgrade and body are all signed: a changed one is denied."""
    sent = replace(forger.stamped(volume), **change)
    _assert_denied(sent.over(engine), why)


_CLAIMS = {
    "expired": ({"seconds": -0.001}, "it has expired"),
    "lives too long": ({"seconds": 16}, "it would live longer than 15 s"),
    "another engine": ({"engine_id": "0" * 32}, "its signature does not fit"),
    "claims no body": ({"body": stamp.NO_BODY}, "it claims no JSON body, and there is one"),
    "claims a stream": ({"body": stamp.STREAM_BODY}, "it claims no JSON body, and there is one"),
}


@pytest.mark.parametrize(("claims", "why"), _CLAIMS.values(), ids=_CLAIMS)
def test_a_signed_claim_must_be_right(
    engine: Path, forger: Forger, volume: Sent, claims: dict[str, Any], why: str
) -> None:
    """The right key does not help a stamp that is too old, too long-lived, for another engine or another body."""
    _assert_denied(forger.stamped(volume, **claims).over(engine), why)


def test_another_key_signs_nothing(engine: Path, forger: Forger, volume: Sent) -> None:
    """A stamp of any other key is refused."""
    other = replace(forger, key=Ed25519PrivateKey.generate())
    _assert_denied(other.stamped(volume).over(engine), "its signature does not fit")


def test_of_two_stamps_the_one_the_plugin_is_shown_decides(
    engine: Path, forger: Forger, volume: Sent
) -> None:
    """dockerd shows its plugins the last of several headers: a bad one there denies, a good one before it is no help."""
    good, bad = forger.stamp(volume), replace(forger, key=Ed25519PrivateKey.generate()).stamp(volume)
    _assert_denied(replace(volume, stamps=(good, bad)).over(engine), "its signature does not fit")
    assert replace(volume, stamps=(bad, good)).over(engine).status == 201


@pytest.mark.parametrize("text", ["", "v1", "x" * 9000, "v1;uid=0"], ids=["empty", "short", "long", "cut"])
def test_what_is_no_stamp_is_refused(engine: Path, text: str) -> None:
    """A header that cannot be read is not taken for a missing one."""
    _assert_denied(Sent(stamps=(text,)).over(engine), "it has no valid form")


@pytest.mark.parametrize("chunked", [False, True], ids=["with length", "chunked"])
def test_a_body_the_engine_hides_from_its_plugins_is_denied(
    engine: Path, forger: Forger, *, chunked: bool
) -> None:
    """One above 1 MiB (CVE-2024-41110 and its kin), signed or not; where the engine is mended it is too large."""
    body = json.dumps({"Image": "busybox", "HostConfig": {"Privileged": True}, "Env": ["X=" + "x" * _MIB]})
    sent = Sent(
        method="POST",
        target="/v1.41/containers/create",
        content_type=_JSON,
        body=body.encode(),
        chunked=chunked,
    )
    answer = forger.stamped(sent).over(engine)
    hidden = "it claims a JSON body, and none reached the plugin"
    _assert_denied(answer, hidden if hidden in _message(answer) else "the body is larger than")


def test_a_body_without_length_is_read_like_any_other(engine: Path, forger: Forger, volume: Sent) -> None:
    """Chunked, a signed body is still seen, and another one still refused."""
    assert forger.stamped(replace(volume, chunked=True)).over(engine).status == 201
    other = replace(forger.stamped(replace(volume, chunked=True)), body=b'{"Name":"other"}')
    _assert_denied(other.over(engine), "the body is not the one it was made for")


_DEVICE = {"PathOnHost": "/dev/kmsg", "PathInContainer": "/dev/kmsg", "CgroupPermissions": "r"}
_GPU = {"Driver": "nvidia", "Count": -1, "Capabilities": [["gpu"]]}
_SECOND_LOOK: dict[str, tuple[tuple[str, ...], Any]] = {
    "privileged": (("HostConfig", "Privileged"), True),
    "namespaces": (("HostConfig", "PidMode"), "host"),
    "mounts": (("HostConfig", "Binds"), ["/:/host"]),
    "capabilities": (("HostConfig", "CapAdd"), ["SYS_ADMIN"]),
    "security_opt": (("HostConfig", "SecurityOpt"), ["apparmor=unconfined"]),
    "devices": (("HostConfig", "Devices"), [_DEVICE]),
    "gpu": (("HostConfig", "DeviceRequests"), [_GPU]),
    "cgroup": (("HostConfig", "CgroupParent"), "/"),
    "runtime": (("HostConfig", "Runtime"), "crun"),
    "labels": (("Labels", "ds01.uid"), "0"),
}


@pytest.mark.parametrize("rule", [None, *_SECOND_LOOK], ids=str)
def test_the_plugin_looks_again_whatever_the_stamp_says(
    own: Lab, engine: Path, forger: Forger, rule: str | None
) -> None:
    """A proxy that let a forbidden create through would still be stopped: a perfect stamp does not skip the rules.

    The create is the proxy's own but for one field; unchanged (None) it is accepted.
    """
    account = _account(int(own.run(own.alice, "id", "-u").out))
    sent = forger.rewritten("POST", "/v1.41/containers/create", {"Image": "busybox"}, account)
    if rule is None:
        assert forger.stamped(sent, uid=account.uid).over(engine).status == 201
        return
    path, value = _SECOND_LOOK[rule]
    sent = replace(sent, body=json.dumps(put(json.loads(sent.body), path, value)).encode())
    _assert_denied(forger.stamped(sent, uid=account.uid).over(engine), f"(rule {rule})")


def test_a_stamp_for_nobody_is_refused(engine: Path, forger: Forger, volume: Sent) -> None:
    """A uid without an account is nobody, whoever signed it."""
    _assert_denied(forger.stamped(volume, uid=4_000_000).over(engine), "has no account on this host")


# Break-glass


def _glass(lab: Lab, *, seconds: float, **changed: Any) -> Path:
    path = Tree.under(lab.root).break_glass
    content = {
        "until_boottime_ms": boottime_ms() + round(seconds * 1000),
        "reason": "test of the second gate",
        "by": "root",
    }
    write_atomic(path, json.dumps(content | changed).encode(), mode=0o644)
    return path


@pytest.fixture
def shut(own: Lab) -> Iterator[None]:
    """Whatever a test opened is closed again."""
    yield
    Tree.under(own.root).break_glass.unlink(missing_ok=True)


@pytest.mark.usefixtures("shut")
def test_break_glass_opens_for_its_time_and_not_longer(own: Lab, engine: Path) -> None:
    """Root's file opens the engine, every use is logged with who and why, and the door shuts by itself."""
    _glass(own, seconds=2)
    assert Sent().over(engine).status == 200
    assert "test of the second gate" in own.log("authz")
    assert eventually(lambda: Sent().over(engine).status == 403, seconds=4)
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_shuts_when_its_file_goes(own: Lab, engine: Path) -> None:
    """Removing the file closes the engine at once."""
    path = _glass(own, seconds=60)
    assert Sent().over(engine).status == 200
    path.unlink()
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_of_a_user_is_ignored(own: Lab, engine: Path) -> None:
    """A file that is not root's, that others may write, or that is a link opens nothing and is logged."""
    uid = int(own.run(own.alice, "id", "-u").out)
    path = _glass(own, seconds=60)
    os.chown(path, uid, uid)
    _assert_denied(Sent().over(engine), _CLOSED)
    os.chown(path, 0, 0)
    path.chmod(0o666)
    _assert_denied(Sent().over(engine), _CLOSED)
    path.chmod(0o644)
    real = path.with_suffix(".real")
    path.rename(real)
    path.symlink_to(real)
    _assert_denied(Sent().over(engine), _CLOSED)
    real.unlink()
    assert "break_glass.refused" in own.log("authz")


_BAD_GLASS: dict[str, dict[str, Any]] = {
    "for more than an hour": {"until_boottime_ms": 1 << 50},
    "without reason": {"reason": " "},
    "with more in it": {"also": 1},
    "with text for time": {"until_boottime_ms": "9999999999999"},
}


@pytest.mark.usefixtures("shut")
@pytest.mark.parametrize("changed", _BAD_GLASS.values(), ids=_BAD_GLASS)
def test_break_glass_that_is_wrong_opens_nothing(own: Lab, engine: Path, changed: dict[str, Any]) -> None:
    """A file with a mistake in it does not open the engine."""
    _glass(own, seconds=60, **changed)
    _assert_denied(Sent().over(engine), _CLOSED)


@pytest.mark.usefixtures("shut")
def test_break_glass_does_not_help_a_bad_stamp(own: Lab, engine: Path, forger: Forger) -> None:
    """Break-glass is for requests without a stamp; a forged one is refused all the same."""
    _glass(own, seconds=60)
    other = replace(forger, key=Ed25519PrivateKey.generate())
    _assert_denied(other.stamped(Sent()).over(engine), "its signature does not fit")


# The canary


def _plugins(lab: Lab, names: list[str]) -> None:
    path = lab.root / "etc" / "daemon.json"
    settings = json.loads(path.read_text())
    write_atomic(path, json.dumps(settings | {"authorization-plugins": names}).encode(), mode=0o644)
    os.kill(lab.pid("dockerd"), signal.SIGHUP)


@pytest.fixture
def guarded(own: Lab) -> Iterator[Lab]:
    """The lab, its plugin back in place afterwards."""
    yield own
    _plugins(own, ["ds01-authz"])
    assert eventually(lambda: _serves(own), seconds=10)


def _serves(lab: Lab) -> bool:
    return lab.docker(lab.alice, "version").status == 0


def test_the_doors_close_while_the_plugin_is_not_in_the_way(guarded: Lab, engine: Path) -> None:
    """An engine that lost its plugin serves anybody who reaches it: ds01 serves nobody until it is back."""
    _plugins(guarded, [])
    assert eventually(lambda: Sent().over(engine).status == 200, seconds=5), "the engine kept its plugin"
    assert eventually(lambda: not _serves(guarded), seconds=10)
    refused = unix_http.call(
        guarded.root / "run" / "users" / guarded.alice / "docker.sock", "GET", "/version"
    )
    assert refused.status == 503
    assert b"(rule canary)" in refused.body
    _plugins(guarded, ["ds01-authz"])
    assert eventually(lambda: _serves(guarded), seconds=10)
    assert Sent().over(engine).status == 403
