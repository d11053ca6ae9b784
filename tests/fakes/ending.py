"""Leases, containers, a policy and terminals in memory, for what ends by itself; contract tests hold the first two to the real clients."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from lifecycle.ports import Container, Lease, NotStopped, Unavailable
from lifecycle.records import Records
from lifecycle.stopping import Stopping
from lifecycle.time_limits import TimeLimits
from observability.audit import AuditUnavailable
from policy.grants import TimeOver
from policy.model import ContainerId, LeaseId, Uid

ALICE = Uid(1001)
BOX = ContainerId("a" * 64)
ONE = LeaseId("lease1")


def lease(**changes: object) -> Lease:
    """Alice's, active, of eight hours, with an hour left."""
    base = Lease(
        id=ONE,
        owner_uid=ALICE,
        owner_name="alice",
        container=BOX,
        state="active",
        seconds=8 * 3600,
        left_seconds=3600,
    )
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


def container(**changes: object) -> Container:
    """The one of that lease, running."""
    base = Container(id=BOX, name=f"u{ALICE}.train", lease=ONE, running=True, stop_seconds=None)
    return replace(base, **changes)  # type: ignore[arg-type]  # tests pass fields by name


class FakeLeases:
    """The allocator; `down`: it does not answer."""

    def __init__(self, *leases: Lease) -> None:
        self.held = {one.id: one for one in leases}
        self.down = False

    async def live(self) -> tuple[Lease, ...]:
        self._answer()
        return tuple(one for one in self.held.values() if one.state != "released")

    async def find(self, lease: LeaseId) -> Lease | None:
        self._answer()
        return self.held.get(lease)

    def change(self, name: LeaseId = ONE, **changes: object) -> Lease:
        """Put a lease into another state."""
        self.held[name] = replace(self.held[name], **changes)  # type: ignore[arg-type]  # as above
        return self.held[name]

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the allocator does not answer")


class FakeContainers:
    """The engine; `down`: it does not answer. `stubborn`: they do not stop, and the engine says so, or says nothing of it."""

    def __init__(self, *containers: Container) -> None:
        self.held = {one.id: one for one in containers}
        self.stops: list[ContainerId] = []
        self.down = False
        self.stubborn: str | None = None

    async def look(self, container: ContainerId) -> Container | None:
        self._answer()
        return self.held.get(container)

    async def stop(self, container: Container) -> None:
        self._answer()
        self.stops.append(container.id)
        if self.stubborn:
            raise NotStopped(self.stubborn)
        if container.id in self.held and self.stubborn is None:
            self.held[container.id] = replace(self.held[container.id], running=False)

    def _answer(self) -> None:
        if self.down:
            raise Unavailable("the proxy does not answer")


@dataclass
class FakeRules:
    """One word for everybody; None: nobody is known."""

    word: TimeOver | None = TimeOver.STOP

    async def time_over(self, uid: Uid) -> TimeOver:
        if self.word is None:
            raise Unavailable(f"uid {uid} has no account on this server")
        return self.word


@dataclass
class FakeTerminals:
    """One terminal for each user."""

    lines: list[tuple[Uid, str]] = field(default_factory=list)

    async def tell(self, uid: Uid, text: str) -> int:
        self.lines.append((uid, text))
        return 1


class EndingWorld:
    """All of them with a clock that tests move, and what acts on them."""

    def __init__(self, directory: Path, *leases: Lease, warn_seconds: tuple[int, ...] = (1800, 300)) -> None:
        self.now_ms = 5_000_000
        self.leases = FakeLeases(*leases)
        self.containers = FakeContainers(container())
        self.rules = FakeRules()
        self.terminals = FakeTerminals()
        self.audit: list[Mapping[str, object]] = []
        self.audit_down = False
        self._path = directory / "told.json"
        self._warn_seconds = warn_seconds
        self.restart()

    def restart(self, *, boot: str = "boot-1") -> None:
        """What a new process has: the file, and nothing that was in memory."""
        self.records = Records(self._path, boot_id=boot)
        self.limits = TimeLimits(
            leases=self.leases,
            containers=self.containers,
            rules=self.rules,
            terminals=self.terminals,
            records=self.records,
            warn_seconds=self._warn_seconds,
            clock_ms=self.clock_ms,
        )
        self.stopping = Stopping(containers=self.containers, audit=self._append, clock_ms=self.clock_ms)

    def clock_ms(self) -> int:
        return self.now_ms

    def pass_seconds(self, seconds: int) -> None:
        """Time goes on, for leases too."""
        self.now_ms += seconds * 1000
        for one in list(self.leases.held.values()):
            if one.left_seconds is not None:
                self.leases.change(one.id, left_seconds=one.left_seconds - seconds)

    def _append(self, record: Mapping[str, object]) -> None:
        if self.audit_down:
            raise AuditUnavailable("audit log: no space left on device")
        self.audit.append(record)
