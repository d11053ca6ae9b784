"""What becomes of each call of one user."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from buildkit import api_pb2 as pb
from buildkit import messages
from buildkit.framing import BadMessage
from buildkit.mediation import BUILD_ID, Mediation
from buildkit.seen import SeenContent
from buildkit.status import Code, Headers
from buildkit.verdicts import Answer, Call, Forward, Refuse, Verdict
from policy.buildkit.methods import BRIDGE, CONTENT, CONTROL, HANDLING, INSTEAD, Handling
from policy.buildkit.model import Builder, Images
from policy.grants import Builds, Grants, Role
from policy.model import Reason, RequestId, Uid
from tests.fakes.policy_world import ALICE

REF = "uhhnbth2jyll6yzzjhfa4i8iq"
OWN = f"ds01-1000-{REF}"
FOREIGN = pb.BuildHistoryEvent(record=pb.BuildHistoryRecord(Ref=f"ds01-1001-{REF}"))


@dataclass
class World:
    """Tags, a trail and an engine in memory; one user's mediation."""

    everything: bool = False
    taken: list[str] = field(default_factory=list)
    held: list[str] = field(default_factory=list)
    made: list[tuple[tuple[str, ...], tuple[str, ...]]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)
    audit_fails: bool = False
    usage: list[pb.UsageRecord] = field(default_factory=list)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    confined: list[str] = field(default_factory=list)
    unconfined: bool = False
    private: tuple[str, ...] = ()
    local: dict[str, str] = field(default_factory=dict)
    builds: Builds = Builds.MEDIATED
    role: Role = Role.USER
    seen: SeenContent = field(default_factory=SeenContent)

    async def reserve(self, tags: tuple[str, ...]) -> Reason | None:
        for tag in tags:
            if tag in self.taken:
                return Reason(
                    rule="ownership", field="image", asked=tag, limit="own", next_step="choose another"
                )
        self.held += tags
        return None

    def release(self, tags: tuple[str, ...]) -> None:
        for tag in tags:
            self.held.remove(tag)

    def built(self, tags: tuple[str, ...], image_ids: tuple[str, ...]) -> None:
        self.made.append((tags, image_ids))

    def allowed(self, path: str, detail: dict[str, object]) -> None:
        del detail
        if self.audit_fails:
            raise OSError("disk full")
        self.lines.append(f"allow {path}")

    def refused(self, path: str, status: int, message: str, rules: tuple[str, ...]) -> RequestId:
        del status, message
        self.lines.append(f"refuse {path} {','.join(rules)}")
        return RequestId("abc123abc123")

    async def ask(self, path: str, message: bytes, metadata: Headers = ()) -> tuple[bytes, ...]:
        del metadata
        self.asked.append((path, message))
        return (pb.DiskUsageResponse(record=self.usage).SerializeToString(),)

    async def readable(self) -> Images:
        return Images(local=self.local, hidden=self.private)

    async def confine(self, builder: Builder) -> None:
        if self.unconfined:
            raise OSError("no cgroups here")
        self.confined.append(builder.cgroup_parent)

    def mediation(self) -> Mediation:
        builder = Builder(
            actor=ALICE,
            grants=Grants(role=Role.ADMIN if self.everything else self.role, builds=self.builds),
            cgroup_parent="/ds01/1000",
        )
        return Mediation(
            builder=lambda: builder,
            confine=self.confine,
            images=self,
            tags=self,
            trail=self,
            seen=self.seen,
        )

    def decide(self, path: str, message: bytes = b"", metadata: Headers = ()) -> Verdict:
        return asyncio.run(
            self.mediation().decide(Call(path=path, metadata=metadata, message=message), self.ask)
        )


def solve(*names: str, **fields: object) -> bytes:
    exporters = [pb.Entry(Type="moby", Attrs={"name": ",".join(names)})] if names else []
    request = pb.SolveRequest(Ref=REF, Session="s1", Exporters=exporters)
    for name, value in fields.items():
        setattr(request, name, value)
    return request.SerializeToString()


def forwarded(verdict: Verdict) -> Forward:
    assert isinstance(verdict, Forward), verdict
    return verdict


