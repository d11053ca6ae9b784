"""The proxy's proof to the plugin that a request is its own: signed over everything dockerd will act on (ADR-0003)."""

from __future__ import annotations

import hashlib
import secrets
import time

from policy import stamp
from policy.dockerapi.model import Outgoing
from policy.model import LeaseId, Uid
from socket_proxy.keys import Keys

LIFETIME_MS = 10_000


def boottime_ms() -> int:
    """CLOCK_BOOTTIME in milliseconds: one clock for every process of the host, immune to clock jumps."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) // 1_000_000


class Stamper:
    """Signs outgoing requests for one engine."""

    def __init__(self, keys: Keys) -> None:
        self._sign = keys.private.sign
        self._engine_id = keys.engine_id

    def header(
        self,
        outgoing: Outgoing,
        *,
        uid: Uid,
        leases: tuple[LeaseId, ...] = (),
        upgrade: str | None,
        streams: bool,
    ) -> tuple[str, str]:
        """The header to add. `streams`: a body follows that is not signed, since dockerd shows it to no plugin."""
        claims = stamp.Claims(
            uid=uid,
            engine_id=self._engine_id,
            method=outgoing.method,
            target=outgoing.target,
            content_type=next((value for name, value in outgoing.headers if name == "content-type"), ""),
            upgrade=upgrade or "",
            body=_body_claim(outgoing.body, streams=streams),
            leases=leases,
            nonce=secrets.token_hex(16),
            expires_ms=boottime_ms() + LIFETIME_MS,
        )
        return stamp.HEADER, stamp.format_stamp(claims, self._sign(stamp.message(claims)))


def _body_claim(body: bytes | None, *, streams: bool) -> str:
    if streams:
        return "stream"
    if not body:
        return "none"
    return "sha256:" + hashlib.sha256(body).hexdigest()
