"""Giving a container to its owner: who may, to whom, what is found out of it, and in which order it is written down."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from host.users import Account
from observability.audit import AuditUnavailable
from policy.build import build_policy
from policy.model import Adopted, DeviceUuid, Gid, Kind, LeaseId, Uid
from socket_proxy import adoption_requests
from socket_proxy.adoption_requests import AdoptionRequests
from socket_proxy.image_owners import Reader
from socket_proxy.index import Entry
from socket_proxy.ports import Lease, LeaseOver, LeaseRefused
from socket_proxy.refusals import Refusal, Unavailable
from tests.fakes.inspects import inspect
from tests.fakes.proxy_world import ALICE, ENGINE, proxy_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

    from policy.model import Actor
    from tests.fakes.proxy_world import ProxyWorld

OWN_TREE = "version: 1\ndefaults: {{role: user, allow: {{binds: [{{path: {0}, setuid_ok: true}}]}}}}\n"
OLD, MADE = "a" * 64, "b" * 64
CAROL = replace(ALICE, uid=Uid(1003), gid=Gid(1003), name="carol", login_uid=Uid(1003))
DEVICES = (DeviceUuid("GPU-1"),)
ADMINS = Reader(uid=CAROL.uid, everything=True)


@dataclass
class Case:
    """The requests around a real record and index, an engine that answers, and an allocator in memory."""

    world: ProxyWorld
    home: Path
    order: list[str] = field(default_factory=list)
    noted: list[dict[str, Any]] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    leased: tuple[Lease | None, tuple[DeviceUuid, ...]] | LeaseRefused = (None, ())
    full: bool = False
    problem: Exception | None = None  # of a release
    text: str = "version: 1\ndefaults: {role: user, limits: {gpus: 1}}\ngroups: {lab: {members: [alice]}}\nusers: {dave: {role: none}}\n"

    def __post_init__(self) -> None:
        self.policy = build_policy({"policy.yaml": self.text})
        self.requests = AdoptionRequests(
            engine=self.world.engine,
            engine_facts=ENGINE,
            index=self.world.index,
            facts=cast("Any", self),
            adoptions=self.world.adoptions,
            allocator=cast("Any", self),
            policy=lambda: self.policy,
            trail=cast("Any", self),
            entries=self.world.entries,
            moved=lambda container: self.order.append(f"moved {container[:1]}"),
        )
        self.world.index.put(Entry(kind=Kind.CONTAINER, id=OLD, name="old", owner=None))
        self.world.index.put(Entry(kind=Kind.CONTAINER, id=MADE, name="u1001.web", owner=ALICE.uid))
        self.inspected()

    def inspected(self, *, pid: int | None = None, mounts: Any = (), **host: Any) -> None:
        """What the engine says of the old one. It runs as this test's own process, whose mounts it so has."""
        state = {"Running": pid != 0, "Pid": os.getpid() if pid is None else pid, "StartedAt": "1"}
        answer = inspect(**host) | {
            "State": state,
            "Config": {"Labels": {"aime.mlc": "bob"}},
            "Mounts": [*mounts],
        }
        self.world.answers[f"GET /containers/{OLD}/json"] = (200, answer)

    # What the requests stand on.

    async def wait_ready(self) -> None:
        """The index is."""

    def note(self, record: dict[str, Any]) -> None:
        if self.full:
            raise AuditUnavailable("full")
        self.order.append(record["event"])
        self.noted.append(record)

    async def take_over(self, container: str, **said: Any) -> Any:
        self.order.append("lease")
        assert self.world.adoptions.of(container) is None
        self.asked.append(said)
        return self.leased

    async def release(self, lease: str, reason: str) -> None:
        if self.problem is not None:
            raise self.problem
        self.order.append(f"release {lease}")

    # What is asked.

    async def adopt(
        self, container: str = "old", owner: str = "alice", reader: Reader = ADMINS, actor: Actor = CAROL
    ) -> Mapping[str, Any] | Refusal:
        body = json.dumps({"container": container, "owner": owner}).encode()
        return await self.requests.adopt(actor, reader, body)

    async def adopted(self) -> Mapping[str, Any]:
        answer = await self.adopt()
        assert not isinstance(answer, Refusal), answer
        return answer

    async def unadopt(self, container: str = "old", reader: Reader = ADMINS) -> Mapping[str, Any] | Refusal:
        return await self.requests.unadopt(CAROL, reader, json.dumps({"container": container}).encode())

    def entry(self) -> Entry:
        found = self.world.index.get(Kind.CONTAINER, OLD)
        assert found is not None
        return found


