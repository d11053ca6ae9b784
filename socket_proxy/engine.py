"""The one way from ds01 to dockerd: write, stamp, send.

Used for users' requests and for ds01's own questions (lists, inspect, events); both carry a stamp.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

from http1.client import Pool, Response, Watch
from policy.dockerapi import routes
from policy.dockerapi.model import Operation, Payload, Request
from policy.dockerapi.write import write
from policy.model import Json, LeaseId, Uid
from socket_proxy.refusals import EngineError
from socket_proxy.repeat import Written
from socket_proxy.stamp import Stamper

ITSELF = Uid(0)  # ds01's own questions are root's; the plugin's audit tells them apart by the operation
_ANSWER_BYTES = 256 * 1024 * 1024  # a list of 100,000 containers; a bound against a runaway engine


class Engine:
    """dockerd behind its private socket."""

    def __init__(self, pool: Pool, stamper: Stamper, *, version: tuple[int, int]) -> None:
        self._pool = pool
        self._stamper = stamper
        self.version = version

    async def send(
        self,
        request: Request,
        *,
        uid: Uid,
        leases: tuple[LeaseId, ...] = (),
        upload: AsyncIterator[bytes] | None = None,
        upload_length: int | None = None,
        watch: Watch | None = None,
    ) -> Response:
        """Forward one decided, rewritten request.

        Args:
            upload: the body of a Payload.STREAM operation, relayed and never held whole.
            upload_length: its length where the client named one; None sends it chunked.
            watch: who waits; when it leaves, the request to dockerd is ended.
        Raises: UpstreamUnavailable, UpstreamLost.
        """
        outgoing = write(request)
        stamped = self._stamper.header(
            outgoing, uid=uid, leases=leases, upgrade=request.upgrade, streams=upload is not None
        )
        return await self._pool.request(
            outgoing.method,
            outgoing.target,
            (
                *(header for header in outgoing.headers if header[0] != "upgrade"),
                stamped,
            ),  # http1 frames upgrades
            upload if upload is not None else outgoing.body,
            content_length=upload_length,
            hijack=routes.ROUTE_OF[request.operation].payload is Payload.HIJACK,
            upgrade=request.upgrade,
            watch=watch,
        )

    def written(self, request: Request, *, uid: Uid) -> Written:
        """A bodyless request of one user in a form that is quick to send again."""
        return Written(request, uid=uid, stamper=self._stamper)

    async def send_again(self, written: Written, *, watch: Watch | None = None) -> Response:
        """Forward a request that was written before. Raises: UpstreamUnavailable, UpstreamLost."""
        return await self._pool.send(written.next(), watch)

    async def ask(
        self,
        operation: Operation,
        *,
        params: Mapping[str, str] | None = None,
        query: Mapping[str, tuple[str, ...]] | None = None,
        body: Mapping[str, Json] | None = None,
        uid: Uid = ITSELF,
        version: tuple[int, int] | None = None,
    ) -> bytes:
        """One of ds01's own calls, its answer read whole.

        Args: version: of the API, where another one is needed than for the rest; the engine must have it.
        Raises: EngineError: a status of 300 or more. UpstreamUnavailable, UpstreamLost.
        """
        request = Request(
            operation=operation,
            version=version or self.version,
            params=params or {},
            query=query or {},
            body=body,
        )
        response = await self.send(request, uid=uid)
        answer = await response.read(_ANSWER_BYTES)
        if response.head.status >= 300:
            raise EngineError(response.head.status, answer)
        return answer
