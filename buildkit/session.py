"""A client's `/session` and dockerd's end of it, with each call between them looked at.

The roles are turned round: dockerd asks, the client answers with files, passwords and secrets. dockerd is asked for nothing
by this connection, so what is decided is small: it may call the services of a list, and it hears HTTP/2 of ds01's alone.
Messages pass as they are, as fast as the slower side takes them.
"""

from __future__ import annotations

from collections.abc import Callable

from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)

from buildkit.calls import text_headers
from buildkit.giving import LOW_WATER, PULL, Giver
from buildkit.side import Over, Side, Sides
from buildkit.uploads import Upload
from http1.duplex import Duplex


class _Call:
    """One call of dockerd's, by its streams on both sides."""

    __slots__ = ("asking", "client", "engine", "unread_answer", "unread_question")

    def __init__(self, engine: int, client: int) -> None:
        self.engine = engine
        self.client = client
        self.asking = True  # dockerd may send more
        self.unread_question = 0  # bytes of dockerd's that the client has not taken
        self.unread_answer = 0


class Session:
    """`run` ends when either side has ended."""

    def __init__(
        self,
        *,
        client: Duplex,
        engine: Duplex,
        services: tuple[str, ...],
        upload: Callable[[str], Upload | None],
    ) -> None:
        """Take both connections.

        Args:
            services: what the paths of permitted calls begin with.
            upload: what ds01 itself has for dockerd at a path; None asks the client.
        """
        self._client = Side(client, client_side=True)
        self._engine = Side(engine, client_side=False)
        self._sides = Sides(client=self._client, engine=self._engine)
        self._services = services
        self._upload = upload
        self._by_engine: dict[int, _Call] = {}
        self._by_client: dict[int, _Call] = {}
        self._giver = Giver(self._engine)

    async def run(self) -> None:
        """Relay until one side ends; then both are closed."""
        try:
            await self._sides.run(on_client=self._on_client, on_engine=self._on_engine, moved=self._give_room)
        finally:
            self._client.flush()
            self._engine.flush()
            self._client.duplex.close()
            self._engine.duplex.close()

    def _give_room(self) -> None:
        """Let each side send more for the calls whose other side has taken what came."""
        self._giver.moved()
        for call in self._by_engine.values():
            if call.unread_question and self._client.peer.queued(call.client) <= LOW_WATER:
                self._engine.peer.acknowledge(call.engine, call.unread_question)
                call.unread_question = 0
                self._engine.wake()
            if call.unread_answer and self._engine.peer.queued(call.engine) <= LOW_WATER:
                self._client.peer.acknowledge(call.client, call.unread_answer)
                call.unread_answer = 0
                self._client.wake()

    # --- dockerd asks ---

    def _on_engine(self, event: Event) -> None:
        call = self._by_engine.get(getattr(event, "stream_id", None) or 0)
        match event:
            case RequestReceived():
                self._begin(event)
            case DataReceived() if call is None:
                self._engine.peer.acknowledge(event.stream_id, event.flow_controlled_length)
            case DataReceived() if call is not None:
                self._client.peer.send(call.client, event.data)
                call.unread_question += event.flow_controlled_length
                self._give_room()
            case StreamEnded() if call is not None:
                call.asking = False
                self._client.peer.finish(call.client)
            case StreamReset():
                self._engine.peer.forget(event.stream_id)
                if call is not None:
                    self._client.peer.reset(call.client, event.error_code or ErrorCodes.CANCEL)
                    self._end(call)
            case ConnectionTerminated() if event.error_code:
                raise Over

    def _begin(self, event: RequestReceived) -> None:
        headers = text_headers(event.headers)
        stream, path = event.stream_id, dict(headers).get(":path", "")
        self._engine.peer.accept(stream)
        if not path.startswith(self._services):
            self._giver.refuse(stream)
            return
        upload = self._upload(dict(headers).get("urlpath", "")) if path == PULL else None
        if upload is not None:
            self._sides.tasks.create_task(self._giver.give(stream, upload))
            return
        call = _Call(stream, self._client.peer.open(headers))
        self._by_engine[call.engine] = self._by_client[call.client] = call

    # --- the client answers ---

    def _on_client(self, event: Event) -> None:
        call = self._by_client.get(getattr(event, "stream_id", None) or 0)
        match event:
            case DataReceived() if call is None:
                self._client.peer.acknowledge(event.stream_id, event.flow_controlled_length)
            case ConnectionTerminated() if event.error_code:
                raise Over
            case _ if call is not None:
                self._on_answer(call, event)

    def _on_answer(self, call: _Call, event: Event) -> None:
        engine = self._engine.peer
        match event:
            case ResponseReceived():
                ended = event.stream_ended is not None
                engine.send_headers(call.engine, text_headers(event.headers), end=ended)
                if ended:
                    self._answered(call)
            case DataReceived():
                engine.send(call.engine, event.data)
                call.unread_answer += event.flow_controlled_length
                self._give_room()
            case TrailersReceived():
                engine.finish(call.engine, text_headers(event.headers))
                self._answered(call)
            case StreamEnded():
                engine.finish(call.engine)
                self._answered(call)
            case StreamReset():
                engine.reset(call.engine, event.error_code or ErrorCodes.INTERNAL_ERROR)
                self._end(call)

    def _answered(self, call: _Call) -> None:
        """The answer is whole, so nobody listens to the rest of the question."""
        if call.asking:
            self._client.peer.reset(call.client, ErrorCodes.NO_ERROR)
        self._end(call)

    def _end(self, call: _Call) -> None:
        self._engine.peer.acknowledge(call.engine, call.unread_question)
        self._client.peer.acknowledge(call.client, call.unread_answer)
        del self._by_engine[call.engine], self._by_client[call.client]
