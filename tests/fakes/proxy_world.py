"""The proxy's inner parts around an answering dockerd on a real Unix socket, and an allocator in memory."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.clock import boot_id, boottime_ms
from http1.client import Pool
from policy.model import Actor, ContainerId, DeviceUuid, EngineFacts, Gid, LeaseGpus, LeaseId, RequestId, Uid
from socket_proxy.adoptions import Adoptions
from socket_proxy.answers import Answers
from socket_proxy.engine import Engine
from socket_proxy.entries import Entries
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners
from socket_proxy.index import Index
from socket_proxy.keys import Keys
from socket_proxy.ports import Asking, Held, Lease, LeaseRefused
from socket_proxy.records import Records
from socket_proxy.seal import SealedContainers, Sealer
from socket_proxy.stamp import Stamper
from tests.fakes.scripted_dockerd import Talk, scripted_dockerd

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

ALICE = Actor(uid=Uid(1001), gid=Gid(1001), name="alice")
BOB = Actor(uid=Uid(1002), gid=Gid(1002), name="bob")
ENGINE = EngineFacts(
    engine_id="e" * 32,
    version="20.10.24",
    api_version=(1, 41),
    min_api_version=(1, 12),
    cgroup_driver="cgroupfs",
    cgroup_version=2,
    gpu_path="hook",
)


class MemoryLeaser:
    """Leases in a dict. `fails` holds what `confirm` or `release` raises instead of working."""

    def __init__(self) -> None:
        self.leases: dict[LeaseId, Lease] = {}
        self.fails: dict[str, BaseException] = {}
        self.start_refused: LeaseRefused | None = None  # why none of these starts
        self.held: tuple[Held, ...] = ()
        self.asked: Asking | None = None
        self.forgotten: list[LeaseId] = []

    def add(self, lease: str, *, state: str = "pending", container: str | None = None) -> None:
        self.leases[LeaseId(lease)] = Lease(
            id=LeaseId(lease),
            owner_uid=ALICE.uid,
            state=state,
            devices=(DeviceUuid("GPU-1"),),
            container=ContainerId(container) if container else None,
        )

    def state(self, lease: str) -> str:
        return self.leases[LeaseId(lease)].state

    async def reserve(self, *, uid: Uid, name: str, want: LeaseGpus, request_id: RequestId) -> Lease:
        self.add("new")
        return self.leases[LeaseId("new")]

    async def confirm(self, lease: LeaseId, container: ContainerId) -> None:
        self._fail("confirm")
        self.add(lease, state="active", container=container)

    async def start(self, lease: LeaseId, container: ContainerId) -> Lease | LeaseRefused:
        found = self.leases.get(lease)
        if found is None or found.container != container or found.state not in {"bound", "active", "held"}:
            return LeaseRefused(status=409, message="over")
        return self.start_refused or found

    async def release(self, lease: LeaseId, reason: str) -> None:
        self._fail("release")
        self.add(lease, state="released")

    async def fetch(self, lease: LeaseId) -> Lease | LeaseRefused:
        return self.leases.get(lease) or LeaseRefused(status=404, message="no such lease")

    def forget(self, lease: LeaseId) -> None:
        self.forgotten.append(lease)

    def asking(self) -> Asking:
        return Asking(boot_id=boot_id(), at_ms=boottime_ms(), pending=frozenset())

    async def report(self, held: tuple[Held, ...], asked: Asking) -> None:
        self.held, self.asked = held, asked

    def _fail(self, verb: str) -> None:
        if verb in self.fails:
            raise self.fails[verb]


@dataclass
class ProxyWorld:
    """Everything below the pipeline. `answers` maps the start of a request line to status and JSON, or to a function."""

    engine: Engine
    keys: Keys
    records: Records
    index: Index = field(default_factory=Index)
    leaser: MemoryLeaser = field(default_factory=MemoryLeaser)
    answers: dict[str, tuple[int, Any] | Callable[[], tuple[int, Any]]] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)  # of each request that was asked

    def __post_init__(self) -> None:
        self.sealer = Sealer(self.keys)
        self.sealed = SealedContainers(self.sealer, None)
        self.owners = ImageOwners(self.records)
        self.adoptions = Adoptions(self.records)
        self.entries = Entries(
            sealer=self.sealer, sealed=self.sealed, adoptions=self.adoptions, records=self.records
        )
        self.answering = Answers(
            engine=self.engine, index=self.index, images=self.owners, learn=cast("Any", None)
        )
        self.facts = FactSource(engine=self.engine, engine_facts=ENGINE, index=self.index, images=self.owners)

    async def serve(self, talk: Talk) -> None:
        while True:
            head = await talk.head()
            line = head.partition(b" HTTP/")[0].decode().replace("/v1.41", "", 1)
            self.asked.append(line)
            length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
            self.bodies.append(await talk.reader.readexactly(int(length[1]) if length else 0))
            found = next((self.answers[key] for key in self.answers if line.startswith(key)), None)
            if found is None:
                return  # the connection ends: dockerd is lost
            status, document = found() if callable(found) else found
            await talk.answer(
                json.dumps(document).encode(),
                status=f"{status} X",
                headers="Content-Type: application/json\r\n",
            )

    def labels(self, actor: Actor = ALICE, *, lease: str = "", request: str = "r1") -> dict[str, str]:
        return self.sealer.labels(
            actor, lease=LeaseId(lease) if lease else None, request_id=RequestId(request)
        )


@asynccontextmanager
async def proxy_world(path: Path) -> AsyncIterator[ProxyWorld]:
    """A world below `path`, its dockerd listening."""
    private = Ed25519PrivateKey.generate()
    keys = Keys(private=private, public=private.public_key(), engine_id="e" * 32)
    pool = Pool(str(path / "engine.sock"))
    records = Records(path / "records.sqlite")
    world = ProxyWorld(
        engine=Engine(pool, Stamper(keys), version=(1, 41)),
        keys=keys,
        records=records,
    )
    try:
        async with scripted_dockerd(path / "engine.sock", world.serve):
            yield world
    finally:
        pool.close()
        records.close()
