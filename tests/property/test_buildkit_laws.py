"""Laws of the BuildKit mediation: whatever bytes come, nothing but a refusal or a confined build comes out."""

from __future__ import annotations

import json

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived
from hypothesis import given
from hypothesis import strategies as st

from buildkit import api_pb2 as pb
from buildkit import messages
from buildkit.framing import BadMessage, Messages
from buildkit.peer import Broken, Peer
from policy.buildkit import names, query
from policy.buildkit import solve as solves
from policy.buildkit.model import Builder, Entry, Solve
from policy.dockerapi.model import MalformedRequest
from policy.grants import Grants, Limits
from policy.model import Uid
from tests.fakes.policy_world import ALICE, BOB

BUILDER = Builder(actor=ALICE, grants=Grants(limits=Limits(shm_bytes=10**9)), cgroup_parent="/ds01/1000")
TEXT = st.text(max_size=12) | st.sampled_from(
    ["dockerfile.v0", "gateway.v0", "cgroup-parent", "cmdline", "source", "context:x", "label:ds01.uid", "shm-size",
     "build-arg:BUILDKIT_SYNTAX", "build-arg:BUILDKIT_CACHE_MOUNT_NS", "local-sessionid:a", "force-network-mode", "host",
     "x:ds01-1001-a", "ds01-1001-a", "docker-image://a", "registry", "moby", "name", "push", "true", "abc", "[]"]
)  # fmt: skip
ATTRS = st.dictionaries(TEXT, TEXT, max_size=4)
ENTRIES = st.lists(st.builds(lambda kind, attrs: Entry(type=kind, attrs=attrs), TEXT, ATTRS), max_size=2).map(
    tuple
)
SOLVES = st.builds(
    lambda ref, session, frontend, attrs, exporters, entitlements, beyond: Solve(
        ref=ref, session=session, frontend=frontend, frontend_attrs=attrs, exporters=exporters,
        entitlements=entitlements, beyond=beyond,
    ),
    TEXT, TEXT, TEXT, ATTRS, ENTRIES, st.lists(TEXT, max_size=1).map(tuple), st.lists(TEXT, max_size=1).map(tuple),
)  # fmt: skip


def confined(solve: Solve) -> bool:
    """What must hold of every build that BuildKit is given."""
    attrs = solve.frontend_attrs
    mine = names.prefix(ALICE.uid)
    sessions = [value for key, value in attrs.items() if key.startswith("local-sessionid:")]
    return (
        solve.frontend in {"", "dockerfile.v0"}
        and not solve.entitlements
        and not solve.beyond
        and (not attrs or attrs["cgroup-parent"] == "/ds01/1000")
        and (not solve.frontend or "cmdline" in attrs)
        and (not attrs or attrs["build-arg:BUILDKIT_CACHE_MOUNT_NS"] == "ds01-1000")
        and "source" not in attrs
        and attrs.get("force-network-mode") != "host"
        and "build-arg:BUILDKIT_SYNTAX" not in attrs
        and all(one.startswith(mine) and ":" not in one for one in (*sessions, solve.session) if one)
        and not any(entry.attrs.get("push", "").lower() in {"true", "1"} for entry in solve.exporters)
    )


@given(SOLVES)
def test_what_is_let_through_is_confined(asked: Solve) -> None:
    """Both messages that ask for a build; a refusal names this rule."""
    for shaped in (solves.shape(asked, BUILDER), solves.shape_bridge(asked, BUILDER)):
        if isinstance(shaped, Solve):
            assert confined(shaped)
        else:
            assert shaped
            assert {reason.rule for reason in shaped} == {"buildkit"}


QUERIES = st.fixed_dictionaries(
    {"version": st.just(("2",)), "session": TEXT.map(lambda text: (text,)), "remote": TEXT.map(lambda text: (text,))},
    optional={
        key: values.map(lambda value: (value,))
        for key, values in {
            "networkmode": TEXT, "target": TEXT, "dockerfile": TEXT, "t": TEXT, "extrahosts": TEXT, "shmsize": TEXT,
            "buildargs": ATTRS.map(json.dumps), "labels": ATTRS.map(json.dumps), "nocache": TEXT, "cgroupparent": TEXT,
            "cachefrom": st.lists(TEXT, max_size=2).map(json.dumps),
            "outputs": st.lists(st.fixed_dictionaries({"Type": TEXT, "Attrs": ATTRS}), max_size=2).map(json.dumps),
        }.items()
    },
)  # fmt: skip


@given(QUERIES)
def test_what_a_query_asks_for_is_confined(asked: dict[str, tuple[str, ...]]) -> None:
    """As what a message asks for: there is no way round by /build."""
    try:
        found = query.read(asked, ref="r1", session="own1", upload="http://buildkit-session/a")
    except MalformedRequest:
        return
    shaped = solves.shape(found, BUILDER) if isinstance(found, Solve) else found
    if isinstance(shaped, Solve):
        assert confined(shaped)
        assert shaped.frontend == "dockerfile.v0"
        assert "cmdline" in shaped.frontend_attrs
        assert shaped.session.startswith(names.prefix(ALICE.uid))
    else:
        assert {reason.rule for reason in shaped} == {"buildkit"}


