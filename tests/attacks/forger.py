"""Root with the lab's own key: requests on the engine's socket whose stamps are as good as the proxy's, but for what is changed."""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boottime_ms
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
from policy.model import GUARDED_RUNTIME, Effect, EngineFacts, Facts, Kind, ObjectFact, RequestId, Uid, Usage
from policy.obligations import apply
from socket_proxy.keys import Keys
from socket_proxy.seal import Sealer
from tests.integration.conftest import Lab

JSON = "application/json"


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
                headers=(("content-type", JSON),),
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
        return Sent(method=method, target=outgoing.target, content_type=JSON, body=outgoing.body or b"")

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
            runtime=GUARDED_RUNTIME,
            data_root=str((self.tree.lib / "docker").resolve()),
        )

    def policy(self) -> Policy:
        texts = {str(self.tree.policy): self.tree.policy.read_text()}
        return build_policy(texts, user_socket_template=str(self.tree.user_socket("{name}")))

    def keys(self) -> Keys:
        return Keys(private=self.key, public=self.key.public_key(), engine_id=self.engine_id)

    def stamped(self, sent: Sent, **claims: Any) -> Sent:
        return replace(sent, stamps=(self.stamp(sent, **claims),))


def account_of(uid: int) -> Account:
    """The account of a uid, which must exist."""
    found = look_up_uid(uid)
    assert found is not None
    return found
