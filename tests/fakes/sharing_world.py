"""Three users, an index and the real parts of sharing on a real record; only the clock and the accounts are made up."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from host.users import Users
from policy.build import build_policy
from policy.model import ContainerId, Kind, Share, Uid
from policy.names import real
from socket_proxy.container_shares import ContainerShares
from socket_proxy.image_owners import Reader
from socket_proxy.index import Entry, Index
from socket_proxy.lasting_clock import LastingClock
from socket_proxy.records import Records
from socket_proxy.shared_containers import SharedContainers
from tests.fakes.whole_proxy import account

if TYPE_CHECKING:
    from policy.compile import Policy

ALICE, BOB, CAROL = Uid(1001), Uid(1002), Uid(1003)
WEB, BOX = ContainerId("a" * 64), ContainerId("ab" * 32)
MEMORY = Path(":memory:")
NOTHING = "version: 1\ndefaults: {role: user}\ngroups: {lab: {members: [alice, bob]}}\n"


def by_policy(share: Share, members: str = "alice, bob") -> str:
    return f"version: 1\ndefaults: {{role: user}}\ngroups: {{lab: {{members: [{members}], share: {{containers: {share}}}}}}}\n"


@dataclass
class SharingWorld:
    """Alice has `web` and `box`."""

    path: Path
    text: str = NOTHING
    now_ms: int = 0
    index: Index = field(default_factory=Index)

    def __post_init__(self) -> None:
        self.records = Records(self.path if self.path == MEMORY else self.path / "records.sqlite")
        self.users = Users(look_up=account, first_uid=1000)
        self.open()
        self.put(WEB, "web")
        self.put(BOX, "box")

    def open(self) -> None:
        """As at a start of the proxy."""
        clock = LastingClock(
            self.records,
            boottime_ms=lambda: self.now_ms,
            boot_id=lambda: "boot",
            utc_ms=lambda: self.now_ms,
        )
        self.granted = ContainerShares(self.records, clock)
        self.policy: Policy = build_policy({"policy.yaml": self.text})
        self.shared = SharedContainers(
            index=self.index, granted=self.granted, policy=lambda: self.policy, users=self.users
        )

    def put(self, container: str, name: str, owner: Uid = ALICE, *, plain: bool = False) -> None:
        self.index.put(
            Entry(kind=Kind.CONTAINER, id=container, name=name if plain else real(owner, name), owner=owner)
        )

    def reload(self, text: str) -> None:
        self.policy = build_policy({"policy.yaml": text})

    def grant(
        self,
        grantee: str = "user:1002",
        *,
        share: Share = Share.VIEW,
        container: ContainerId = WEB,
        seconds: int = 60,
    ) -> None:
        self.granted.grant(container, [grantee], share=share, owner=ALICE, login="alice", seconds=seconds)

    async def reader(self, uid: Uid, *, everything: bool = False) -> Reader:
        """Who asks, after the proxy has looked who is who."""
        await self.shared.refresh(uid)
        person = account(uid)
        groups = self.policy.for_actor(person.actor()).groups if person else ()
        return Reader(uid=uid, groups=frozenset(groups), everything=everything)
