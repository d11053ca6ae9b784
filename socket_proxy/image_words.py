"""What dockerd says while it builds, loads, imports or pulls: listened to, and relayed with the user's own names plain."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

from http1.client import Response
from http1.writer import forwardable
from policy import image_names
from socket_proxy.transaction import Transaction

# SECURITY: only words of dockerd's own. What a build step prints stands in "stream" with its quotes escaped; with q=1
# nothing of it is shown, and only then the id is said there.
BUILT = re.compile(rb'"aux":\{"ID":"(sha256:[0-9a-f]{64})"\}')
BUILT_QUIETLY = re.compile(rb'"stream":"(sha256:[0-9a-f]{64})\\n"')
IMPORTED = re.compile(rb'"status":"(sha256:[0-9a-f]{64})"')
LOADED = re.compile(rb'"stream":"Loaded image ID: (sha256:[0-9a-f]{64})\\n"')
STEP = re.compile(rb'"stream":" ---\\u003e ([0-9a-f]{12})\\n"')
_TAIL_BYTES = 256


class Words:
    """One stream of JSON messages. `failed`: it told of an error."""

    def __init__(self, patterns: tuple[re.Pattern[bytes], ...]) -> None:
        self._found: dict[re.Pattern[bytes], dict[str, None]] = {pattern: {} for pattern in patterns}
        self._tail = b""
        self.failed = False

    def found(self, pattern: re.Pattern[bytes]) -> tuple[str, ...]:
        """The ids that a pattern found, each once, in order."""
        return tuple(self._found[pattern])

    def hear(self, chunk: bytes) -> None:
        text = self._tail + chunk
        for pattern, found in self._found.items():
            for match in pattern.finditer(text):
                found[match[1].decode()] = None
        self.failed = self.failed or b'"errorDetail"' in text
        self._tail = text[-_TAIL_BYTES:]


class PlainNames:
    """Writes names as the user knows them into a stream, however it is cut."""

    def __init__(self, written: Mapping[str, str]) -> None:
        """Args: written: text of dockerd's, and what to write for it."""
        self._written = {old.encode(): new.encode() for old, new in written.items()}
        self._held = b""

    def feed(self, chunk: bytes) -> bytes:
        """What can be passed on now; what may be the beginning of such a text waits for the rest."""
        text = self._held + chunk
        for old, new in self._written.items():
            text = text.replace(old, new)
        held = max((_begun(text, old) for old in self._written), default=0)
        self._held = text[len(text) - held :]
        return text[: len(text) - held]

    def close(self) -> bytes:
        held, self._held = self._held, b""
        return held


def _begun(text: bytes, wanted: bytes) -> int:
    """How many bytes at the end of `text` are a beginning of `wanted`."""
    return next((size for size in range(len(wanted) - 1, 0, -1) if text.endswith(wanted[:size])), 0)


def _plain(transaction: Transaction, names: Mapping[str, str]) -> PlainNames:
    """Args: names: what the user wrote, with the id that was written for it: `FROM app`, `--from=app`."""
    written = {
        f"{before}{found}": f"{before}{name}" for name, found in names.items() for before in (" ", "=")
    }
    if not transaction.everything:
        written[image_names.prefix(transaction.actor.uid)] = ""
    return PlainNames(written)


async def relay_words(
    transaction: Transaction,
    response: Response,
    *patterns: re.Pattern[bytes],
    words: Words | None = None,
    names: Mapping[str, str] = MappingProxyType({}),
) -> Words:
    """Pass a 200 on as it comes, but for names and its end: what came of it is put on record before the client knows.

    Behind an earlier stream of the same answer it goes on where that ended.

    Args: words: who listens, where that matters when the client leaves in the middle too.
    """
    words = words or Words(patterns)
    plain = _plain(transaction, names)
    exchange = transaction.exchange
    if not exchange.responded:
        exchange.start_response(200, forwardable(response.head.headers))
    async for chunk in response.body():
        words.hear(chunk)
        if shown := plain.feed(chunk):
            await exchange.write(shown)
    if rest := plain.close():
        await exchange.write(rest)
    return words
