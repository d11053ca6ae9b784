"""Whether BuildKit may be used at all, and whose a session is.

What passes through /grpc afterwards, and what `/build?version=2` asks for, is decided in `policy.buildkit`.
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.buildkit import names
from policy.buildkit.builder import BUILDKIT, is_buildkit
from policy.dockerapi.model import Operation
from policy.fields import shown
from policy.grants import Builds
from policy.model import Reason, SetHeader

RULE_ID = "buildkit"
OPERATIONS = frozenset({Operation.SESSION, Operation.GRPC, Operation.IMAGE_BUILD})
NEEDS_FACTS = False

# SOURCE: moby 24.0 carries BuildKit 0.11, the first that takes source policies; 23.0 takes a cgroup only, 20.10 neither.
CONFINED_SINCE = 24
UUID = "x-docker-expose-session-uuid"
SHARED_KEY = "x-docker-expose-session-sharedkey"
METHODS = "x-docker-expose-session-grpc-method"
# What the engine may call in the client: files, passwords, secrets, keys. Not: which exporters and sources to use.
SERVICES = (
    "/moby.filesync.v1.FileSync/",
    "/moby.filesync.v1.FileSend/",
    "/moby.filesync.v1.Auth/",
    "/moby.buildkit.secrets.v1.Secrets/",
    "/moby.sshforward.v1.SSH/",
    "/moby.upload.v1.Upload/",
    "/containerd.services.content.v1.Content/",
    "/grpc.health.v1.Health/",
)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse BuildKit where policy or the engine cannot have it; put the user in front of a session's names."""
    operation, builds = ask.request.operation, ask.grants.builds
    if operation is Operation.IMAGE_BUILD and not is_buildkit(ask.request.query):
        return
    if builds is Builds.CLASSIC:
        yield _classic(operation, "the classic builder")
    elif ask.facts is not None and not can_be_confined(ask.facts.engine.version):
        yield _classic(operation, f"the classic builder on engine {ask.facts.engine.version}")
    if operation is Operation.IMAGE_BUILD:
        yield from _second_look(ask)
        return
    if ask.request.upgrade != "h2c":
        yield Reason(
            rule=RULE_ID, field="Upgrade", asked=shown(ask.request.upgrade), limit="h2c",
            next_step="use docker buildx",
        )  # fmt: skip
    if operation is Operation.SESSION and builds is not Builds.OPAQUE:
        yield from _session(ask)


def _second_look(ask: Ask) -> Iterable[Finding]:
    """The proxy asks for such a build by /grpc. SECURITY: dockerd would run it in no cgroup, so it must not get there.

    SOURCE: moby v28.5, builder-next/builder.go: this way into BuildKit carries no cgroup parent.
    """
    if ask.facts is None and ask.grants.builds is not Builds.OPAQUE:
        yield _classic(ask.request.operation, "the classic builder")


def can_be_confined(version: str) -> bool:
    """Whether the BuildKit of an engine of this version takes the user's cgroup and ds01's source policy."""
    major = version.partition(".")[0]
    return major.isascii() and major.isdigit() and int(major) >= CONFINED_SINCE


def _session(ask: Ask) -> Iterable[Finding]:
    """SECURITY: sessions are found by name, and uploads of equal shared keys are joined: both are per user."""
    headers, uid = ask.request.headers, ask.actor.uid
    uuid = headers.get(UUID, "")
    if names.is_name(uuid):
        yield SetHeader(name=UUID, value=names.own(uid, uuid))
    else:
        yield Reason(
            rule=RULE_ID,
            field=UUID,
            asked=shown(uuid),
            limit="letters and digits",
            next_step="use docker buildx",
        )
    yield SetHeader(name=SHARED_KEY, value=names.own(uid, headers.get(SHARED_KEY, "")))
    methods = [method for method in headers.get(METHODS, "").split(",") if method.startswith(SERVICES)]
    yield SetHeader(name=METHODS, value=",".join(methods))


def _classic(operation: Operation, limit: str) -> Reason:
    by_query = operation is Operation.IMAGE_BUILD
    return Reason(
        rule=RULE_ID,
        field="version" if by_query else operation,
        asked=BUILDKIT if by_query else "this call",
        limit=limit,
        next_step="run it again with DOCKER_BUILDKIT=0",
    )
