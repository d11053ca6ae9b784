"""The proxy's proof to the plugin that a request is its own: signed over everything dockerd will act on (ADR-0003)."""

from __future__ import annotations

import secrets

from host.clock import boottime_ms
from policy import stamp
from policy.dockerapi.model import Outgoing
from policy.model import LeaseId, Uid
from socket_proxy.keys import Keys

LIFETIME_MS = 10_000


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
            body=stamp.STREAM_BODY if streams else stamp.body_claim(outgoing.body or b""),
            leases=leases,
            nonce=secrets.token_hex(16),
            expires_ms=boottime_ms() + LIFETIME_MS,
        )
        return stamp.HEADER, stamp.format_stamp(claims, self._sign(stamp.message(claims)))