@pytest.fixture
async def case(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Case]:
    """Alice's account is this test's own, so that her files are."""
    home = tmp_path / "home" / "alice"
    home.mkdir(parents=True)

    def look_up(name: str) -> Account | None:
        uid = {"alice": 1001, "dave": 1004, "root": 0}.get(name)
        if uid is None:
            return None
        return Account(
            uid=Uid(uid), gid=Gid(uid), name=name, groups=frozenset(), gids=frozenset({uid}), home=str(home)
        )

    monkeypatch.setattr(adoption_requests, "look_up_name", look_up)
    async with proxy_world(tmp_path) as world:
        yield Case(world, home)


async def test_it_is_its_owners_from_then_on(case: Case) -> None:
    """By the record alone: it keeps its name, and a restart of the proxy changes nothing."""
    case.leased = (
        Lease(id=LeaseId("L9"), owner_uid=ALICE.uid, state="active", devices=DEVICES, container=None),
        (),
    )
    answer = await case.adopted()
    assert answer == {
        "container": "old",
        "id": OLD,
        "owner": "alice",
        "closed": [],
        "devices": ["GPU-1"],
        "left_out": [],
    }
    assert (case.entry().owner, case.entry().adopted, case.entry().lease) == (ALICE.uid, Adopted(), "L9")
    assert case.entry() == case.world.entries.container(OLD, "old", {}, state="running")
    recorded = case.world.adoptions.of(OLD)
    assert recorded is not None
    assert recorded.started == "1"
    found = case.world.index.find(Kind.CONTAINER, "old", ALICE.uid, everything=False)
    assert found is not None
    assert found.id == OLD
    assert case.world.index.find(Kind.CONTAINER, "old", Uid(1002), everything=False) is None


async def test_it_is_audited_before_it_is_leased_before_it_is_recorded(case: Case) -> None:
    """With both names; a full disk adopts nothing, and neither does an allocator that is away."""
    case.full = True
    with pytest.raises(AuditUnavailable):
        await case.adopt()
    case.full, case.leased = False, LeaseRefused(status=503, message="ds01: away")
    assert await case.adopt() == Refusal(status=503, message="ds01: away", rules=("gpu_lease",))
    assert case.entry().owner is None
    assert case.world.adoptions.of(OLD) is None
    case.leased, case.order, case.noted = (None, DEVICES), [], []
    assert (await case.adopted())["left_out"] == ["GPU-1"]
    assert case.order == ["container.adopted", "lease", "moved a"]
    (note,) = case.noted
    assert (note["actor"], note["login_uid"], note["owner"], note["owner_uid"]) == (
        "carol",
        1003,
        "alice",
        1001,
    )


@pytest.mark.parametrize(
    ("policy", "restarts"), [("no", False), ("", False), ("always", True), ("on-failure", True)]
)
async def test_the_allocator_is_told_whether_it_may_come_back(
    case: Case, policy: str, *, restarts: bool
) -> None:
    """Past ds01, by itself; and whose groups it counts for."""
    case.inspected(RestartPolicy={"Name": policy, "MaximumRetryCount": 0})
    await case.adopted()
    (asked,) = case.asked
    assert (asked["restarts"], asked["uid"], asked["name"], asked["groups"]) == (
        restarts,
        1001,
        "alice",
        ("lab",),
    )


async def test_only_admins_give_and_only_what_is_nobodys(case: Case) -> None:
    """To people whom policy knows. Nothing is written down of a refusal."""
    users = Reader(uid=ALICE.uid, everything=False)
    for answer, status in (
        (await case.adopt(reader=users), 403),
        (await case.unadopt(reader=users), 403),
        (await case.adopt(container="gone"), 404),
        (await case.adopt(container=MADE), 409),
        (await case.adopt(owner="nobody-here"), 404),
        (await case.adopt(owner="root"), 404),
        (await case.adopt(owner="dave"), 404),
        (await case.unadopt(), 409),
        (await case.requests.adopt(CAROL, ADMINS, b'{"container": 1}'), 400),
    ):
        assert isinstance(answer, Refusal)
        assert answer.status == status, answer
    assert (case.order, case.entry().owner) == ([], None)


async def test_what_the_rules_refuse_closes_it(case: Case) -> None:
    """It is adopted all the same; so is one that does not run, of which nobody can see what it mounts."""
    case.inspected(Privileged=True)
    (reason,) = (await case.adopted())["closed"]
    assert "Privileged" in reason
    assert case.entry().adopted == Adopted(closed=reason)
    await case.unadopt()
    case.inspected(pid=0)
    (reason,) = (await case.adopted())["closed"]
    assert "does not run" in reason


