"""What dockerd says while it works, told from what a build step prints."""

from __future__ import annotations

import json

import pytest

from socket_proxy.image_words import BUILT, BUILT_QUIETLY, IMPORTED, LOADED, STEP, PlainNames, Words

ID = "sha256:" + "a" * 64


def heard(*messages: object, pieces: int = 1 << 20) -> Words:
    """Messages as dockerd writes them, in pieces of so many bytes."""
    words = Words((BUILT, BUILT_QUIETLY, IMPORTED, LOADED, STEP))
    # Go escapes < and > in JSON, and ends each message so.
    text = "".join(
        json.dumps(each, separators=(",", ":")).replace(">", "\\u003e") + "\r\n" for each in messages
    )
    data = text.encode()
    for start in range(0, len(data), pieces):
        words.hear(data[start : start + pieces])
    return words


@pytest.mark.parametrize("pieces", [1, 7, 100, 1 << 20])
def test_every_kind_of_id_is_heard(pieces: int) -> None:
    """However the stream falls into pieces."""
    words = heard(
        {"stream": "Step 1/1 : FROM a"},
        {"stream": " ---> 0123456789ab\n"},
        {"aux": {"ID": ID}},
        {"status": ID},
        {"stream": f"Loaded image ID: {ID}\n"},
        pieces=pieces,
    )
    assert [words.found(each) for each in (BUILT, IMPORTED, LOADED)] == [(ID,)] * 3
    assert words.found(STEP) == ("0123456789ab",)
    assert not words.failed


def test_a_build_step_cannot_claim_an_image() -> None:
    """What it prints stands in quotes of dockerd's."""
    words = heard({"stream": '{"aux":{"ID":"' + ID + '"}}\n'}, {"stream": '"errorDetail":{"message":"x"}\n'})
    assert words.found(BUILT) == ()
    assert not words.failed


def test_a_failure_is_heard() -> None:
    """dockerd answers 200 before it knows."""
    assert heard({"errorDetail": {"message": "x"}, "error": "x"}, pieces=5).failed


OWN = "ds01.invalid/u1001/"


@pytest.mark.parametrize("pieces", [1, 2, 5, 19, 1 << 20])
def test_names_are_plain_wherever_the_stream_is_cut(pieces: int) -> None:
    """And an id that ds01 wrote for a name is that name; nothing is lost of what only begins like one."""
    text = (
        f"Step 1/2 : FROM {ID} AS x\nCOPY --from={ID} / /\ntagged {OWN}app:1\nID {ID[:-1]}b\n"
        f"ds01.invalid/u1002/x ds01.inv ds01.invalid/u100{OWN}{OWN}b\nends in ds01.invalid/u"
    ).encode()
    names = PlainNames({OWN: "", f" {ID}": " base", f"={ID}": "=base"})
    found = b"".join(names.feed(text[at : at + pieces]) for at in range(0, len(text), pieces)) + names.close()
    assert found.decode() == (
        f"Step 1/2 : FROM base AS x\nCOPY --from=base / /\ntagged app:1\nID {ID[:-1]}b\n"
        "ds01.invalid/u1002/x ds01.inv ds01.invalid/u100b\nends in ds01.invalid/u"
    )


def test_a_whole_message_does_not_wait() -> None:
    """A line end begins no name."""
    assert PlainNames({OWN: ""}).feed(b'{"stream":"x"}\r\n') == b'{"stream":"x"}\r\n'
