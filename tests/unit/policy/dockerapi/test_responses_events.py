"""Each event reaches only those who may see its object, whole and framed as the engine frames it."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.responses import EventFilter, JsonStream, UnreadableAnswer
from policy.model import Uid
from policy.names import ViewerNames
from tests.fakes.visibility import SetVisibility

ALICES = ViewerNames(Uid(1001))
OWN, OTHER = "a" * 64, "b" * 64
NET, OTHER_NET = "1" * 64, "2" * 64
SEES = SetVisibility(
    containers=frozenset({OWN}),
    volumes=frozenset({"data", "u1001.data"}),
    networks=frozenset({NET}),
    images=frozenset({"sha256:1", "busybox:latest"}),
)


def event(kind: str, action: str, object_id: str, **attributes: str) -> bytes:
    actor = {"ID": object_id, "Attributes": attributes}
    return json.dumps({"Type": kind, "Action": action, "Actor": actor, "time": 1}).encode()


SHOWN = {
    "own container": event("container", "start", OWN, image="busybox", name="web"),
    "own exec": event("container", "exec_start: sh -c 'echo }{'", OWN),
    "own volume": event("volume", "create", "data", driver="local"),
    "own mount": event("volume", "mount", "data", container=OWN),
    "shared network made": event("network", "create", NET, name="lab"),
    "own container joins": event("network", "connect", NET, container=OWN, name="lab"),
    "image by id": event("image", "delete", "sha256:1"),
    "image by tag": event("image", "tag", "sha256:9", name="busybox:latest"),
    "image pulled": event("image", "pull", "busybox:latest", name="busybox"),
}
HIDDEN = {
    "foreign container": event("container", "start", OTHER, name="secret"),
    "foreign exec": event("container", "exec_start: secret", OTHER),
    "forged label": event("container", "start", OTHER, **{"ds01.owner": "me", "container": OWN}),
    "foreign volume": event("volume", "create", "secret"),
    "foreign mount": event("volume", "mount", "data", container=OTHER),
    "foreign network": event("network", "create", OTHER_NET),
    "stranger joins": event("network", "connect", NET, container=OTHER),
    "nameless join": event("network", "connect", NET),
    "own joins foreign": event("network", "connect", OTHER_NET, container=OWN),
    "private image": event("image", "tag", "sha256:9", name="bob/secret:1"),
    "private tag on shared image": event("image", "tag", "sha256:1", name="bob/secret:1"),
    "private pull": event("image", "pull", "bob/secret:1", name="bob/secret"),
    "container prune": event("container", "prune", "", reclaimed="7"),
    "image prune": event("image", "prune", ""),
    "no id": event("container", "start", ""),
} | {
    kind: event(kind, "create", OWN)
    for kind in ("builder", "daemon", "plugin", "service", "node", "secret", "config", "later")
}


@pytest.mark.parametrize("document", SHOWN.values(), ids=SHOWN.keys())
def test_own_events_keep_their_bytes(document: bytes) -> None:
    """What the user may see arrives as the engine wrote it, one message a line."""
    assert EventFilter(SEES).feed(document + b"\n") == document + b"\n"


@pytest.mark.parametrize("document", HIDDEN.values(), ids=HIDDEN.keys())
def test_events_of_others_are_hidden(document: bytes) -> None:
    """Nothing of another's object, of everybody's prune or of the engine's insides is shown."""
    assert EventFilter(SEES).feed(document + b"\n") == b""


def test_the_seal_is_taken_out() -> None:
    """The other labels stay; the seal proves something to ds01 alone."""
    document = event("container", "start", OWN, **{"ds01.owner": "alice", "ds01.seal": "sig"})
    shown = json.loads(EventFilter(SEES).feed(document))
    assert shown["Actor"] == {"ID": OWN, "Attributes": {"ds01.owner": "alice"}}
    assert shown["time"] == 1


