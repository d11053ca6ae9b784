"""How a call ends."""

from __future__ import annotations

from buildkit.status import MESSAGE_CHARS, OK, Code, Status, trailers


def test_good_ends_have_no_words() -> None:
    """Only the code."""
    assert trailers(OK) == (("grpc-status", "0"),)


def test_words_are_encoded() -> None:
    """What a header cannot hold is percent-encoded, and the percent sign too."""
    ended = dict(trailers(Status(code=Code.PERMISSION_DENIED, message="100% ü\n")))
    assert ended == {"grpc-status": "7", "grpc-message": "100%25 %C3%BC%0A"}


def test_words_are_bounded() -> None:
    """A header is no place for a book."""
    ended = dict(trailers(Status(code=Code.INTERNAL, message="x" * 10_000)))
    assert len(ended["grpc-message"]) == MESSAGE_CHARS
