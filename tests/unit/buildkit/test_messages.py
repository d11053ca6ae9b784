"""BuildKit's messages, read into values and written afresh."""

from __future__ import annotations

import pytest

from buildkit import api_pb2 as pb
from buildkit import messages
from buildkit.framing import BadMessage
from policy import fetches
from policy.buildkit.model import Entry, Solve

UNKNOWN = b"\x9a\x06\x01x"  # field 99, one byte
WHOLE = Solve(
    ref="abc",
    session="s",
    frontend="dockerfile.v0",
    frontend_attrs={"a": "1", "b": ""},
    exporters=(Entry(type="moby", attrs={"name": "x"}), Entry(type="local", attrs={"dest": "y"})),
    cache_imports=(Entry(type="local", attrs={"src": "z"}),),
    cache_exports=(Entry(type="inline"),),
    internal=True,
)


def without_policy(solve: Solve) -> bytes:
    """What is written, but for the source policy, which is ds01's own; of no images it denies the local names."""
    written = pb.SolveRequest.FromString(messages.write_solve(solve))
    first = pb.SourcePolicy.FromString(written.SourcePolicy).rules[0]
    assert (first.action, first.selector.identifier) == (1, "docker-image://ds01.invalid*")
    written.SourcePolicy = b""
    return written.SerializeToString()


def test_what_is_written_is_what_is_read() -> None:
    """The two are one another's inverse for all that ds01 writes."""
    assert messages.read_solve(without_policy(WHOLE)) == WHOLE
    assert messages.read_solve(without_policy(Solve())) == Solve()


def test_field_numbers_are_buildkits() -> None:
    """A wrong number would be another field of dockerd's."""
    numbers = {field.name: field.number for field in pb.SolveRequest.DESCRIPTOR.fields}
    assert numbers == {
        "Ref": 1, "Definition": 2, "ExporterDeprecated": 3, "ExporterAttrsDeprecated": 4, "Session": 5, "Frontend": 6,
        "FrontendAttrs": 7, "Cache": 8, "Entitlements": 9, "FrontendInputs": 10, "Internal": 11, "SourcePolicy": 12,
        "Exporters": 13, "EnableSessionExporter": 14, "SourcePolicySession": 15, "CompatibilityVersion": 16,
    }  # fmt: skip
    bridge = {field.name: field.number for field in pb.BridgeSolveRequest.DESCRIPTOR.fields}
    assert bridge == {
        "Definition": 1, "Frontend": 2, "FrontendOpt": 3, "ImportCacheRefsDeprecated": 4, "allowResultReturn": 5,
        "allowResultArrayRef": 6, "Final": 10, "ExporterAttr": 11, "CacheImports": 12, "FrontendInputs": 13, "Evaluate": 14,
        "SourcePolicies": 15,
    }  # fmt: skip


def test_old_fields_mean_the_same() -> None:
    """One exporter, and caches in registries, as older clients write them."""
    old = pb.SolveRequest(
        ExporterDeprecated="moby",
        ExporterAttrsDeprecated={"name": "x"},
        Cache=pb.CacheOptions(
            ExportRefDeprecated="r/e", ExportAttrsDeprecated={"mode": "max"}, ImportRefsDeprecated=["r/i"]
        ),
    )
    found = messages.read_solve(old.SerializeToString())
    assert found.exporters == (Entry(type="moby", attrs={"name": "x"}),)
    assert found.cache_exports == (Entry(type="registry", attrs={"mode": "max", "ref": "r/e"}),)
    assert found.cache_imports == (Entry(type="registry", attrs={"ref": "r/i"}),)


def test_a_second_exporter_in_old_fields_is_not_taken() -> None:
    """BuildKit reads the old ones only where there are no new ones; both are written from what was decided."""
    both = pb.SolveRequest(
        ExporterDeprecated="image", ExporterAttrsDeprecated={"name": "his"}, Exporters=[pb.Entry(Type="moby")]
    )
    written = pb.SolveRequest.FromString(messages.write_solve(messages.read_solve(both.SerializeToString())))
    assert written.ExporterDeprecated == "moby"
    assert not written.ExporterAttrsDeprecated


@pytest.mark.parametrize(
    ("message", "beyond"),
    [
        (pb.SolveRequest(Definition=b"\x0a\x00"), "Definition"),
        (pb.SolveRequest(FrontendInputs={"": b""}), "FrontendInputs"),
        (pb.SolveRequest(SourcePolicy=b"\x08\x01"), "SourcePolicy"),
        (pb.SolveRequest(SourcePolicySession="x"), "SourcePolicySession"),
        (pb.SolveRequest(EnableSessionExporter=True), "EnableSessionExporter"),
    ],
)
def test_graphs_and_policies_are_noticed(message: pb.SolveRequest, beyond: str) -> None:
    """And never written."""
    found = messages.read_solve(message.SerializeToString())
    assert found.beyond == (beyond,)
    assert without_policy(found) == b"B\x00"  # an empty Cache