async def test_a_container_that_was_started_again_meanwhile_is_closed(case: Case) -> None:
    """Its process could be another's by then, with mounts to its liking."""
    _, answer = cast("tuple[int, dict[str, Any]]", case.world.answers[f"GET /containers/{OLD}/json"])
    starts = iter(["1", "2"])

    def changing() -> tuple[int, Any]:
        return 200, answer | {"State": answer["State"] | {"StartedAt": next(starts, "2")}}

    case.world.answers[f"GET /containers/{OLD}/json"] = changing
    assert (await case.adopted())["closed"] == ["it was started again while it was looked at; adopt it again"]


async def test_taken_back_it_is_nobodys(case: Case) -> None:
    """And its devices are leased no more; while it runs nobody else gets them."""
    case.leased = (
        Lease(id=LeaseId("L9"), owner_uid=ALICE.uid, state="active", devices=DEVICES, container=None),
        (),
    )
    await case.adopted()
    case.order = []
    assert await case.unadopt() == {"container": "old", "id": OLD}
    assert case.order == ["container.unadopted", "release L9", "moved a"]
    assert (case.entry().owner, case.entry().adopted, case.entry().lease) == (None, None, None)
    assert case.world.adoptions.of(OLD) is None


async def test_what_cannot_be_released_stays_adopted(case: Case) -> None:
    """Else its lease would be left behind, for whoever it is given to next; one that is over already is no hindrance."""
    case.leased = (
        Lease(id=LeaseId("L9"), owner_uid=ALICE.uid, state="active", devices=DEVICES, container=None),
        (),
    )
    await case.adopted()
    case.problem = Unavailable("away")
    with pytest.raises(Unavailable):
        await case.unadopt()
    assert (case.entry().owner, case.world.adoptions.of(OLD) is None) == (ALICE.uid, False)
    case.problem = LeaseOver("over")
    assert await case.unadopt() == {"container": "old", "id": OLD}
    assert case.entry().owner is None


async def test_of_two_who_adopt_one_at_once_the_second_is_told(case: Case) -> None:
    """Nothing of the first adoption is overwritten."""
    first, second = await asyncio.gather(case.adopt(), case.adopt())
    assert not isinstance(first, Refusal)
    assert isinstance(second, Refusal)
    assert second.status == 409


@contextmanager
def mounting(source: Path, target: Path) -> Iterator[int]:
    """A process that has one mounted at the other, as a container's first process has."""
    script = 'mount --bind "$1" "$2"; echo up; read _'
    command = ["unshare", "--mount", "sh", "-ec", script, "sh", str(source), str(target)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        yield process.pid
        process.communicate(b"\n", timeout=5)


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that everybody can reach; `work` and `other` in it are alice's, `hidden` is root's, `seen` anybody's."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        for inner in ("work", "other", "hidden", "seen"):
            (Path(name) / inner).mkdir(mode=0o700)
        for inner in ("work", "other"):
            os.chown(Path(name) / inner, ALICE.uid, ALICE.gid)
        yield Path(name)


@pytest.mark.skipif(os.geteuid() != 0, reason="taking an owner's rights needs root")
@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        pytest.param("work", "seen", "", id="what is mounted"),
        pytest.param("other", "seen", "is not what is at", id="another object"),
        pytest.param("work", "elsewhere", "is not what is at", id="no mount"),
        pytest.param("hidden", "seen", "not permitted", id="not hers"),
        pytest.param("gone", "seen", "not permitted", id="gone"),
    ],
)
async def test_what_is_mounted_must_be_what_the_owner_has_there_now(
    case: Case, room: Path, source: str, target: str, said: str
) -> None:
    """A path that leads elsewhere now, or led elsewhere when the container was made, closes it. So does what she cannot open."""
    case.policy = build_policy({"policy.yaml": OWN_TREE.format(room)})
    with mounting(room / "work", room / "seen") as pid:
        mount = {"Type": "bind", "Source": str(room / source), "Destination": str(room / target), "RW": True}
        case.inspected(pid=pid, mounts=[mount])
        closed = (await case.adopted())["closed"]
    assert any(said in reason for reason in closed) if said else not closed, closed


@pytest.mark.skipif(os.geteuid() != 0, reason="taking an owner's rights needs root")
async def test_a_link_that_was_put_there_later_closes_it(case: Case, room: Path) -> None:
    """The path is hers again, and what is mounted is not what it leads to."""
    case.policy = build_policy({"policy.yaml": OWN_TREE.format(room)})
    (room / "link").symlink_to(room / "work")
    with mounting(room / "hidden", room / "seen") as pid:
        mount = {"Type": "bind", "Source": str(room / "link"), "Destination": str(room / "seen"), "RW": True}
        case.inspected(pid=pid, mounts=[mount])
        assert (await case.adopted())["closed"]
