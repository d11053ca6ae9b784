"""`POST /build?version=2`, as the docker CLI without buildx sends it: ds01 asks BuildKit for the build by /grpc.

dockerd cannot put such a build into a cgroup or keep it from images, so the query never reaches it. What it asks for is
decided as every build is (`buildkit.mediation`); what BuildKit says of it goes to the client in the lines of /build.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from buildkit import own_session
from buildkit.build import carry_out, watch
from buildkit.client import Client
from buildkit.mediation import Mediation
from buildkit.own_session import OwnSession
from buildkit.uploads import Upload, Uploads
from buildkit.verdicts import Forward, Refuse
from http1.duplex import Duplex
from http1.errors import ClientGone
from http1.writer import JSON
from policy.buildkit import methods, names
from policy.buildkit import query as by_query
from policy.dockerapi.model import Operation, Request
from policy.model import Uid
from policy.rules.buildkit import METHODS, SHARED_KEY, UUID
from socket_proxy.answers import Answers
from socket_proxy.engine import Engine
from socket_proxy.refusals import Refusal, Unavailable
from socket_proxy.transaction import Transaction


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wires:
    """A build's connections to dockerd. `session` is there where the client has none."""

    client: Client
    session: OwnSession | None = None

    def running(self) -> Iterator[Coroutine[None, None, None]]:
        yield self.client.run()
        if self.session is not None:
            yield self.session.run()

    def close(self) -> None:
        self.client.close()
        if self.session is not None:
            self.session.close()


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
        own = by_query.carries_context(query)
        if not own and not by_query.waits_for_upload(query):
            return await self._build(transaction, None)
        # A context in the body is found like one that comes by a call of its own, of a name that nobody else can know.
        name = secrets.token_hex(16) if own else by_query.build_id(query)
        try:
            upload = self._uploads.expect(uid, name)
        except KeyError:
            return Refusal(status=409, message=f"ds01: a build {name[:80]} waits for its context already")
        if own:
            upload.offer(transaction.exchange.body())
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
        ref = secrets.token_hex(12)
        address = "" if upload is None else upload.address
        judge = self._mediation(transaction)
        asked = by_query.read(transaction.asked.query, ref=ref, session=ref, upload=address)
        solve = judge.denied(methods.SOLVE, asked) if isinstance(asked, tuple) else await judge.build(asked)
        if isinstance(solve, Refuse):
            # It is on record already, with a number of its own to explain it by.
            said = Refusal(status=403, message=solve.status.message)
            await transaction.exchange.respond(403, JSON, said.body())
            return None
        try:
            async with AsyncExitStack() as stack:
                wires = await self._wires(transaction, ref, upload, stack)
                if wires is not None:
                    status = await judge.decide(watch(ref), wires.client.ask)
                    if not isinstance(status, Forward):
                        raise Unavailable("the build cannot be watched; start it again")
                    await self._run(transaction, wires, solve, status)
        finally:
            if solve.ended is not None:
                solve.ended()
        return None

    async def _wires(
        self, transaction: Transaction, ref: str, upload: Upload | None, stack: AsyncExitStack
    ) -> _Wires | None:
        """What connects to BuildKit; None: the engine's refusal was given to the client."""
        engine = await self._connect(transaction, Operation.GRPC)
        if engine is None:
            return None
        client = Client(engine)
        stack.callback(client.close)
        if upload is None or by_query.has_session(transaction.asked.query):
            return _Wires(client=client)
        uid = transaction.actor.uid
        headers = {
            UUID: names.own(uid, ref),
            SHARED_KEY: names.own(uid, ""),
            METHODS: ",".join(own_session.METHODS),
        }
        engine = await self._connect(transaction, Operation.SESSION, headers)
        if engine is None:
            return None
        session = OwnSession(engine, upload)
        stack.callback(session.close)
        return _Wires(client=client, session=session)

    async def _connect(
        self, transaction: Transaction, operation: Operation, headers: Mapping[str, str] | None = None
    ) -> Duplex | None:
        """A connection in this user's name. Raises: UpstreamUnavailable, UpstreamLost."""
        version = transaction.request.version
        request = Request(operation=operation, version=version, upgrade="h2c", headers=headers or {})
        response = await self._engine.send(request, uid=transaction.actor.uid, watch=transaction.exchange)
        if not response.raw:
            await self._answers.error(transaction, response)
            return None
        return response.hijack()

    async def _run(self, transaction: Transaction, wires: _Wires, solve: Forward, status: Forward) -> None:
        """Until the build is over, or its reader leaves: BuildKit then gives it up."""
        exchange = transaction.exchange
        name = (transaction.actor.uid, by_query.build_id(transaction.asked.query))
        gone: ExceptionGroup[ClientGone] | None = None
        self._running[name] = wires.client
        exchange.on_gone(wires.close)
        try:
            async with asyncio.TaskGroup() as tasks:
                for each in wires.running():
                    tasks.create_task(each)
                exchange.start_response(200, JSON)
                quiet = "q" in transaction.asked.query
                await carry_out(wires.client, solve=solve, status=status, say=exchange.write, quiet=quiet)
                await exchange.end()
                wires.close()
        except* ClientGone as left:
            gone = left
        finally:
            if self._running.get(name) is wires.client:
                del self._running[name]
        if gone is not None:
            raise ClientGone("client left before its build was over") from gone

    async def _upload(self, transaction: Transaction, build: str) -> Refusal | None:
        upload = await self._uploads.wanted(transaction.actor.uid, build)
        if upload is None or not await upload.give(transaction.exchange.body()):
            return Refusal(status=500, message="ds01: no build waits for this context; start it again")
        await transaction.exchange.respond(200)
        return None