@given(SOLVES)
def test_shaping_is_a_fixpoint(asked: Solve) -> None:
    """What was written would be let through again, unchanged."""
    shaped = solves.shape(asked, BUILDER)
    if isinstance(shaped, Solve):
        assert solves.shape(shaped, BUILDER) == shaped


@given(st.binary(max_size=200))
def test_any_bytes_are_a_build_or_no_message(data: bytes) -> None:
    """And what is read is written without loss of what was decided."""
    for read in (messages.read_solve, messages.read_bridge_solve):
        try:
            found = read(data)
        except BadMessage:
            continue
        shaped = solves.shape(found, BUILDER)
        if isinstance(shaped, Solve):
            again = messages.read_solve(messages.write_solve(shaped))
            assert confined(again)
            assert again.ref == shaped.ref


@given(st.lists(st.tuples(st.integers(1, 20), st.binary(max_size=20)), max_size=5))
def test_unknown_fields_never_reach_dockerd(fields: list[tuple[int, bytes]]) -> None:
    """Whatever is appended to a fine message is refused, or known and decided."""
    data = pb.SolveRequest(Ref="abc").SerializeToString()
    for number, value in fields:
        data += bytes([(number << 3 | 2) & 0x7F | (0x80 if number > 15 else 0)])
        data += bytes([number >> 4]) if number > 15 else b""
        data += bytes([len(value)]) + value
    try:
        shaped = solves.shape(messages.read_solve(data), BUILDER)
    except BadMessage:
        return
    if isinstance(shaped, Solve):
        assert confined(shaped)


@given(st.text(max_size=30), st.text(max_size=30))
def test_names_of_two_users_never_meet(one: str, other: str) -> None:
    """Whatever they call their things."""
    assert names.own(ALICE.uid, one) != names.own(BOB.uid, other)
    assert names.shown(BOB.uid, names.own(ALICE.uid, one)) is None


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_no_prefix_begins_with_anothers(one: int, other: int) -> None:
    """Numbers that begin alike too."""
    if one != other:
        assert not names.prefix(Uid(one)).startswith(names.prefix(Uid(other)))


@given(st.lists(st.binary(max_size=40), max_size=6))
def test_any_bytes_on_a_new_connection(pieces: list[bytes]) -> None:
    """Events or Broken, nothing else."""
    peer = Peer(client_side=False)
    try:
        for piece in pieces:
            peer.receive(piece)
            peer.take()
    except Broken:
        return


@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)),
        max_size=8,
    )
)
def test_any_frames_on_a_living_connection(frames: list[tuple[int, int, int, bytes]]) -> None:
    """Of any kind, with any flags, on any stream."""
    peer = Peer(client_side=False)
    client = H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, [(":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "x")])
    try:
        peer.receive(client.data_to_send())
        peer.accept(1)
        peer.send_headers(1, [(":status", "200")])
        peer.send(1, b"x" * 1000)
        for kind, flags, stream, data in frames:
            head = len(data).to_bytes(3, "big") + bytes([kind, flags]) + stream.to_bytes(4, "big")
            peer.receive(head + data)
            peer.finish(1)
            peer.take()
    except Broken:
        return


@given(
    st.lists(
        st.tuples(st.integers(0, 10), st.integers(0, 255), st.integers(0, 5), st.binary(max_size=40)),
        max_size=8,
    )
)
def test_any_frames_from_who_is_asked(frames: list[tuple[int, int, int, bytes]]) -> None:
    """A session's client, that answers calls or does not."""
    peer = Peer(client_side=True)
    try:
        stream = peer.open(((":method", "POST"), (":scheme", "http"), (":path", "/a"), (":authority", "x")))
        peer.send(stream, b"x" * 1000)
        peer.take()
        for kind, flags, number, data in frames:
            head = len(data).to_bytes(3, "big") + bytes([kind, flags]) + number.to_bytes(4, "big")
            for event in peer.receive(head + data):
                if isinstance(event, DataReceived):
                    peer.acknowledge(event.stream_id, event.flow_controlled_length)
            peer.finish(stream)
            peer.take()
    except Broken:
        return


@given(st.binary(max_size=100))
def test_any_bytes_are_messages_or_bad(data: bytes) -> None:
    """However they are cut, the messages are the same."""

    def read(size: int) -> list[bytes] | None:
        messages_ = Messages(50)
        try:
            return [one for at in range(0, len(data), size) for one in messages_.feed(data[at : at + size])]
        except BadMessage:
            return None

    assert read(1) == read(7) or None in (read(1), read(7))