def refused(verdict: Verdict, code: Code = Code.PERMISSION_DENIED) -> str:
    assert isinstance(verdict, Refuse), verdict
    assert verdict.status.code is code
    return verdict.status.message


def shaped(verdict: Verdict, message: bytes) -> bytes | None:
    forward = forwarded(verdict)
    assert forward.reshape is not None
    return forward.reshape(message)


# --- methods ---


@pytest.mark.parametrize(
    "path", [*INSTEAD, f"{CONTENT}/Write", "/moby.buildkit.v2.Control/Solve", "", "/x", f"{CONTROL}/solve"]
)
def test_what_is_not_in_the_table_is_refused_with_what_to_use(path: str) -> None:
    """Before its message has come."""
    world = World()
    refusal = world.mediation().known(path)
    assert refusal is not None
    text = refused(refusal, Code.UNIMPLEMENTED)
    assert INSTEAD.get(path, "docker buildx build") in text
    assert "rule buildkit" in text
    assert "ds01 explain abc123abc123" in text


@pytest.mark.parametrize("path", HANDLING)
def test_what_is_in_the_table_is_decided(path: str) -> None:
    """Any bytes give a verdict or BadMessage, and noise is never forwarded where it would be read."""
    assert World().mediation().known(path) is None
    for noise in (b"\xff" * 20, b"\x9a\x06\x01x"):
        try:
            World().decide(path, noise, ((BUILD_ID, REF),))
        except BadMessage:
            continue
        handling = HANDLING[path]
        assert handling in {Handling.PASS, Handling.SWALLOW, Handling.BRIDGE}


def test_spans_are_taken_and_not_passed_on() -> None:
    """They would stand in another's trace."""
    verdict = World().decide("/opentelemetry.proto.collector.trace.v1.TraceService/Export", b"spans")
    assert verdict == Answer(messages=(b"",))


def test_only_a_timeout_goes_on_of_the_metadata() -> None:
    """If it is one."""
    verdict = forwarded(World().decide(f"{CONTROL}/Info", b"", (("grpc-timeout", "5S"), ("x", "y"))))
    assert verdict.metadata == (("grpc-timeout", "5S"),)
    for bad in ((("grpc-timeout", "5 S"),), (("grpc-timeout", "1S"), ("grpc-timeout", "2S"))):
        assert forwarded(World().decide(f"{CONTROL}/Info", b"", bad)).metadata == ()


# --- builds ---


def test_a_build_is_written_with_its_user_in_its_names() -> None:
    """Its tags are held until it is over, and recorded when it has succeeded."""
    world = World()
    verdict = forwarded(world.decide(f"{CONTROL}/Solve", solve("a", "b")))
    sent = pb.SolveRequest.FromString(verdict.message)
    assert (sent.Ref, sent.Session) == (OWN, "ds01-1000-s1")
    assert world.held == ["a", "b"]
    assert world.lines == [f"allow {CONTROL}/Solve"]
    answer = pb.SolveResponse(ExporterResponse={"containerimage.digest": "sha256:1"}).SerializeToString()
    assert shaped(verdict, answer) == answer
    assert world.made == [(("a", "b"), ("sha256:1",))]
    assert verdict.ended is not None
    verdict.ended()
    assert world.held == []


def test_a_build_goes_on_only_within_limits() -> None:
    """They are set before each message that starts something; where they cannot be, nothing does, and no tag is held."""
    bridge = pb.BridgeSolveRequest(Frontend="dockerfile.v0").SerializeToString()
    world = World()
    world.decide(f"{CONTROL}/Solve", solve("a"))
    world.decide(f"{BRIDGE}/Solve", bridge, ((BUILD_ID, REF),))
    assert world.confined == ["/ds01/1000", "/ds01/1000"]
    world = World(unconfined=True)
    for path, message in ((f"{CONTROL}/Solve", solve("a")), (f"{BRIDGE}/Solve", bridge)):
        with pytest.raises(OSError, match="cgroups"):
            world.decide(path, message, ((BUILD_ID, REF),))
    assert world.held == []


