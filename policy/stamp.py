"""The stamp: how the proxy tells the plugin who asks, and exactly what was let through.

Owns the signed message and the header's text. Keys, clocks, nonces and the memory of used ones live in
the two servers: `socket_proxy` signs, `authz_plugin` checks. Why a stamp: docs/decisions/0003-stamp.md.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from hashlib import sha256

from policy.model import LeaseId, Uid

HEADER = "x-ds01-stamp"
CANARY = "x-ds01-canary"  # on the proxy's own probe, which must be denied even while break-glass is open
MAX_LIFETIME_MS = 15_000  # dockerd retries an absent plugin for about 15 s; nothing honest is older
NO_BODY = "none"
STREAM_BODY = "stream"

_DOMAIN = b"ds01-stamp-v1"
_LEASE = r"[A-Za-z0-9_-]{1,64}"
_TEXT = re.compile(
    r"v1;uid=(?P<uid>0|[1-9][0-9]{0,9});exp=(?P<expires>0|[1-9][0-9]{0,15});nonce=(?P<nonce>[0-9a-f]{32});"
    r"body=(?P<body>none|stream|sha256:[0-9a-f]{64});"
    rf"leases=(?P<leases>(?:{_LEASE}(?:,{_LEASE}){{0,63}})?);sig=(?P<signature>[A-Za-z0-9_-]{{86}})"
)


class StampInvalid(Exception):  # noqa: N818  the name says what is wrong with the stamp
    """The text is no stamp, or the claims have no unambiguous form. Nobody honest sends this."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """All that a signature covers.

    engine_id: hex or Docker's ID of the engine the request is meant for.
    target: the request-target exactly as it is sent to dockerd.
    content_type, upgrade: the header's value exactly as sent, "" when there is none.
    body: "none", "stream" (opaque upload or hijack), or "sha256:<64 hex>" of the whole JSON body.
    nonce: 128 random bits, 32 lower-case hex digits, used once.
    expires_ms: CLOCK_BOOTTIME, the one clock of all processes of a host; stamps die at reboot.
    """

    uid: Uid
    engine_id: str
    method: str
    target: str
    content_type: str = ""
    upgrade: str = ""
    body: str = NO_BODY
    leases: tuple[LeaseId, ...] = ()
    nonce: str
    expires_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A header as read. Nothing in it is true before `signature` (64 bytes) was checked."""

    uid: Uid
    expires_ms: int
    nonce: str
    body: str
    leases: tuple[LeaseId, ...]
    signature: bytes


def message(claims: Claims) -> bytes:
    """The bytes that are signed: a domain, nine fields and the leases, each behind its length in characters.

    INVARIANT: two different claims never give the same bytes; a length in front makes every field's end
    certain whatever it holds. Raises: StampInvalid: a field is no Unicode text.
    """
    fields = (
        str(claims.uid),
        claims.engine_id,
        claims.method,
        claims.target,
        claims.content_type,
        claims.upgrade,
        claims.body,
        claims.nonce,
        str(claims.expires_ms),
        *claims.leases,
    )
    try:
        return _DOMAIN + "".join([f"\n{len(text)}:{text}" for text in fields]).encode()
    except UnicodeEncodeError as error:
        raise StampInvalid("a signed field holds a lone surrogate") from error


def format_stamp(claims: Claims, signature: bytes) -> str:
    """The header's value. Raises: StampInvalid: the claims have a form that `parse_stamp` would refuse."""
    text = (
        f"v1;uid={claims.uid};exp={claims.expires_ms};nonce={claims.nonce};body={claims.body};"
        f"leases={','.join(claims.leases)};sig={_to_text(signature)}"
    )
    match = _TEXT.fullmatch(text)
    if match is None or _to_leases(match["leases"]) != claims.leases:
        raise StampInvalid("claims cannot be written as a stamp")
    return text


def parse_stamp(text: str) -> Stamp:
    """Read a header's value; there is one spelling for each stamp. Raises: StampInvalid."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise StampInvalid("not a stamp")
    return Stamp(
        uid=Uid(int(match["uid"])),
        expires_ms=int(match["expires"]),
        nonce=match["nonce"],
        body=match["body"],
        leases=_to_leases(match["leases"]),
        signature=_to_bytes(match["signature"]),
    )


def body_claim(body: bytes) -> str:
    """The claim of a JSON body: "sha256:<hex>"; an empty one is no body."""
    return f"sha256:{sha256(body).hexdigest()}" if body else NO_BODY


def _to_leases(text: str) -> tuple[LeaseId, ...]:
    return tuple(LeaseId(lease) for lease in text.split(",")) if text else ()


def _to_text(signature: bytes) -> str:
    return base64.urlsafe_b64encode(signature).rstrip(b"=").decode()


def _to_bytes(text: str) -> bytes:
    try:
        signature = base64.urlsafe_b64decode(text + "==")
    except binascii.Error as error:  # pragma: no cover  the pattern admits no such text
        raise StampInvalid("signature is not base64") from error
    # SECURITY: 86 characters carry 516 bits; the 4 spare ones must be zero, or one signature had 16 texts.
    if _to_text(signature) != text:
        raise StampInvalid("signature has a second spelling")
    return signature
