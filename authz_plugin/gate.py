"""The second gate: one answer for each question of dockerd. Allows what the proxy let through, and nothing else.

Stamp, then the same reader, then every rule that needs no facts. Whatever goes wrong on the way denies (I3).
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from authz_plugin.identity import StampCheck, StampMissing, StampRefused
from authz_plugin.trusted import BreakGlass
from authz_plugin.wire import (
    ACTIVATE,
    ACTIVATED,
    ALLOWED,
    REQUEST,
    RESPONSE,
    Question,
    WireInvalid,
    parse_question,
    write_denial,
)
from host.trusted import Untrusted
from observability import events
from observability.logging import log
from policy.dockerapi.model import MalformedRequest
from policy.stamp import CANARY, HEADER

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from authz_plugin.identity import Identity
    from authz_plugin.ports import Actors, Checker, Reader
    from policy.model import Actor, Reason

DEADLINE_SECONDS = 1.0
_USE_YOUR_SOCKET = "use your own Docker socket (unset DOCKER_HOST and try again, or: ds01 whoami)"


class Denied(Exception):  # noqa: N818  the name says how it ended
    """The request is refused; the text is what the client prints after `ds01: `."""


class Gate:
    """Answers dockerd. Keeps no state but the used nonces."""

    def __init__(
        self,
        *,
        stamps: StampCheck,
        read: Reader,
        check: Checker,
        actors: Actors,
        break_glass: Callable[[], BreakGlass | None],
        clock_ms: Callable[[], int],
        new_id: Callable[[], str],
    ) -> None:
        """`break_glass` gives the present file or raises Untrusted; `clock_ms` is CLOCK_BOOTTIME."""
        self._stamps = stamps
        self._read = read
        self._check = check
        self._actors = actors
        self._break_glass = break_glass
        self._clock_ms = clock_ms
        self._new_id = new_id

    def answer(self, path: str, body: bytes) -> bytes | Awaitable[bytes] | None:
        """The body of the answer, an awaitable of it when an account must be looked up, None for an unknown path."""
        if path == RESPONSE:
            return ALLOWED  # never parsed: nothing can be undone or filtered there
        if path == REQUEST:
            return self._decide(body)
        return ACTIVATED if path == ACTIVATE else None

    def _decide(self, body: bytes) -> bytes | Awaitable[bytes]:
        started = time.monotonic()
        question: Question | None = None
        try:
            question = parse_question(body)
            identity = self._stamps.identify(question)
            actor = self._actors.known(identity.uid)
            if actor is None:
                return self._decide_later(question, identity, started)
            return self._judge(question, identity, actor, started)
        except Exception as error:  # noqa: BLE001  the edge: whatever happened, it denies
            return self._refuse(question, error)

    async def _decide_later(self, question: Question, identity: Identity, started: float) -> bytes:
        try:
            actor = await self._look_up(identity)
            return self._judge(question, identity, actor, started)
        except Exception as error:  # noqa: BLE001  the same edge, a moment later
            return self._refuse(question, error)

    async def _look_up(self, identity: Identity) -> Actor:
        async with asyncio.timeout(DEADLINE_SECONDS):
            actor = await self._actors.find(identity.uid)
        if actor is None:
            raise Denied(f"uid {identity.uid} has no account on this host; ask the admin")
        return actor

    def _judge(self, question: Question, identity: Identity, actor: Actor, started: float) -> bytes:
        request = self._read(question.incoming(without=HEADER))
        reasons = self._check(actor, request, leases=identity.leases)
        if reasons:
            self._log_denied(identity, reasons)
            raise Denied(_text(reasons))
        if time.monotonic() - started > DEADLINE_SECONDS:
            raise Denied("the check took more than 1 s; try again")
        return ALLOWED

    def _refuse(self, question: Question | None, error: Exception) -> bytes:
        """Every way to a denial, told apart by who can do something about it."""
        match error:
            case StampMissing() if question is not None:
                return self._without_stamp(question)
            case Denied():
                return write_denial(f"ds01: {error}")
            case StampRefused():
                return self._refuse_stamp(question, f"the request's stamp was refused: {error}")
            case Untrusted():
                return self._refuse_stamp(question, f"stamps cannot be checked: {error}")
            case WireInvalid():
                return write_denial(
                    f"ds01: {error} (rule stamp); the engine and ds01-authz do not understand each other"
                )
            case MalformedRequest():
                return write_denial(f"ds01: {error} (rule canonical_request); send it in the documented form")
            case TimeoutError():
                return write_denial("ds01: the account lookup took more than 1 s; try again")
        return self._failed(question, error)

    def _without_stamp(self, question: Question) -> bytes:
        try:
            glass = self._break_glass()
        except Untrusted as error:
            log(events.BREAK_GLASS_REFUSED, problem=str(error))
            glass = None
        probe = bool(question.all_of(CANARY))
        if glass is not None and not probe and glass.is_open(self._clock_ms()):
            log(
                events.BREAK_GLASS_USED,
                request_id=self._new_id(),
                method=question.method,
                path=question.path,
                by=glass.by,
                reason=glass.reason,
            )
            return ALLOWED
        return write_denial(f"ds01: direct access to the engine is closed (rule stamp); {_USE_YOUR_SOCKET}")

    def _refuse_stamp(self, question: Question | None, problem: str) -> bytes:
        request_id = self._new_id()
        log(
            events.STAMP_REFUSED,
            request_id=request_id,
            method=question.method if question else None,
            path=question.path if question else None,
            problem=problem,
        )
        return write_denial(
            f"ds01: {problem} (rule stamp); try again, then tell the admin: request {request_id}"
        )

    def _failed(self, question: Question | None, error: Exception) -> bytes:
        """A bug of ours. The user gets a number, the log gets the type: never a body, never a value."""
        request_id = self._new_id()
        log(
            events.REQUEST_FAILED,
            request_id=request_id,
            uid=None,
            operation=None,
            problem=f"{type(error).__module__}.{type(error).__qualname__} at {_place(error)}",
            path=question.path if question else None,
        )
        return write_denial(f"ds01: internal error, denied; tell the admin: request {request_id}")

    def _log_denied(self, identity: Identity, reasons: tuple[Reason, ...]) -> None:
        log(
            events.REQUEST_DENIED,
            request_id=self._new_id(),
            uid=identity.uid,
            operation=None,
            status=403,
            rules=sorted({reason.rule for reason in reasons}),
        )


def _text(reasons: tuple[Reason, ...]) -> str:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0].text() + more


def _place(error: Exception) -> str:
    """Where it was raised: file and line of the innermost frame."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "?" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"