def test_a_build_is_told_which_images_not_to_read() -> None:
    """In both messages: what is made private between them is hidden too."""
    world = World(private=("his:latest",))
    sent = pb.SolveRequest.FromString(forwarded(world.decide(f"{CONTROL}/Solve", solve())).message)
    bridge = pb.BridgeSolveRequest(Frontend="dockerfile.v0").SerializeToString()
    inside = forwarded(world.decide(f"{BRIDGE}/Solve", bridge, ((BUILD_ID, REF),)))
    policies = [sent.SourcePolicy, *pb.BridgeSolveRequest.FromString(inside.message).SourcePolicies]
    assert len(policies) == 2
    for policy in policies:
        rules = pb.SourcePolicy.FromString(policy).rules
        found = [(rule.action, rule.selector.identifier, rule.selector.match_type) for rule in rules]
        assert found[:3] == [
            (1, "docker-image://ds01.invalid*", 0),
            (1, "docker-image://docker.io/library/his:latest", 1),
            (1, "docker-image://docker.io/library/his:latest@*", 0),
        ]


@pytest.mark.parametrize("path", HANDLING)
def test_a_policy_that_was_tightened_counts_at_once(path: str) -> None:
    """On connections that are open too."""
    assert "DOCKER_BUILDKIT=0" in refused(World(builds=Builds.CLASSIC).decide(path))
    refused(World(role=Role.NONE).decide(path))


def test_a_tag_of_anothers_is_refused() -> None:
    """Beside one's own too; nothing is held."""
    world = World(taken=["his"])
    assert "his" in refused(world.decide(f"{CONTROL}/Solve", solve("mine", "his")))
    assert world.held == []
    assert world.lines == [f"refuse {CONTROL}/Solve ownership"]


def test_a_build_that_cannot_be_recorded_does_not_happen() -> None:
    """And holds no tags."""
    world = World(audit_fails=True)
    with pytest.raises(OSError, match="full"):
        world.decide(f"{CONTROL}/Solve", solve("a"))
    assert world.held == []


def test_every_reason_is_told() -> None:
    """In one line, with the number to explain it by."""
    text = refused(World().decide(f"{CONTROL}/Solve", solve(Definition=b"x", Frontend="gateway.v0")))
    assert "Definition" in text
    assert "Frontend" in text
    assert text.endswith("ds01 explain abc123abc123")


def test_a_bridges_solve_is_decided_too() -> None:
    """It is where buildx names the frontend."""
    asked = pb.BridgeSolveRequest(Frontend="dockerfile.v0").SerializeToString()
    verdict = forwarded(World().decide(f"{BRIDGE}/Solve", asked, ((BUILD_ID, REF),)))
    sent = pb.BridgeSolveRequest.FromString(verdict.message)
    assert sent.FrontendOpt["cgroup-parent"] == "/ds01/1000"
    assert verdict.metadata == ((BUILD_ID, OWN),)
    raw = pb.BridgeSolveRequest(Definition=b"x").SerializeToString()
    assert "raw LLB" in refused(World().decide(f"{BRIDGE}/Solve", raw, ((BUILD_ID, REF),)))


@pytest.mark.parametrize(
    "method", ["Ping", "Return", "Inputs", "Evaluate", "ReadFile", "ReadDir", "StatFile", "Warn", "Solve"]
)
@pytest.mark.parametrize(
    "metadata", [(), ((BUILD_ID, ""),), ((BUILD_ID, "a:b"),), ((BUILD_ID, REF), (BUILD_ID, "x"))]
)
def test_a_bridges_call_names_one_build(method: str, metadata: Headers) -> None:
    """None, two, or one with a colon is no build."""
    message = (
        pb.BridgeSolveRequest(Frontend="dockerfile.v0").SerializeToString() if method == "Solve" else b""
    )
    refused(World().decide(f"{BRIDGE}/{method}", message, metadata))


def test_anothers_build_cannot_be_named() -> None:
    """Not even by the name it has inside BuildKit."""
    verdict = forwarded(World().decide(f"{BRIDGE}/Ping", b"", ((BUILD_ID, f"ds01-1001-{REF}"),)))
    assert verdict.metadata == ((BUILD_ID, f"ds01-1000-ds01-1001-{REF}"),)
    status = pb.StatusRequest(Ref=f"ds01-1001-{REF}").SerializeToString()
    sent = pb.StatusRequest.FromString(forwarded(World().decide(f"{CONTROL}/Status", status)).message)
    assert sent.Ref == f"ds01-1000-ds01-1001-{REF}"


