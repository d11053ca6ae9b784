"""The event stream, message by message: cut into documents, filtered by id, framed again.

Source: Engine API SystemEvents; dockerd 20.10.24 writes one JSON document after the other, newer ones also
JSON lines (1.52) and json-seq (RFC 7464: a record separator before, a line feed after each).
"""

from __future__ import annotations

import re

import msgspec

from policy.dockerapi.answers import shared
from policy.dockerapi.answers.pieces import (
    Fields,
    piece,
    read,
    read_fields,
    read_optional_fields,
    read_text,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

MAX_DOCUMENT_BYTES = 8 * 1024 * 1024  # labels of 900 KiB, each "<" written as \u003c, still fit
RECORD_SEPARATOR = b"\x1e"
_PRESENT = re.compile(rb"[^ \t\r\n\x1e]")
# SECURITY: one user's labels pass here for every listener, so runs of text are crossed in C, and bounded, so that
# the matcher's memory is. Single-class possessive only: groups are wrong before Python 3.11.5 (gh-106052).
_IN_STRING = re.compile(rb'(?:[^"\\]++|\\.){0,4096}', re.DOTALL)
_BETWEEN = re.compile(
    rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.){0,64}"){0,4096}', re.DOTALL
)  # short strings included
_BRACES = frozenset({b"{", b"}", b"[", b"]"})
_SEAL = "ds01.seal"
_NAMES = frozenset({"name", "oldName"})  # the second, with a slash, is a rename's


class JsonStream:
    """Cuts concatenated JSON objects apart, however the chunks fall, in time linear in their bytes."""

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
        """Go on to the end of the document; False if it is not here yet."""
        while True:
            before = self._position
            self._position = _end(_IN_STRING if self._in_string else _BETWEEN, self._buffer, before)
            token = bytes(self._buffer[self._position : self._position + 1])
            if token == b'"':
                self._in_string = not self._in_string
            elif token in _BRACES and not self._in_string:
                self._depth += 1 if token in {b"{", b"["} else -1
                if self._depth == 0:
                    self._position += 1
                    return True
            elif self._position == before:
                return False  # at the end, or between a backslash and its byte
            else:
                continue
            self._position += 1

    def _drop(self) -> None:
        """Forget what was looked at."""
        del self._buffer[: self._position]
        self._position = 0


def _end(pattern: re.Pattern[bytes], buffer: bytearray, position: int) -> int:
    """Where a run of the pattern that begins at `position` ends; `position` itself if there is none."""
    match = pattern.match(buffer, position)
    return match.end() if match else position


class _Attributes(msgspec.Struct, frozen=True):
    """The few that matter here; all others, labels too, are passed over unread."""

    name: str = ""
    container: str | None = None
    seal: str | None = msgspec.field(name="ds01.seal", default=None)


class _Actor(msgspec.Struct, frozen=True):
    id: str = msgspec.field(name="ID", default="")
    attributes: _Attributes | None = msgspec.field(name="Attributes", default=None)


class _Message(msgspec.Struct, frozen=True, rename="pascal"):
    type: str
    action: str
    actor: _Actor


_MESSAGE = msgspec.json.Decoder(_Message)


class EventFilter:
    """One user's view of one event stream. `feed` takes the engine's bytes and gives the client's."""

    def __init__(
        self,
        sees: Visibility,
        *,
        content_type: str = "application/json",
        names: Names = REAL_NAMES,
        everything: bool = False,
    ) -> None:
        """Follow one stream for one user.

        Args:
            content_type: the engine's; only `application/json-seq` frames differently.
            everything: nothing is left out, of the engine's own events neither.
        """
        self._sees = sees
        self._everything = everything
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
        if not self._everything and not self._sees_message(message):
            return self._of_shared(document, message)
        sealed = message.actor.attributes is not None and message.actor.attributes.seal is not None
        if sealed or self._names.may_be_in(document):
            return self._rewritten(document, message)
        return document

    def _of_shared(self, document: bytes, message: _Message) -> bytes | None:
        if message.type != "container" or message.action == "prune":
            return None
        name = self._sees.shown_as(message.actor.id)
        return shared.event(document, name, self._sees) if name else None

    def _sees_message(self, message: _Message) -> bool:
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
                return self._sees_image(message.actor)
            case _:  # builder, daemon, plugin, service, node, secret, config, and what may come
                return False

    def _sees_image(self, actor: _Actor) -> bool:
        """SECURITY: the image's own label can stand where its name should, so the id has to be seen as well."""
        reference = _reference(actor)
        image_id = "" if actor.id == reference else actor.id
        if not reference:
            return self._sees.sees_image(image_id, [])
        return self._sees.sees_reference(reference) and self._sees.sees_image(image_id, [reference])

    def _sees_other_end(self, message: _Message) -> bool:
        """SECURITY: a shared network or volume is seen by many, but each container that joins it only by its owner."""
        container = message.actor.attributes.container if message.actor.attributes else None
        if container is None:
            return message.action in {"create", "destroy", "remove", "update"}
        return self._sees.sees_container(container)

    def _rewritten(self, document: bytes, message: _Message) -> bytes:
        """Without the seal, which proves something to ds01 alone; names as the user knows them."""
        fields = read_fields(document)
        actor = read_fields(fields["Actor"])
        attributes = read_optional_fields(actor.get("Attributes", b"null")) or {}
        attributes.pop(_SEAL, None)
        if message.type in {"image", "container"}:
            self._name_images(fields, actor, attributes)
        if message.type == "volume":
            actor["ID"] = piece(self._names.plain(message.actor.id))
        elif message.type in {"container", "network"}:
            for key in _NAMES & attributes.keys():
                attributes[key] = piece(self._shown_name(read_text(attributes[key])))
        actor["Attributes"] = piece(attributes)
        fields["Actor"] = piece(actor)
        return write(fields)

    def _name_images(self, fields: Fields, actor: Fields, attributes: Fields) -> None:
        """`from` and `id` are the old places of what `Actor` says as well."""
        for holder, keys in (
            (fields, ("from", "id")),
            (actor, ("ID",)),
            (attributes, ("image", "imageRef", "name")),
        ):
            for key in keys:
                if key in holder:
                    holder[key] = piece(self._names.image(read_text(holder[key])))

    def _shown_name(self, name: str) -> str:
        slash = "/" if name.startswith("/") else ""
        return slash + self._names.plain(name.removeprefix("/"))


def _reference(actor: _Actor) -> str:
    """The tag or digest an image event names, in its id (pull, push) or its name (tag, load); "" if none."""
    named = (actor.id, actor.attributes.name if actor.attributes else "")
    return next((text for text in named if text and not text.startswith("sha256:")), "")
