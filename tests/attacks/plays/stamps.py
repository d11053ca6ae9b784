"""Requests on the engine's own socket: without a stamp, with a forged one, or with one that was made for something else."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from policy import stamp
from policy.obligations import put
from tests.attacks.forger import JSON, Forger, Reply, Sent, account_of
from tests.attacks.plays.played import Played, World, play
from tests.fakes.raw_socket import Answer

_MIB = 1 << 20
_CLAIMED_BODIES = {"none": stamp.NO_BODY, "stream": stamp.STREAM_BODY}


def _played(*replies: Reply) -> Played:
    return Played(answers=[Answer(status=reply.status, body=reply.text.encode()) for reply in replies])


@play
def direct(
    world: World,
    *,
    method: str,
    target: str,
    body: object = None,
    text: str = "",
    headers: Mapping[str, str] | None = None,
) -> Played:
    """Root sends a request to dockerd with no stamp at all."""
    given = headers or {}
    sent = Sent(
        method=method,
        target=target,
        content_type=JSON if body is not None else given.get("Content-Type", ""),
        upgrade=given.get("Upgrade", ""),
        body=json.dumps(body).encode() if body is not None else text.encode(),
    )
    return _played(sent.over(world.socket("root", "engine")))


@play
def stamped(
    world: World,
    *,
    change: Mapping[str, str] | None = None,
    claims: Mapping[str, Any] | None = None,
    key: str = "",
    second: str = "",
    text: str | None = None,
    letters: int = 0,
    replay: bool = False,
    large: bool = False,
    chunked: bool = False,
) -> Played:
    """A request with a faultless stamp, but for what the options change.

    change: fields of the request after it was stamped. claims: what the stamp says of it. key, second: `other` signs the
    stamp, or one more behind it. text, letters: a header that is no stamp. large: a body that dockerd shows no plugin.
    """
    forger = Forger.of(world.lab)
    engine = world.socket("root", "engine")
    if text is not None or letters:
        return _played(Sent(stamps=(text or "x" * letters,)).over(engine))
    if replay:
        sent = forger.stamped(Sent())
        first = sent.over(engine)
        assert first.status == 200, first
        return _played(sent.over(engine))
    sent = replace(_large() if large else _volume(forger), chunked=chunked)
    told = {**(claims or {})}
    if "body" in told:
        told["body"] = _CLAIMED_BODIES[told["body"]]
    other = replace(forger, key=Ed25519PrivateKey.generate())
    sent = (other if key else forger).stamped(sent, **told)
    if second:
        sent = replace(sent, stamps=(*sent.stamps, other.stamp(sent)))
    changed: dict[str, Any] = {**(change or {})}
    if "body" in changed:
        changed["body"] = changed["body"].encode()
    return _played(replace(sent, **changed).over(engine))


def _volume(forger: Forger) -> Sent:
    """A create of a volume of root's, rewritten as the proxy does it."""
    name = {"Name": f"gate-{secrets.token_hex(4)}"}
    return forger.rewritten("POST", "/v1.41/volumes/create", name, account_of(0))


def _large() -> Sent:
    body = {"Image": "busybox", "HostConfig": {"Privileged": True}, "Env": ["X=" + "x" * _MIB]}
    return Sent(
        method="POST", target="/v1.41/containers/create", content_type=JSON, body=json.dumps(body).encode()
    )


@play
def second_look(world: World, *, path: str, value: object) -> Played:
    """A proxy that let a forbidden field through: the create is its own but for that field, and the stamp is perfect."""
    forger = Forger.of(world.lab)
    account = account_of(int(world.words["uid"]))
    sent = forger.rewritten("POST", "/v1.41/containers/create", {"Image": "busybox"}, account)
    body = put(json.loads(sent.body), tuple(path.split("/")), value)  # type: ignore[arg-type]  # from YAML: JSON
    sent = replace(sent, body=json.dumps(body).encode())
    return _played(forger.stamped(sent, uid=account.uid).over(world.socket("root", "engine")))
