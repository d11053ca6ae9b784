"""The event stream, message by message: cut into documents, filtered by id, framed again.

Source: Engine API SystemEvents; dockerd 20.10.24 writes one JSON document after the other, newer ones also
JSON lines (1.52) and json-seq (RFC 7464: a record separator before, a line feed after each).
"""

from __future__ import annotations

import re

import msgspec

from policy.dockerapi.answers.pieces import piece, read, read_fields, write
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024  # labels of 900 KiB, each "<" written as \u003c, still fit
RECORD_SEPARATOR = b"\x1e"
_PRESENT = re.compile(rb"[^ \t\r\n\x1e]")
_STRUCTURE = re.compile(rb'["{}\[\]]')
_STRING_END = re.compile(rb'["\\]')
_SEAL = "ds01.seal"


class JsonStream:
    """Cuts concatenated JSON objects apart, however the chunks fall. Looks at every byte once."""

    def __init__(self, *, max_document_bytes: int = MAX_DOCUMENT_BYTES) -> None:
        self._max_bytes = max_document_bytes
        self._buffer = bytearray()
        self._position = 0  # everything before it was looked at
        self._depth = 0
        self._in_string = False
        self._oversize = False
        self.skipped = 0  # documents over the limit, left out

    def feed(self, chunk: bytes) -> list[bytes]:
        """Take the next bytes; give the documents they complete.

        A document over the limit is left out and counted: an error would end the stream of everybody who listens.
        Raises: UnreadableAnswer: something other than a JSON object begins.
        """
        self._buffer += chunk
        documents: list[bytes] = []
        while self._begin() and self._scan():
            document = bytes(self._buffer[: self._position])
            if self._oversize or len(document) > self._max_bytes:
                self.skipped += 1
            else:
                documents.append(document)
            self._drop()
            self._oversize = False
        if len(self._buffer) > self._max_bytes:
            self._oversize = True
            self._drop()
        return documents

    def _begin(self) -> bool:
        """Skip what stands between documents; say whether one has begun."""
        if self._depth:
            return True
        first = _PRESENT.search(self._buffer)
        if first and first[0] != b"{":
            raise UnreadableAnswer("the engine's stream holds something other than JSON objects")
        del self._buffer[: first.start() if first else len(self._buffer)]
        return bool(self._buffer)

    def _scan(self) -> bool:
        """Go on to the end of the document; False if it is not here yet. Invariant: `_position` is past an escape."""
        while match := (_STRING_END if self._in_string else _STRUCTURE).search(self._buffer, self._position):
            token = match[0]
            if token == b"\\":
                if match.end() == len(self._buffer):
                    self._position = match.start()  # the escaped byte is still to come
                    return False
                self._position = match.end() + 1
                continue
            self._position = match.end()
            if token == b'"':
                self._in_string = not self._in_string
            else:
                self._depth += 1 if token in b"{[" else -1
                if self._depth == 0:
                    return True
        self._position = len(self._buffer)
        return False

    def _drop(self) -> None:
        """Forget what was looked at."""
        del self._buffer[: self._position]
        self._position = 0


class _Actor(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID", default="")
    attributes: dict[str, str] | None = msgspec.field(name="Attributes", default=None)


class _Message(msgspec.Struct, frozen=True, rename="pascal"):
    type: str
    action: str
    actor: _Actor


_MESSAGE = msgspec.json.Decoder(_Message)


class EventFilter:
    """One user's view of one event stream. `feed` takes the engine's bytes and gives the client's."""

    def __init__(
        self, sees: Visibility, *, content_type: str = "application/json", names: Names = REAL_NAMES
    ) -> None:
        """content_type: the engine's; only `application/json-seq` frames differently."""
        self._sees = sees
        self._names = names
        self._stream = JsonStream()
        sequence = content_type.partition(";")[0].strip().lower() == "application/json-seq"
        self._before = RECORD_SEPARATOR if sequence else b""

    def feed(self, chunk: bytes) -> bytes:
        """Whole messages only, each ended by a line feed; empty if none is for this user. Raises: UnreadableAnswer."""
        shown = (self.show(document) for document in self._stream.feed(chunk))
        return b"".join(self._before + document + b"\n" for document in shown if document is not None)

    def show(self, document: bytes) -> bytes | None:
        """One message as the user may see it, or None. Raises: UnreadableAnswer."""
        message = read(_MESSAGE, document)
        if not self._sees_message(message):
            return None
        attributes = message.actor.attributes or {}
        if _SEAL in attributes or self._names is not REAL_NAMES:
            return self._rewritten(document, message)
        return document

    def _sees_message(self, message: _Message) -> bool:
        attributes = message.actor.attributes or {}
        if message.action == "prune" or not message.actor.id:
            return False
        match message.type:
            case "container":
                return self._sees.sees_container(message.actor.id)
            case "volume":
                return self._sees.sees_volume(message.actor.id) and self._sees_other_end(message)
            case "network":
                return self._sees.sees_network(message.actor.id) and self._sees_other_end(message)
            case "image":
                references = [
                    text for text in (message.actor.id, attributes.get("name", "")) if _is_reference(text)
                ]
                return self._sees.sees_image(message.actor.id, references)
            case _:  # builder, daemon, plugin, service, node, secret, config, and what may come
                return False

    def _sees_other_end(self, message: _Message) -> bool:
        """SECURITY: a shared network or volume is seen by many, but each container that joins it only by its owner."""
        container = (message.actor.attributes or {}).get("container")
        if container is None:
            return message.action in {"create", "destroy", "remove", "update"}
        return self._sees.sees_container(container)

    def _rewritten(self, document: bytes, message: _Message) -> bytes:
        """Without the seal, which proves something to ds01 alone; names as the user knows them."""
        fields = read_fields(document)
        actor = read_fields(fields["Actor"])
        attributes = {key: text for key, text in (message.actor.attributes or {}).items() if key != _SEAL}
        if message.type == "volume":
            actor["ID"] = piece(self._names.volume(message.actor.id))
        elif message.type in {"container", "network"} and "name" in attributes:
            shown = self._names.container if message.type == "container" else self._names.network
            attributes["name"] = shown(attributes["name"])
        actor["Attributes"] = piece(attributes)
        fields["Actor"] = piece(actor)
        return write(fields)


def _is_reference(text: str) -> bool:
    return bool(text) and not text.startswith("sha256:")
