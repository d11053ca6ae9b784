"""A small world to decide requests in: one policy, two users, an admin, an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from policy import image_names
from policy.compile import Policy, compile_policy
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.references import Place, walk
from policy.document import parse
from policy.evaluate import check, evaluate
from policy.facts import needed
from policy.model import (
    Actor,
    Decision,
    DeviceUuid,
    EngineFacts,
    Facts,
    Gid,
    JoinOwnNetwork,
    Kind,
    LeaseGpus,
    LeaseId,
    ObjectFact,
    Reason,
    Reference,
    RequestId,
    SealLabels,
    Uid,
    Usage,
)
from policy.names import real
from policy.obligations import apply, join
from policy.ownership import SEAL, labels

POLICY_TEXT = """
version: 1
defaults:
  role: user
  limits: {memory: 8GiB, cpus: 4, pids: 512, shm: 2GiB, gpus: 2, containers: 5, log_size: 30MiB, restarts: 5}
  allow:
    registries: ["*"]
    binds: [{path: /data, read_only: true}]
groups:
  admins: {members: [root2], role: admin}
"""
ALICE = Actor(uid=Uid(1000), gid=Gid(1000), name="alice", gids=frozenset({1000, 3000}), home="/home/alice")
BOB = Actor(uid=Uid(1001), gid=Gid(1001), name="bob", home="/home/bob")
ADMIN = Actor(uid=Uid(1009), gid=Gid(1009), name="root2", home="/home/root2")
POLICY = compile_policy(parse(POLICY_TEXT))
ENGINE = EngineFacts(
    engine_id="E",
    version="20.10.24",
    api_version=(1, 41),
    min_api_version=(1, 24),
    cgroup_driver="cgroupfs",
    cgroup_version=1,
    gpu_path="hook",
)
GPUS = tuple(DeviceUuid(f"GPU-{n:08d}-2222-3333-4444-555555555555") for n in range(8))
LEASE = LeaseId("L1")
OWN_NETWORK = "d" * 64


def policy(text: str) -> Policy:
    """A policy from text that needs not say its version."""
    return compile_policy(parse(f"version: 1\n{text}"))


def request(
    operation: Operation,
    body: Mapping[str, Any] | None = None,
    *,
    query: Mapping[str, tuple[str, ...]] | None = None,
    **params: str,
) -> Request:
    return Request(operation=operation, version=(1, 41), params=params, query=query or {}, body=body)


def create(host: Mapping[str, Any] | None = None, **config: Any) -> Request:
    """A container create; `host` is its HostConfig."""
    return request(Operation.CONTAINER_CREATE, {"Image": "busybox", **config, "HostConfig": host or {}})


def facts(asked: Request, **known: ObjectFact | None) -> Facts:
    """The image busybox exists and is shared, all else is absent unless `known` has it by name."""
    objects: dict[Reference, ObjectFact | None] = {}
    for reference in needed(asked):
        shared = ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=None, shared=True)
        default = shared if reference.text.startswith("busybox") else None
        objects[reference] = known.get(reference.text, default)
    return Facts(engine=ENGINE, objects=objects, usage=Usage(containers=0, networks=0, gpus=0))


def own(
    kind: Kind, *, owner: int | None = 1000, shared: bool = False, lease: str | None = None
) -> ObjectFact:
    return ObjectFact(
        kind=kind,
        id="f" * 64,
        owner=None if owner is None else Uid(owner),
        shared=shared,
        lease=LeaseId(lease) if lease else None,
    )


def decide(
    asked: Request, actor: Actor = ALICE, under: Policy = POLICY, **known: ObjectFact | None
) -> Decision:
    return evaluate(under, actor, asked, facts(asked, **known))


def rewrite(
    asked: Request, decision: Decision, actor: Actor = ALICE, engine: EngineFacts = ENGINE
) -> Request:
    """Carry out an allow, as the proxy does; every LeaseGpus is granted."""
    lease = next((one for one in decision.obligations if isinstance(one, LeaseGpus)), None)
    number = (lease.count or len(lease.device_ids)) if lease else 0
    sealed = labels(actor, LEASE if lease else None, RequestId("abc123abc123")) | {SEAL: "s"}
    written = apply(asked, decision.obligations, labels=sealed, devices=GPUS[:number], engine=engine)
    joins = any(isinstance(one, JoinOwnNetwork) for one in decision.obligations)
    return join(written, OWN_NETWORK) if joins else written


def in_namespace(request: Request, actor: Actor = ALICE) -> Request:
    """The request with new names as binding writes them."""

    def name(place: Place) -> str:
        if not place.reference.new:
            return place.reference.text
        form = image_names.real if place.reference.kind is Kind.IMAGE else real
        return form(actor.uid, place.reference.text)

    return walk(request, name)


def second_look(asked: Request, actor: Actor = ALICE, under: Policy = POLICY) -> tuple[Reason, ...]:
    return check(under, actor, asked, leases=(LEASE,))


def host_config(asked: Request, decision: Decision) -> dict[str, Any]:
    """HostConfig as it is written."""
    body: dict[str, Any] = dict(rewrite(asked, decision).body or {})
    found: dict[str, Any] = body["HostConfig"]
    return found


def seals(decision: Decision) -> list[SealLabels]:
    return [one for one in decision.obligations if isinstance(one, SealLabels)]
