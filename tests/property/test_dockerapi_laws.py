"""Laws of the canonical form: one reading, one writing, and refusal of everything between."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.dockerapi import bodies
from policy.dockerapi.bind import bind
from policy.dockerapi.model import (
    Incoming,
    MalformedRequest,
    Operation,
    Outgoing,
    Request,
    UnknownField,
    UnknownRoute,
)
from policy.dockerapi.read import read
from policy.dockerapi.routes import ROUTES
from policy.dockerapi.write import write
from policy.facts import needed
from policy.model import EngineFacts, Facts, Kind, ObjectFact, Uid
from policy.names import real
from tests.property.strategies import incomings, structs

ENGINE_MAX = (1, 41)
UID = Uid(1001)
CREATES = structs(bodies.CONTAINER_CREATE)
HEADERS = ("content-type", "application/json")
ENGINE = EngineFacts(
    engine_id="e",
    version="20.10.24",
    api_version=ENGINE_MAX,
    min_api_version=(1, 12),
    cgroup_driver="cgroupfs",
    cgroup_version=1,
    gpu_path="hook",
)


def again(outgoing: Outgoing) -> Request:
    """What the plugin reads of what the proxy wrote."""
    incoming = Incoming(
        method=outgoing.method, target=outgoing.target, headers=outgoing.headers, body=outgoing.body
    )
    return read(incoming, engine_max=ENGINE_MAX)


def assume_empty_name(refused: MalformedRequest) -> None:
    """A well-formed request is refused for one reason only: a reference in it is an empty string."""
    assert "by an empty name" in str(refused)


def create(body: bytes) -> Request:
    target = "/v1.41/containers/create"
    return read(Incoming(method="POST", target=target, headers=(HEADERS,), body=body), engine_max=ENGINE_MAX)


@settings(max_examples=300, deadline=None)
@given(incomings())
def test_what_is_written_reads_back_the_same(incoming: Incoming) -> None:
    """read(write(r)) == r for a request of every row, and the bytes are a fixpoint."""
    try:
        request = read(incoming, engine_max=ENGINE_MAX)
    except MalformedRequest as refused:
        assume_empty_name(refused)
        return
    outgoing = write(request)
    assert again(outgoing) == request
    assert write(again(outgoing)) == outgoing


@settings(max_examples=200, deadline=None)
@given(
    st.sampled_from(["GET", "POST", "PUT", "HEAD", "DELETE"]) | st.text(max_size=5),
    st.text(max_size=40)
    | st.builds(
        "/v1.41{}?{}".format, st.sampled_from([route.template for route in ROUTES]), st.text(max_size=20)
    ),
    st.lists(
        st.tuples(
            st.sampled_from(["content-type", "upgrade", "x-registry-auth", "accept"]), st.text(max_size=20)
        ),
        max_size=3,
    ),
    st.none() | st.binary(max_size=60),
)
def test_any_head_and_body_give_a_request_or_a_refusal(
    method: str, target: str, headers: list[tuple[str, str]], body: bytes | None
) -> None:
    """Whatever the bytes are, nothing but a request or one of the three refusals comes out."""
    incoming = Incoming(method=method, target=target, headers=tuple(headers), body=body)
    try:
        request = read(incoming, engine_max=ENGINE_MAX)
    except (MalformedRequest, UnknownRoute, UnknownField):
        return
    assert again(write(request)) == request


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["HostConfig", "Mounts", "Labels", "hostconfig", "x"]), inner, max_size=3
            )
        ),
        max_leaves=12,
    )
)
def test_any_json_gives_a_create_or_a_refusal(value: Any) -> None:
    """JSON of any shape gives a create with an explicit HostConfig, or one of two refusals."""
    try:
        request = create(json.dumps(value).encode())
    except (MalformedRequest, UnknownField):
        return
    assert isinstance(dict(request.body or {})["HostConfig"], dict)


@settings(max_examples=150, deadline=None)
@given(CREATES, st.randoms(use_true_random=False))
def test_order_and_blanks_change_nothing(body: dict[str, Any], random: Any) -> None:
    """The same members in another order and with other blanks are the same request."""
    shuffled = list(body.items())
    random.shuffle(shuffled)
    blanks = json.dumps(dict(shuffled), indent=2, ensure_ascii=False).encode()
    try:
        expected = create(json.dumps(body).encode())
    except MalformedRequest as refused:
        assume_empty_name(refused)
        return
    assert create(blanks + b"\n ") == expected


def fold(name: str, how: int) -> str:
    """Another spelling that Go's decoder takes for the same key."""
    spelled = (name.lower(), name.upper(), name.replace("s", "\u017f"), name.replace("k", "\u212a"))
    return spelled[how % len(spelled)]


@settings(max_examples=150, deadline=None)
@given(CREATES, st.integers(min_value=0, max_value=3))
def test_another_spelling_of_a_key_is_refused(body: dict[str, Any], how: int) -> None:
    """A respelled key, alone or beside the right one, never passes and never changes the meaning."""
    for name in body:
        respelled = fold(name, how)
        if respelled == name:
            continue
        alone = {fold(key, how) if key == name else key: value for key, value in body.items()}
        for spoiled in (alone, {**body, respelled: None}):
            try:
                create(json.dumps(spoiled).encode())
            except MalformedRequest:
                continue
            raise AssertionError(respelled)


@settings(max_examples=150, deadline=None)
@given(CREATES, st.sampled_from([b"x", b"{}", b"\0", b",", b"]"]))
def test_a_repeated_key_or_a_tail_is_refused(body: dict[str, Any], tail: bytes) -> None:
    """dockerd merges the one and ignores the other."""
    text = json.dumps(body).encode()
    spoiled = [text + tail] + [text[:-1] + b"," + json.dumps(name).encode() + b":null}" for name in body]
    for attempt in spoiled:
        try:
            create(attempt)
        except MalformedRequest:
            continue
        raise AssertionError(attempt)


@settings(max_examples=300, deadline=None)
@given(incomings())
def test_binding_leaves_no_name_behind(incoming: Incoming) -> None:
    """After binding, every reference but an image's is the id of its fact, or a new name in the actor's namespace."""
    try:
        request = read(incoming, engine_max=ENGINE_MAX)
    except MalformedRequest as refused:
        assume_empty_name(refused)
        return
    references = needed(request)
    ids = {
        reference: f"{hash(reference) & 2**64 - 1:064x}"
        for reference in references
        if reference.kind is not Kind.IMAGE
    }
    objects = {
        reference: ObjectFact(kind=reference.kind, id=ids[reference], owner=None)
        if reference in ids
        else None
        for reference in references
    }
    bound = bind(request, Facts(engine=ENGINE, objects=objects), uid=UID)
    renamed = (
        request.operation is Operation.CONTAINER_RENAME
    )  # of what is nobody's: the name is taken as it is
    expected = {
        (reference.text if renamed else real(UID, reference.text))
        if reference.new and reference.kind is not Kind.VOLUME
        else ids[reference]
        for reference in ids
    }
    assert {reference.text for reference in needed(bound) if reference.kind is not Kind.IMAGE} == expected
    if "path" not in bound.params:
        assert again(write(bound)) == bound