def test_a_field_given_twice_is_written_once() -> None:
    """Whichever of two another reader takes: dockerd gets one."""
    twice = pb.SolveRequest(Ref="a").SerializeToString() + pb.SolveRequest(Ref="b").SerializeToString()
    assert without_policy(messages.read_solve(twice)) == b"\n\x01bB\x00"


@pytest.mark.parametrize(
    "message",
    [
        pytest.param(UNKNOWN, id="on-top"),
        pytest.param(b"\x42" + bytes([len(UNKNOWN)]) + UNKNOWN, id="in-the-cache"),
        pytest.param(b"\x6a" + bytes([len(UNKNOWN)]) + UNKNOWN, id="in-an-exporter"),
        pytest.param(b"\x42\x06\x22\x04" + UNKNOWN, id="in-a-cache-entry"),
        pytest.param(b"\xff\xff\xff", id="no-protobuf"),
        pytest.param(b"\x0a\x02\xff\xff", id="no-utf8"),
    ],
)
def test_unknown_fields_and_noise_are_refused(message: bytes) -> None:
    """Wherever they stand."""
    with pytest.raises(BadMessage):
        messages.read_solve(message)


def test_a_bridges_solve() -> None:
    """What is decided is written; how the result is given back is the client's choice."""
    asked = pb.BridgeSolveRequest(
        Frontend="dockerfile.v0",
        FrontendOpt={"a": "b"},
        allowResultReturn=True,
        Evaluate=True,
        ImportCacheRefsDeprecated=["r"],
        CacheImports=[pb.Entry(Type="inline")],
    ).SerializeToString()
    found = messages.read_bridge_solve(asked)
    assert [one.type for one in found.cache_imports] == ["inline", "registry"]
    written = pb.BridgeSolveRequest.FromString(messages.write_bridge_solve(found, asked))
    assert written.allowResultReturn
    assert written.Evaluate
    assert not written.allowResultArrayRef
    assert not written.ImportCacheRefsDeprecated
    graph = pb.BridgeSolveRequest(Definition=b"x", FrontendInputs={"a": b""}, SourcePolicies=[b""])
    assert messages.read_bridge_solve(graph.SerializeToString()).beyond == (
        "Definition",
        "FrontendInputs",
        "SourcePolicies",
    )


def test_which_images_were_made() -> None:
    """By either of the two keys, each once."""
    made = {"containerimage.digest": "sha256:a", "containerimage.config.digest": "sha256:b", "other": "c"}
    assert messages.image_ids(pb.SolveResponse(ExporterResponse=made).SerializeToString()) == (
        "sha256:a",
        "sha256:b",
    )
    assert messages.image_ids(b"") == ()


def test_what_a_record_names() -> None:
    """Logs, trace, results and attestations, old and new."""
    record = pb.BuildHistoryRecord(
        logs=pb.Descriptor(digest="l"),
        Result=pb.BuildResultInfo(ResultDeprecated=pb.Descriptor(digest="r")),
        Results={
            "x": pb.BuildResultInfo(
                Attestations=[pb.Descriptor(digest="a")], Results={1: pb.Descriptor(digest="s")}
            )
        },
    )
    assert messages.digests(record) == ("l", "r", "a", "s")
    assert messages.digests(pb.BuildHistoryRecord()) == ()


def test_answers_keep_what_is_not_known() -> None:
    """They come from dockerd, whose version may be newer than ds01."""
    message = pb.BuildHistoryEvent(record=pb.BuildHistoryRecord(Ref="a")).SerializeToString() + UNKNOWN
    assert UNKNOWN in messages.write(messages.read_answer(pb.BuildHistoryEvent, message))


def test_what_may_be_fetched_is_said_to_buildkit() -> None:
    """In both messages, as patterns whose last match counts."""
    solve = Solve(frontend="dockerfile.v0", fetch_hosts=frozenset({"*", "files.lab"}))
    policies = [
        pb.SolveRequest.FromString(messages.write_solve(solve)).SourcePolicy,
        *pb.BridgeSolveRequest.FromString(messages.write_bridge_solve(solve, b"")).SourcePolicies,
    ]
    assert len(policies) == 2
    expected = [(0 if one.allow else 1, one.pattern, 2) for one in fetches.rules(solve.fetch_hosts)]
    for policy in policies:
        rules = pb.SourcePolicy.FromString(policy).rules
        found = [(rule.action, rule.selector.identifier, rule.selector.match_type) for rule in rules]
        assert found == [(1, "docker-image://ds01.invalid*", 0), *expected]