def test_status_of_no_name_is_refused() -> None:
    """An empty one would be the first that comes."""
    refused(World().decide(f"{CONTROL}/Status", b""))


# --- history ---


def history(*, ref: str = "", limit: int = 0) -> bytes:
    return pb.BuildHistoryRequest(Ref=ref, Limit=limit, EarlyExit=True).SerializeToString()


def event(ref: str, digest: str = "") -> bytes:
    record = pb.BuildHistoryRecord(Ref=ref, logs=pb.Descriptor(digest=digest))
    return pb.BuildHistoryEvent(type=1, record=record).SerializeToString()


def test_history_shows_ones_own_builds() -> None:
    """By the names one knows; what they name can be read afterwards."""
    world = World()
    verdict = world.decide(f"{CONTROL}/ListenBuildHistory", history())
    own = shaped(verdict, event(OWN, "sha256:logs"))
    assert own is not None
    assert pb.BuildHistoryEvent.FromString(own).record.Ref == REF
    assert shaped(verdict, FOREIGN.SerializeToString()) is None
    assert shaped(verdict, event("")) is None
    read = pb.ContentReadRequest(digest="sha256:logs").SerializeToString()
    assert forwarded(world.decide(f"{CONTENT}/Read", read)).metadata == (
        ("containerd-namespace", "buildkit"),
    )


def test_a_limit_counts_ones_own() -> None:
    """It is not sent, or foreign builds would use it up."""
    verdict = World().decide(f"{CONTROL}/ListenBuildHistory", history(limit=1))
    assert pb.BuildHistoryRequest.FromString(forwarded(verdict).message).Limit == 0
    assert shaped(verdict, FOREIGN.SerializeToString()) is None
    assert shaped(verdict, event(OWN)) is not None
    assert shaped(verdict, event(OWN)) is None


def test_one_build_of_the_history() -> None:
    """By its name; a strange name is refused."""
    verdict = forwarded(World().decide(f"{CONTROL}/ListenBuildHistory", history(ref=REF)))
    assert pb.BuildHistoryRequest.FromString(verdict.message).Ref == OWN
    refused(World().decide(f"{CONTROL}/ListenBuildHistory", history(ref="a:b")))


def test_the_history_is_changed_for_ones_own_builds() -> None:
    """And on record."""
    world = World()
    asked = pb.UpdateBuildHistoryRequest(Ref=REF, Delete=True).SerializeToString()
    sent = pb.UpdateBuildHistoryRequest.FromString(
        forwarded(world.decide(f"{CONTROL}/UpdateBuildHistory", asked)).message
    )
    assert (sent.Ref, sent.Delete) == (OWN, True)
    assert world.lines == [f"allow {CONTROL}/UpdateBuildHistory"]
    refused(world.decide(f"{CONTROL}/UpdateBuildHistory", b""))


@pytest.mark.parametrize("method", ["Info", "Read"])
def test_content_that_was_not_named_is_absent(method: str) -> None:
    """As if it were not there."""
    world = World()
    world.seen.add(Uid(1001), ["sha256:his"])
    asked = pb.ContentInfoRequest(digest="sha256:his").SerializeToString()
    assert "not found" in refused(world.decide(f"{CONTENT}/{method}", asked), Code.NOT_FOUND)


# --- cache ---

MOUNT = pb.UsageRecord(
    ID="m", RecordType="exec.cachemount", Description='cached mount with id "ds01-1000//c"'
)
HIS = pb.UsageRecord(ID="h", RecordType="exec.cachemount", Description='cached mount with id "ds01-1001//c"')
LAYER = pb.UsageRecord(ID="l", RecordType="regular", Description="mount / from exec sh -c secret")