@pytest.mark.parametrize(
    "document",
    [
        event("container", "start", OWN, name="u1001.web"),
        event("container", "rename", OWN, name="u1001.api", oldName="/u1001.web"),
        event("network", "connect", NET, name="u1001.lab", container=OWN),
        event("volume", "mount", "u1001.data", container=OWN),
    ],
)
def test_names_are_mapped(document: bytes) -> None:
    """The name inside dockerd does not show."""
    shown = EventFilter(SEES, names=ALICES).feed(document)
    assert shown
    assert b"u1001" not in shown


@pytest.mark.parametrize("document", HIDDEN.values(), ids=HIDDEN.keys())
def test_an_admin_sees_every_event(document: bytes) -> None:
    """Of the engine itself and of everybody, as the engine wrote it."""
    assert EventFilter(SEES, names=ALICES, everything=True).feed(document) == document + b"\n"


def test_json_seq_is_framed_anew() -> None:
    """With json-seq each message has its record separator and line feed, hidden ones leave no trace."""
    own, hidden = SHOWN["own container"], HIDDEN["foreign container"]
    stream = EventFilter(SEES, content_type="application/json-seq; charset=utf-8")
    assert (
        stream.feed(b"\x1e" + own + b"\n\x1e" + hidden + b"\n\x1e" + own + b"\n")
        == (b"\x1e" + own + b"\n") * 2
    )


@pytest.mark.parametrize("junk", [b"null", b"[1]", b"x", b"{}", b'{"Type":"container"}', b"{]", b"\xff"])
def test_anything_but_events_is_refused(junk: bytes) -> None:
    """What is not an event is never passed on."""
    with pytest.raises(UnreadableAnswer):
        EventFilter(SEES).feed(junk)


def test_message_waits_for_its_end() -> None:
    """Half a message is not shown; it goes out with its last byte."""
    document = SHOWN["own container"]
    stream = EventFilter(SEES)
    assert stream.feed(document[:-1]) == b""
    assert stream.feed(document[-1:]) == document + b"\n"


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_oversize_document_is_left_out_and_the_stream_goes_on(size: int) -> None:
    """One user's giant labels do not end another's stream, nor fill memory."""
    stream = JsonStream(max_document_bytes=20)
    giant = b'{"a":"' + b'\\"}{' * 30 + b'"}'
    text = b'{"a":1}' + giant + b'{"b":"}"}'
    documents = [
        document for at in range(0, len(text), size) for document in stream.feed(text[at : at + size])
    ]
    assert documents == [b'{"a":1}', b'{"b":"}"}']
    assert stream.skipped == 1
    assert len(stream._buffer) <= 20


@pytest.mark.parametrize(
    ("kind", "actor", "shown"),
    [
        (
            "container",
            {
                "ID": "c",
                "Attributes": {
                    "image": "ds01.invalid/u1001/app",
                    "imageRef": "ds01.invalid/u1001/app",
                    "name": "u1001.web",
                },
            },
            {"ID": "c", "Attributes": {"image": "app", "imageRef": "app", "name": "web"}},
        ),
        (
            "image",
            {"ID": "sha256:i", "Attributes": {"name": "ds01.invalid/u1001/app:1"}},
            {"ID": "sha256:i", "Attributes": {"name": "app:1"}},
        ),
        (
            "image",
            {"ID": "ds01.invalid/u1001/app:1", "Attributes": {"name": "ds01.invalid/u1001/app"}},
            {"ID": "app:1", "Attributes": {"name": "app"}},
        ),
    ],
)
def test_images_go_by_their_plain_names(
    kind: str, actor: dict[str, object], shown: dict[str, object]
) -> None:
    """In all the places that an event has for them."""
    sees = SetVisibility(
        containers=frozenset({"c"}),
        images=frozenset({"sha256:i", "ds01.invalid/u1001/app:1", "ds01.invalid/u1001/app"}),
    )
    event = {
        "from": "ds01.invalid/u1001/app",
        "id": actor["ID"],
        "Type": kind,
        "Action": "tag",
        "Actor": actor,
    }
    found = json.loads(EventFilter(sees, names=ALICES).feed(json.dumps(event).encode()))
    assert found == {"from": "app", "id": shown["ID"], "Type": kind, "Action": "tag", "Actor": shown}
