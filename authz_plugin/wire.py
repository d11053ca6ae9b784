"""dockerd's plugin protocol as values. Only well-formed input becomes a question; all else is denied.

SOURCE: pkg/authorization/api.go of moby; RequestBody is base64 and absent when empty *or withheld*.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import msgspec

from policy.dockerapi.model import Incoming

ACTIVATE = "/Plugin.Activate"
REQUEST = "/AuthZPlugin.AuthZReq"
RESPONSE = "/AuthZPlugin.AuthZRes"
ACTIVATED = b'{"Implements":["authz"]}'
ALLOWED = b'{"Allow":true}'
_MESSAGE_LIMIT = 1000


class WireInvalid(Exception):  # noqa: N818  the name says what is wrong with dockerd's message
    """Not an AuthZReq. Nothing can be decided, so it is denied."""


class _AuthZReq(msgspec.Struct):
    """The fields that count; others (certificates, user) say nothing on a Unix socket."""

    RequestMethod: str
    RequestUri: str
    RequestHeaders: dict[str, str] | None = None
    RequestBody: bytes | None = None


_DECODER = msgspec.json.Decoder(_AuthZReq)


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What dockerd asks about one request.

    target: as dockerd received it, not cleaned.
    headers: names lower-case, values as the last of duplicates, in dockerd's order.
    body: None when there is none or dockerd withheld it; the two cannot be told apart.
    """

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None

    def all_of(self, name: str) -> tuple[str, ...]:
        """Every value whose header name folds to `name` (lower-case)."""
        return tuple(value for key, value in self.headers if key == name)

    def incoming(self, *, without: str) -> Incoming:
        """The request as the shared reader takes it, less the header named `without`."""
        headers = tuple(pair for pair in self.headers if pair[0] != without)
        return Incoming(method=self.method, target=self.target, headers=headers, body=self.body)

    @property
    def path(self) -> str:
        """The target without its query: what may be logged."""
        return self.target.partition("?")[0]


def parse_question(body: bytes) -> Question:
    """Read an AuthZReq. Raises: WireInvalid: not JSON, a missing field, a wrong type or bad base64."""
    try:
        asked = _DECODER.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise WireInvalid("not an AuthZReq") from error
    if not asked.RequestMethod or not asked.RequestUri:
        raise WireInvalid("AuthZReq without method or URI")
    return Question(
        method=asked.RequestMethod,
        target=asked.RequestUri,
        # SECURITY: casefold, not lower: two names that some reader could take for one must both be seen.
        headers=tuple((name.casefold(), value) for name, value in (asked.RequestHeaders or {}).items()),
        body=asked.RequestBody or None,
    )


def write_denial(message: str) -> bytes:
    """The answer that refuses; `Msg` is what the client prints, so it is never empty and one line."""
    text = " ".join(message.split()) or "ds01: denied"
    return json.dumps({"Allow": False, "Msg": text[:_MESSAGE_LIMIT]}, separators=(",", ":")).encode()
