"""Is the stamp the proxy's, fresh, unused, for this engine, and for exactly this request?

Order matters: cheap and public checks first, the signature before anything is remembered.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.stamp import (
    HEADER,
    MAX_LIFETIME_MS,
    NO_BODY,
    STREAM_BODY,
    Claims,
    Stamp,
    StampInvalid,
    body_claim,
    message,
    parse_stamp,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from authz_plugin.ports import StampKey
    from authz_plugin.wire import Question
    from policy.model import LeaseId, Uid


class StampMissing(Exception):  # noqa: N818  the name says what is missing
    """No stamp at all: somebody talks to dockerd directly."""


class StampRefused(Exception):  # noqa: N818  the name says what happened
    """There is a stamp, and it does not hold for this request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """What a valid stamp proves."""

    uid: Uid
    leases: tuple[LeaseId, ...]


class UsedNonces:
    """Nonces that must not come again. Only signed ones enter, each leaves when its stamp has expired."""

    def __init__(self) -> None:
        """Remember nothing yet."""
        self._used: set[str] = set()
        self._by_expiry: deque[tuple[int, str]] = deque()

    def __len__(self) -> int:
        """How many are remembered."""
        return len(self._used)

    def use(self, nonce: str, *, expires_ms: int, now_ms: int) -> bool:
        """Remember a nonce; False when it was used before. `expires_ms` is at most MAX_LIFETIME_MS ahead."""
        while self._by_expiry and self._by_expiry[0][0] <= now_ms:
            self._used.remove(self._by_expiry.popleft()[1])
        if nonce in self._used:
            return False
        self._used.add(nonce)
        # INVARIANT: kept at least until the stamp expires. Stamps do not come in order of expiry, so each is kept
        # for the longest lifetime from now: the queue stays sorted and nothing is forgotten early.
        self._by_expiry.append((max(expires_ms, now_ms + MAX_LIFETIME_MS), nonce))
        return True


class StampCheck:
    """Checks stamps for one engine with one key; both may change while it runs."""

    def __init__(
        self, *, key: Callable[[], StampKey], engine_id: Callable[[], str], clock_ms: Callable[[], int]
    ) -> None:
        """`key` and `engine_id` give the present ones, or raise; `clock_ms` is CLOCK_BOOTTIME."""
        self._key = key
        self._engine_id = engine_id
        self._clock_ms = clock_ms
        self._nonces = UsedNonces()

    def identify(self, question: Question) -> Identity:
        """Who asks, proved. Raises: StampMissing, StampRefused; each stamp is accepted once."""
        stamp = _only_stamp(question)
        now_ms = self._clock_ms()
        _check_time(stamp, now_ms)
        _check_body(stamp, question)
        claims = _claims(stamp, question, self._engine_id())
        if not self._key().verify(stamp.signature, _message(claims)):
            raise StampRefused("its signature does not fit this request, this engine or the proxy's key")
        if not self._nonces.use(stamp.nonce, expires_ms=stamp.expires_ms, now_ms=now_ms):
            raise StampRefused("it was used before")
        return Identity(uid=stamp.uid, leases=stamp.leases)


def _only_stamp(question: Question) -> Stamp:
    values = question.all_of(HEADER)
    if not values:
        raise StampMissing
    if len(values) > 1:
        raise StampRefused("there is more than one")
    try:
        return parse_stamp(values[0])
    except StampInvalid as error:
        raise StampRefused("it has no valid form") from error


def _check_time(stamp: Stamp, now_ms: int) -> None:
    if stamp.expires_ms <= now_ms:
        raise StampRefused("it has expired")
    if stamp.expires_ms > now_ms + MAX_LIFETIME_MS:
        raise StampRefused("it would live longer than 15 s")


def _check_body(stamp: Stamp, question: Question) -> None:
    """SECURITY: dockerd shows a body only sometimes; what the proxy sent decides (CVE-2024-41110, CVE-2026-34040)."""
    if stamp.body in (NO_BODY, STREAM_BODY):
        if question.body is not None:
            raise StampRefused("it claims no JSON body, and there is one")
    elif question.body is None:
        raise StampRefused("it claims a JSON body, and none reached the plugin")
    elif body_claim(question.body) != stamp.body:
        raise StampRefused("the body is not the one it was made for")


def _claims(stamp: Stamp, question: Question, engine_id: str) -> Claims:
    return Claims(
        uid=stamp.uid,
        engine_id=engine_id,
        method=question.method,
        target=question.target,
        content_type=_only(question, "content-type"),
        upgrade=_only(question, "upgrade"),
        body=stamp.body,
        leases=stamp.leases,
        nonce=stamp.nonce,
        expires_ms=stamp.expires_ms,
    )


def _only(question: Question, name: str) -> str:
    values = question.all_of(name)
    if len(values) > 1:
        raise StampRefused(f"there is more than one {name} header")
    return values[0] if values else ""


def _message(claims: Claims) -> bytes:
    try:
        return message(claims)
    except StampInvalid as error:
        raise StampRefused("the request has no form that can be signed") from error
