"""Laws of the JSON stream: the cuts do not matter."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from policy.dockerapi.responses import EventFilter, JsonStream, UnreadableAnswer
from tests.fakes.visibility import SetVisibility

if TYPE_CHECKING:
    from collections.abc import Iterator

TEXT = st.text(alphabet=st.sampled_from('{}[]"\\,:\n\x1e aé'), max_size=8)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, VALUES, max_size=4)
GAPS = st.sampled_from([b"", b"\n", b"\r\n", b" ", b"\n\x1e"])
CUTS = st.lists(st.integers(min_value=1, max_value=9), max_size=60)


def cut(text: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield text[at : at + size]
        at += size
    yield text[at:]


@given(st.lists(st.tuples(OBJECTS, GAPS), max_size=6), CUTS)
def test_documents_come_out_whole_however_they_are_cut(
    items: list[tuple[dict[str, object], bytes]], sizes: list[int]
) -> None:
    """Braces and quotes in strings, escapes on a cut, gaps or none: the same documents, byte for byte."""
    documents = [json.dumps(value, ensure_ascii=False).encode() for value, _ in items]
    text = b"".join(document + gap for document, (_, gap) in zip(documents, items, strict=True))
    stream = JsonStream()
    assert [document for chunk in cut(text, sizes) for document in stream.feed(chunk)] == documents


@given(st.binary(max_size=60) | st.text(alphabet='{}[]"\\:,1a', max_size=40).map(str.encode), CUTS)
def test_garbage_raises_only_unreadable_answer(text: bytes, sizes: list[int]) -> None:
    """Any bytes give nothing or UnreadableAnswer, and are never shown."""
    stream = EventFilter(SetVisibility())
    with suppress(UnreadableAnswer):
        assert b"".join(stream.feed(chunk) for chunk in cut(text, sizes)) == b""
