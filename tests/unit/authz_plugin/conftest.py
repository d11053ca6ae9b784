"""A proxy's signature, a clock to turn, and questions as dockerd asks them."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from authz_plugin.identity import StampCheck
from host.trusted import Ed25519Key
from policy.model import LeaseId, Uid
from policy.stamp import Claims, body_claim, format_stamp, message

BODY = b'{"Image":"busybox"}'


@dataclass
class Clock:
    """CLOCK_BOOTTIME, turned by hand."""

    now_ms: int = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@dataclass
class Proxy:
    """Signs as the proxy does, and writes the AuthZReq that dockerd would make of it."""

    clock: Clock
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    made: int = 0

    def claims(self, **changes: Any) -> Claims:
        self.made += 1
        return replace(
            Claims(
                uid=Uid(1000),
                engine_id="ENGINE",
                method="POST",
                target="/v1.41/containers/create?name=x",
                content_type="application/json",
                body=body_claim(BODY),
                leases=(LeaseId("l1"),),
                nonce=f"{self.made:032x}",
                expires_ms=self.clock.now_ms + 10_000,
            ),
            **changes,
        )

    def stamp(self, claims: Claims) -> str:
        return format_stamp(claims, self.key.sign(message(claims)))


def authz_req(*, stamp: str | None = None, body: bytes | None = BODY, **changes: Any) -> bytes:
    """An AuthZReq as dockerd 20.10 sends it."""
    headers = {"Content-Type": "application/json", **changes.pop("headers", {})}
    if stamp is not None:
        headers["X-Ds01-Stamp"] = stamp
    asked: dict[str, Any] = {
        "User": "",
        "UserAuthNMethod": "",
        "RequestMethod": "POST",
        "RequestUri": "/v1.41/containers/create?name=x",
        "RequestHeaders": {name: value for name, value in headers.items() if value is not None},
    }
    if body is not None:
        asked["RequestBody"] = base64.b64encode(body).decode()
    return json.dumps({**asked, **changes}).encode()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def proxy(clock: Clock) -> Proxy:
    return Proxy(clock=clock)


@pytest.fixture
def stamps(proxy: Proxy, clock: Clock) -> StampCheck:
    public = Ed25519Key(proxy.key.public_key())
    return StampCheck(key=lambda: public, engine_id=lambda: "ENGINE", clock_ms=clock)


@pytest.fixture
def make_req() -> Any:
    return authz_req
