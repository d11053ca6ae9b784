"""What dockerd says while it builds, loads, imports or pulls: relayed to the client, and listened to."""

from __future__ import annotations

import re

from http1.client import Response
from http1.writer import forwardable
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


async def relay_words(
    transaction: Transaction, response: Response, *patterns: re.Pattern[bytes], words: Words | None = None
) -> Words:
    """Pass a 200 on as it comes, but for its end: what came of it is put on record before the client knows.

    Behind an earlier stream of the same answer it goes on where that ended.

    Args: words: who listens, where that matters when the client leaves in the middle too.
    """
    words = words or Words(patterns)
    exchange = transaction.exchange
    if not exchange.responded:
        exchange.start_response(200, forwardable(response.head.headers))
    async for chunk in response.body():
        words.hear(chunk)
        await exchange.write(chunk)
    return words
