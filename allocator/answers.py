"""Who asks the allocator, what was asked, and how an error becomes an answer: what all its routes share."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from aiohttp import web

from allocator.forbidden import words
from allocator.json_values import BadInput, parse_body
from allocator.ledger import Conflict
from allocator.model import InventoryUnavailable, LedgerUnavailable
from host.peercred import credentials
from observability import events
from observability.logging import log

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from typing import Any

_BODY_SECONDS: Final = 10


async def body_of(request: web.Request) -> Mapping[str, Any]:
    """One JSON object. Raises: BadInput: it is none, or takes too long to come."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            return parse_body(await request.read())
    except TimeoutError as error:
        raise BadInput(f"the body did not come within {_BODY_SECONDS} s") from error


def who(request: web.Request) -> str:
    """Who changes something, as the ledger keeps it."""
    return f"uid {peer_uid(request)}"


def peer_uid(request: web.Request) -> int:
    """SECURITY: the kernel says who asks; no header does. Raises: ConnectionResetError: the peer is gone."""
    peer = None if request.transport is None else request.transport.get_extra_info("socket")
    if peer is None:
        raise ConnectionResetError("the peer is gone")
    return credentials(peer)[1]


async def sent(request: web.Request, response: web.Response) -> web.Response:
    """Write the answer now. Raises: OSError: the peer is gone."""
    await response.prepare(request)
    await response.write_eof()
    if request.transport is None or request.transport.is_closing():
        raise ConnectionResetError("the peer is gone")
    return response


@web.middleware
async def errors(
    request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
) -> web.StreamResponse:
    """The one place where an error becomes an answer."""
    try:
        return await handler(request)
    except BadInput as error:
        return message(400, str(error))
    except Conflict as error:
        return message(409, str(error))
    except InventoryUnavailable as error:
        return message(503, f"{error}; no GPU can be leased now, tell the admin", problem=error.problem.value)
    except LedgerUnavailable as error:
        return message(503, f"{error}; no GPU can be leased now, tell the admin")
    except web.HTTPException as error:
        return message(error.status, error.text or error.reason)
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001  the edge: a bug answers 500 and says nothing of itself
        log(events.DAEMON_FAILED, problem=repr(error))
        return message(500, "the allocator failed; tell the admin")


def require_trusted(request: web.Request, trusted: frozenset[int]) -> None:
    """Raises: HTTPForbidden, which says who may."""
    resource = request.match_info.route.resource
    if peer_uid(request) not in trusted:
        raise refusal(403, words(request.method, "" if resource is None else resource.canonical))


def message(status: int, text: str, **more: str) -> web.Response:
    """Docker's form of an error, so that every client shows it, and what a program may want to know."""
    return web.json_response({"message": f"ds01: {text}", **more}, status=status)


def refusal(status: int, text: str) -> web.HTTPException:
    """To be raised: 403, 404 or 409."""
    kinds = {403: web.HTTPForbidden, 404: web.HTTPNotFound, 409: web.HTTPConflict}
    return kinds[status](text=text)
