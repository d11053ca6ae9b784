"""Error texts name nobody else's objects, and absent looks like foreign."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.responses import UnreadableAnswer, error, message, not_found, scrub, taken
from policy.model import Kind, Uid
from policy.names import ViewerNames
from tests.fakes.visibility import SetVisibility

OWN, OTHER = "a1" * 32, "b2" * 32
SEES = SetVisibility(containers=frozenset({OWN}), own_networks=frozenset({"c3" * 32}))

# Each as dockerd 20.10.24 prints it, the overlap and endpoint ones as 24 and 28 do.
TEXTS = [
    'Conflict. The container name "/web" is already in use by container "{full}". You have to remove (or rename) that container to be able to reuse that name.',
    "remove v1: volume is in use - [{full}]",
    'conflict: unable to remove repository reference "b2" (must force) - container {short} is using it',
    "conflict: unable to delete b2 (cannot be forced) - image is being used by running container {short}",
    "error while removing network: network n1 id {full} has active endpoints",
    "cannot create network {full} (br-{short}): conflicts with network {full} (br-{short}): overlapping IPv4",
    "container {full} is not connected to the network o1",
    'network n1 has active endpoints (name:"web" id:"{short}")',
]


@pytest.mark.parametrize("text", TEXTS)
def test_foreign_ids_are_replaced(text: str) -> None:
    """Neither the full nor the short id of another's object remains."""
    shown = scrub(text.format(full=OTHER, short=OTHER[:12]), SEES)
    assert OTHER[:12] not in shown
    assert "(not yours)" in shown


@pytest.mark.parametrize("text", TEXTS)
def test_own_ids_stay(text: str) -> None:
    """The user needs the id of an own container to act."""
    text = text.format(full=OWN, short=OWN[:12])
    assert scrub(text, SEES) == text


def test_foreign_endpoint_name_goes_with_its_id() -> None:
    """Engines from 28 name the containers on a network."""
    shown = scrub(f'has active endpoints (name:"secret" id:"{OTHER[:12]}", name:"web" id:"{OWN[:12]}")', SEES)
    assert shown == f'has active endpoints (container (not yours), name:"web" id:"{OWN[:12]}")'


def test_ids_the_user_named_stay() -> None:
    """An id the user wrote is no news to the user, in either length."""
    text = f"unable to delete {OTHER[:12]}: {OTHER}"
    assert scrub(text, SetVisibility(), kept=frozenset({f"busybox@sha256:{OTHER}"})) == text


def test_the_end_of_a_gpus_uuid_is_no_id() -> None:
    """An engine that cannot hand over a GPU names it, and the user needs the whole name."""
    text = "unresolvable CDI devices nvidia.com/gpu=GPU-c033b0a9-0d8f-5833-9262-115d494191f3"
    assert scrub(text, SetVisibility()) == text


def test_an_empty_kept_id_keeps_nothing() -> None:
    """A short or empty `kept` is not a prefix of everything."""
    assert OTHER not in scrub(OTHER, SetVisibility(), kept=frozenset({"", OTHER[:4]}))


def test_error_body_is_rewritten() -> None:
    """The 409 for a taken name arrives in Docker's form without the other's id."""
    body = json.dumps({"message": TEXTS[0].format(full=OTHER)}).encode() + b"\n"
    assert json.loads(error(body, SEES)) == {"message": TEXTS[0].format(full="(not yours)")}


def test_own_names_are_plain_and_others_taken_out() -> None:
    """In every text of dockerd's."""
    text = f'endpoint u1001.web exists in u1001.net, so does u1002.web (name:"u1001.web" id:"{OWN[:12]}")'
    assert scrub(text, SEES, names=ViewerNames(Uid(1001))) == (
        f'endpoint web exists in net, so does (not yours) (name:"web" id:"{OWN[:12]}")'
    )


@pytest.mark.parametrize("kind", [Kind.CONTAINER, Kind.NETWORK])
def test_a_taken_name_speaks_dockerds_words(kind: Kind) -> None:
    """409, and for a container its own id, by which it can be removed."""
    status, text = taken(kind, "web", OWN)
    assert status == 409
    assert text == (
        TEXTS[0].format(full=OWN) if kind is Kind.CONTAINER else "network with name web already exists"
    )


@pytest.mark.parametrize("body", [b"", b"oops", b"{}", b'{"message":1}', b'["message"]'])
def test_error_of_another_shape_is_refused(body: bytes) -> None:
    """What is not the engine's form of an error is never passed on."""
    with pytest.raises(UnreadableAnswer):
        error(body, SEES)


def test_message_is_written_as_dockerd_writes_it() -> None:
    """One JSON object and a line end."""
    assert message('say "no"') == b'{"message":"say \\"no\\""}\n'


@pytest.mark.parametrize(
    ("kind", "text", "words"),
    [
        (Kind.CONTAINER, "x", "No such container: x"),
        (Kind.EXEC, "x", "No such exec instance: x"),
        (Kind.VOLUME, "x", "get x: no such volume"),
        (Kind.NETWORK, "x", "network x not found"),
        (Kind.IMAGE, "x", "No such image: x:latest"),
        (Kind.IMAGE, "x:1", "No such image: x:1"),
        (Kind.IMAGE, "docker.io/library/x:1", "No such image: x:1"),
        (Kind.IMAGE, "reg:5000/x", "No such image: reg:5000/x:latest"),
        (Kind.IMAGE, "x@sha256:" + OTHER, "No such image: x@sha256:" + OTHER),
        (Kind.IMAGE, OTHER, "No such image: sha256:" + OTHER),
        (Kind.IMAGE, "sha256:" + OTHER, "No such image: sha256:" + OTHER),
    ],
)
def test_not_found_speaks_dockerds_words(kind: Kind, text: str, words: str) -> None:
    """404 and the text dockerd 20.10.24 prints for what does not exist."""
    assert not_found(kind, text) == (404, words)
