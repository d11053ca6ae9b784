"""`POST /build?version=2`, as the docker CLI without buildx sends it: ds01 asks BuildKit for the build by /grpc.

dockerd cannot put such a build into a cgroup or keep it from images, so the query never reaches it. What it asks for is
decided as every build is (`buildkit.mediation`); what BuildKit says of it goes to the client in the lines of /build.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable

from buildkit.build import carry_out, watch
from buildkit.client import Client
from buildkit.mediation import Mediation
from buildkit.uploads import Upload, Uploads
from buildkit.verdicts import Forward, Refuse
from http1.duplex import Duplex
from http1.errors import ClientGone
from policy.buildkit import methods
from policy.buildkit import query as by_query
from policy.dockerapi.model import Operation, Request
from policy.model import Uid
from socket_proxy.answers import Answers
from socket_proxy.engine import Engine
from socket_proxy.refusals import Refusal, Unavailable
from socket_proxy.transaction import Transaction

JSON = (("content-type", "application/json"),)


class QueryBuilds:
    """Builds, uploads of their contexts, and their end."""

    def __init__(
        self,
        *,
        engine: Engine,
        answers: Answers,
        uploads: Uploads,
        mediation: Callable[[Transaction], Mediation],
    ) -> None:
        self._engine = engine
        self._answers = answers
        self._uploads = uploads
        self._mediation = mediation
        self._running: dict[tuple[Uid, str], Client] = {}  # by the client's name of the build

    async def build(self, transaction: Transaction) -> Refusal | None:
        """One call to /build: a build, or the context of one."""
        query, uid = transaction.asked.query, transaction.actor.uid
        if for_build := by_query.uploaded_for(query):
            return await self._upload(transaction, for_build)
        if not by_query.waits_for_upload(query):
            return await self._build(transaction, None)
        name = by_query.build_id(query)
        try:
            upload = self._uploads.expect(uid, name)
        except KeyError:
            return Refusal(status=409, message=f"ds01: a build {name[:80]} waits for its context already")
        try:
            return await self._build(transaction, upload)
        finally:
            self._uploads.forget(uid, name)

    async def cancel(self, transaction: Transaction) -> Refusal | None:
        """Give up a build of one's own; like dockerd, say nothing of one that is not there."""
        name = next(iter(transaction.asked.query.get("id", ())), "")
        client = self._running.get((transaction.actor.uid, name))
        if client is not None:
            client.close()
        await transaction.exchange.respond(200)
        return None

    async def _build(self, transaction: Transaction, upload: Upload | None) -> Refusal | None:
        address = "" if upload is None else upload.address
        ref = secrets.token_hex(12)
        judge = self._mediation(transaction)
        asked = by_query.read(transaction.asked.query, ref=ref, upload=address)
        solve = judge.denied(methods.SOLVE, asked) if isinstance(asked, tuple) else await judge.build(asked)
        if isinstance(solve, Refuse):
            # It is on record already, with a number of its own to explain it by.
            said = Refusal(status=403, message=solve.status.message)
            await transaction.exchange.respond(403, JSON, said.body())
            return None
        try:
            engine = await self._connect(transaction)
            if engine is not None:
                await self._run(transaction, Client(engine), judge, solve, ref)
        finally:
            if solve.ended is not None:
                solve.ended()
        return None

    async def _connect(self, transaction: Transaction) -> Duplex | None:
        """A connection to BuildKit in this user's name, or the engine's refusal is given to the client.

        Raises: UpstreamUnavailable, UpstreamLost.
        """
        request = Request(operation=Operation.GRPC, version=transaction.request.version, upgrade="h2c")
        response = await self._engine.send(request, uid=transaction.actor.uid, watch=transaction.exchange)
        if not response.raw:
            await self._answers.error(transaction, response)
            return None
        return response.hijack()

    async def _run(
        self, transaction: Transaction, client: Client, judge: Mediation, solve: Forward, ref: str
    ) -> None:
        """Until the build is over, or its reader leaves: BuildKit then gives it up."""
        exchange = transaction.exchange
        name = (transaction.actor.uid, by_query.build_id(transaction.asked.query))
        gone: ExceptionGroup[ClientGone] | None = None
        status = await judge.decide(watch(ref), client.ask)
        if not isinstance(status, Forward):
            client.close()
            raise Unavailable("the build cannot be watched; start it again")
        self._running[name] = client
        exchange.on_gone(client.close)
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(client.run())
                exchange.start_response(200, JSON)
                quiet = "q" in transaction.asked.query
                await carry_out(client, solve=solve, status=status, say=exchange.write, quiet=quiet)
                await exchange.end()
                client.close()
        except* ClientGone as left:
            gone = left
        finally:
            client.close()
            if self._running.get(name) is client:
                del self._running[name]
        if gone is not None:
            raise ClientGone("client left before its build was over") from gone

    async def _upload(self, transaction: Transaction, build: str) -> Refusal | None:
        upload = await self._uploads.wanted(transaction.actor.uid, build)
        if upload is None or not await upload.give(transaction.exchange.body()):
            return Refusal(status=500, message="ds01: no build waits for this context; start it again")
        await transaction.exchange.respond(200)
        return None