def test_disk_usage_is_ones_own() -> None:
    """An admin sees all."""
    answer = pb.DiskUsageResponse(record=[HIS, MOUNT, LAYER]).SerializeToString()
    own = shaped(World().decide(f"{CONTROL}/DiskUsage"), answer)
    assert own is not None
    assert [one.ID for one in pb.DiskUsageResponse.FromString(own).record] == ["m"]
    assert forwarded(World(everything=True).decide(f"{CONTROL}/DiskUsage")).reshape is None


def test_prune_names_what_it_removes() -> None:
    """Out of what the filter finds among one's own."""
    world = World(usage=[HIS, MOUNT, LAYER])
    asked = pb.PruneRequest(filter=["type==exec.cachemount"], all=True).SerializeToString()
    sent = pb.PruneRequest.FromString(forwarded(world.decide(f"{CONTROL}/Prune", asked)).message)
    assert list(sent.filter) == ["id==m"]
    assert sent.all
    usage = pb.DiskUsageRequest.FromString(world.asked[0][1])
    assert (world.asked[0][0], list(usage.filter)) == (f"{CONTROL}/DiskUsage", ["type==exec.cachemount"])


def test_prune_of_nothing_asks_nothing_to_be_removed() -> None:
    """An empty filter would mean everything."""
    assert World(usage=[HIS, LAYER]).decide(f"{CONTROL}/Prune") == Answer(messages=())


def test_an_admin_prunes_all() -> None:
    """As asked."""
    asked = pb.PruneRequest(all=True).SerializeToString()
    verdict = forwarded(World(everything=True).decide(f"{CONTROL}/Prune", asked))
    assert verdict.message == asked
    assert messages.read(pb.PruneRequest, verdict.message).all


def test_local_names_go_into_the_engine_as_its_users_own() -> None:
    """Those that are written, and those of FROM; the record of who writes them is asked by the client's words."""
    world = World(local={"base:1": "ds01.invalid/u1000/base:1"})
    sent = forwarded(world.decide(f"{CONTROL}/Solve", solve("docker.io/library/app:1", "alice/app:1")))
    assert world.held == ["docker.io/library/app:1", "alice/app:1"]
    request = pb.SolveRequest.FromString(sent.message)
    assert request.Exporters[0].Attrs["name"] == "ds01.invalid/u1000/app:1,alice/app:1"
    first = pb.SourcePolicy.FromString(request.SourcePolicy).rules[0]
    assert (first.action, first.selector.identifier, first.updates.identifier) == (
        2,
        "docker-image://docker.io/library/base:1",
        "docker-image://ds01.invalid/u1000/base:1",
    )
    admins = World(everything=True).decide(f"{CONTROL}/Solve", solve("app:1"))
    assert pb.SolveRequest.FromString(forwarded(admins).message).Exporters[0].Attrs["name"] == "app:1"


def test_answers_name_them_as_docker_does() -> None:
    """The result, the progress and the history; what is not known in them stays."""
    real, plain = "ds01.invalid/u1000/app:1", "docker.io/library/app:1"
    world = World()
    result = pb.SolveResponse(ExporterResponse={"image.name": real, "containerimage.digest": "sha256:1"})
    done = shaped(world.decide(f"{CONTROL}/Solve", solve("app:1")), result.SerializeToString())
    assert pb.SolveResponse.FromString(done or b"").ExporterResponse["image.name"] == plain
    progress = pb.StatusResponse(statuses=[pb.VertexStatus(ID=f"naming to {real}", name="x")])
    more = progress.SerializeToString() + b"\x22\x02\x08\x01"  # a warning, which api.proto does not have
    asked = pb.StatusRequest(Ref=REF).SerializeToString()
    told = shaped(world.decide(f"{CONTROL}/Status", asked), more)
    assert f"naming to {plain}" == pb.StatusResponse.FromString(told or b"").statuses[0].ID
    assert b"\x22\x02\x08\x01" in (told or b"")
    record = pb.BuildHistoryRecord(Ref=OWN, Exporters=[pb.Entry(Type="moby", Attrs={"name": real})])
    event = pb.BuildHistoryEvent(record=record).SerializeToString()
    kept = shaped(world.decide(f"{CONTROL}/ListenBuildHistory"), event)
    assert pb.BuildHistoryEvent.FromString(kept or b"").record.Exporters[0].Attrs["name"] == plain
