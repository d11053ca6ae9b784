"""Routes about processes: users see theirs, the trusted all; only the trusted tell and grant."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import pytest

from allocator.access_requests import AccessRequests, Account
from allocator.adoption import Evidence, Inspected, Ownership
from allocator.api_processes import ProcessRoutes, shown
from allocator.attribution import Attribution, Identity, Kind, ProcessFacts, Proof, Seen
from allocator.attributor import Attributed, OpenElsewhere, Running
from allocator.forbidden import words
from allocator.foreign import ForeignContainers
from allocator.foreign_owners import ForeignOwners
from allocator.ghosts import Ghost
from allocator.holders import DeviceFile
from allocator.model import Lease, LeaseState, Moment
from allocator.tracking import Named, Round, Scan, Told, Tracking
from allocator.unlisted import Unlisted
from policy.host_processes import HostProcesses, HostRule
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from tests.fakes.fake_nvml import gpu, snapshot
from tests.fakes.host_access import ALICE, BOB, World
from tests.fakes.leasing import lease
from tests.fakes.routes import NOBODY, TRUSTED, served

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

NOW = Moment(utc="2026-01-01T00:00:00Z", boottime_ms=0, boot_id="b")
OWNERS = ForeignOwners(lambda _: Ownership(owner=None, evidence=None, why=""))
GPU, WEB = DeviceUuid("GPU-0"), ContainerId("a" * 64)


def _attributed(pid: int, found: Attribution, **changes: Any) -> Attributed:
    identity = Identity(boot_id="b", pid=pid, start_ticks=1)
    return Attributed(
        seen=Seen(pid=pid, device=GPU, memory_mib=300), attribution=found, identity=identity, **changes
    )


def _facts(pid: int) -> ProcessFacts:
    return ProcessFacts(
        identity=Identity(boot_id="b", pid=pid, start_ticks=1),
        cgroup="0::/",
        login_uid=None,
        real_uid=None,
        uid_map=None,
        own_pid_namespace=None,
        name="probe",
    )


IN_CONTAINER = Attribution(kind=Kind.CONTAINER, owner=ALICE, proof=Proof.CONTAINER, container=WEB)
ROUND = Round(
    at=NOW,
    processes=(
        _attributed(1, IN_CONTAINER, name="python3"),
        _attributed(2, Attribution(kind=Kind.USER, owner=BOB, proof=Proof.SLICE, unit="session-1.scope")),
        _attributed(3, Attribution(kind=Kind.UNKNOWN, why="it is hidden"), ended=NOW),
    ),
    unlisted=(
        Unlisted(device=GPU, index="0", why="it has not answered for 5 s", listed=NOW),
        Unlisted(device=None, index="1", why="it has never answered", listed=None),
    ),
    ghosts=(Ghost(device=GPU, used_mib=900, since=NOW, sweeps=2),),
    scan=Scan(
        at=NOW,
        elsewhere=(
            OpenElsewhere(
                facts=_facts(4),
                attribution=Attribution(kind=Kind.USER, owner=BOB),
                files=frozenset({DeviceFile(driver="nvidia", major=195, minor=0)}),
            ),
        ),
        unread=frozenset({9}),
    ),
)
LATER = replace(NOW, boottime_ms=7500)
NOT_KNOWN = {"at", "age_seconds", "unlisted_devices", "processes", "elsewhere", "elsewhere_age_seconds"} | {
    "unattributed_memory",
    "unread",
}


def _shown(
    last: Round | None,
    *,
    owner: Uid | None,
    told: Told | None = None,
    owners: ForeignOwners = OWNERS,
    problem: str | None = None,
) -> dict[str, Any]:
    return shown(last, told or _told(), owners, owner=owner, now=LATER, problem=problem)


def _told() -> Told:
    told = Told()
    told.tell([Named(running=Running(id=WEB, pid=1, owner=ALICE), name="web")])
    return told


def test_the_admin_sees_all_with_whose_it_is() -> None:
    """A container by its name, and by what it was shown."""
    told = _shown(ROUND, owner=None)
    assert [one["pid"] for one in told["processes"]] == [1, 2, 3]
    first, second, third = told["processes"]
    assert (first["container"], first["owner_uid"], first["proof"]) == ("web", ALICE, "container")
    assert (second["unit"], second["container"]) == ("session-1.scope", None)
    assert (third["why"], third["ended_at"]) == ("it is hidden", NOW.utc)
    assert told["elsewhere"][0]["files"] == ["nvidia 0"]
    assert told["unattributed_memory"] == [{"device": GPU, "used_mib": 900, "since": NOW.utc}]
    assert told["unread"] == 1


async def test_whose_a_foreign_container_may_be_is_said_beside_its_processes() -> None:
    """It is no proof: the process stays nobody's, and that person does not see it."""
    owners = ForeignOwners(lambda _: Ownership(owner=BOB, evidence=Evidence.NAME, why="name x._.1001"))
    owners.tell([Inspected(id=WEB, name="x._.1001", labels={})])
    assert owners._looking is not None
    await owners._looking
    nobodys = replace(ROUND, processes=(_attributed(1, replace(IN_CONTAINER, owner=None)),))
    (one,) = _shown(nobodys, owners=owners, owner=None)["processes"]
    assert (one["owner_uid"], one["probable_owner_uid"], one["evidence"]) == (None, BOB, "name x._.1001")
    assert _shown(nobodys, owners=owners, owner=BOB)["processes"] == []


@pytest.mark.parametrize("owner", [None, ALICE])
@pytest.mark.parametrize("leased", [True, False, None])
def test_it_is_said_whether_a_containers_lease_names_the_device(
    leased: bool | None, owner: Uid | None
) -> None:
    """To the admin and to whose the process is; null where it is not known."""
    place = (Identity(boot_id="b", pid=1, start_ticks=1), GPU)
    judged = replace(ROUND, leased={} if leased is None else {place: leased})
    told = _shown(judged, owner=owner)["processes"]
    assert [one["leased"] for one in told] == [leased, None, None][: len(told)]


def test_a_user_sees_nothing_of_others() -> None:
    """Nor what could be anybody's."""
    told = _shown(ROUND, owner=ALICE)
    assert [one["pid"] for one in told["processes"]] == [1]
    assert told["elsewhere"] == []
    assert (told["unattributed_memory"], told["unread"]) == (
        None,
        None,
    )  # not theirs to know, which is not none
    assert _shown(ROUND, owner=Uid(7))["processes"] == []


@pytest.mark.parametrize(("owner", "scope"), [(None, "all"), (ALICE, "own")])
def test_nothing_is_known_before_the_first_round(owner: Uid | None, scope: str) -> None:
    """Which is not "nothing runs": nothing is empty or 0, and it is said why."""
    told = _shown(None, owner=owner, problem="NVML was not read yet")
    assert told == dict.fromkeys(NOT_KNOWN) | {"scope": scope, "problem": "NVML was not read yet"}


@pytest.mark.parametrize("owner", [None, ALICE])
def test_what_is_not_known_or_old_is_told_to_everybody(owner: Uid | None) -> None:
    """Devices that could not be read, and how old everything is."""
    told = _shown(ROUND, owner=owner, problem="no driver")
    assert (told["age_seconds"], told["elsewhere_age_seconds"], told["problem"]) == (7.5, 7.5, "no driver")
    assert told["unlisted_devices"] == [
        {"device": GPU, "index": "0", "why": "it has not answered for 5 s", "age_seconds": 7.5},
        {"device": None, "index": "1", "why": "it has never answered", "age_seconds": None},
    ]


def test_what_was_not_looked_at_is_null() -> None:
    """Before the first scan of descriptors, and before memory was judged."""
    told = _shown(replace(ROUND, scan=None, ghosts=None), owner=None)
    assert {name for name, value in told.items() if value is None} - {"problem"} == {
        "elsewhere",
        "elsewhere_age_seconds",
        "unattributed_memory",
        "unread",
    }


async def test_before_it_is_told_what_runs_it_is_not_known_whose_it_is(tmp_path: Path, world: World) -> None:
    """A process in a container is nobody's then, so that its owner would read that there is none."""
    asked = Asked(world, NOBODY)
    asked.told._named = None
    async with served(tmp_path, asked.routes) as call:
        assert (await call("GET", "/v1/processes"))[1][
            "problem"
        ] == "it was not told yet which containers run"
        asked.rounds.problem = "no driver"
        assert (await call("GET", "/v1/processes"))[1]["problem"] == "no driver"
        asked.told.tell([])
        asked.rounds.problem = None
        assert (await call("GET", "/v1/processes"))[1]["problem"] is None


class Rounds:
    """What of the tracking the routes use."""

    def __init__(self) -> None:
        self.last: Round | None = ROUND
        self.problem: str | None = None
        self.rules = HostProcesses()


class Asked:
    """The routes for a peer that is trusted or not."""

    def __init__(
        self, world: World, trusted: frozenset[int], foreign: ForeignContainers | None = None
    ) -> None:
        self.rounds = Rounds()
        self.watched: list[None] = []
        self.told = _told()
        self.foreign = ForeignContainers() if foreign is None else foreign
        requests = AccessRequests(
            world.access,
            account=self.account,
            now=lambda: NOW,
            utc_seconds=lambda: world.utc,
        )
        self.routes = ProcessRoutes(
            cast("Tracking", self.rounds),
            self.told,
            self.foreign,
            OWNERS,
            requests,
            find=self.find,
            watched=lambda: self.watched.append(None),
            now=lambda: LATER,
            trusted_uids=trusted,
        ).routes()

    async def find(self, number: LeaseId) -> Lease | None:
        """A ledger with one lease, which is over."""
        return lease("known", state=LeaseState.RELEASED) if number == "known" else None

    async def account(self, name: str) -> Account | None:
        return Account(uid=ALICE, name="alice", is_person=True) if name == "alice" else None


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    made = World(tmp_path)
    yield made
    await made.access.close()
    made.processes.close()


async def test_the_proxy_tells_what_runs_and_what_policy_says(tmp_path: Path, world: World) -> None:
    """What is not read whole changes nothing."""
    asked = Asked(world, TRUSTED)
    async with served(tmp_path, asked.routes) as call:
        inspect: dict[str, Any] = {
            "Config": {},
            "HostConfig": {"DeviceCgroupRules": ["a *:* rwm"]},
            "Mounts": [],
        }
        foreign = {"runs": True, "inspect": inspect, "monitor": False}
        one = {"id": "b" * 64, "pid": 5, "owner_uid": None, "name": "old", "foreign": foreign}
        assert await call("PUT", "/v1/containers", {"containers": [one]}) == (200, {})
        assert asked.told.name(ContainerId("b" * 64)) == "old"
        assert asked.foreign.taken(snapshot(gpu(0))) == {gpu(0).uuid}
        status, _ = await call("PUT", "/v1/containers", {"containers": [{**one, "pid": 0}]})
        assert (status, asked.told.name(ContainerId("b" * 64))) == (400, "old")
        rules = {"host_processes": "warn", "unleased": "stop", "grace_seconds": 5, "exempt": []}
        assert await call("PUT", "/v1/host-rules", rules) == (200, {})
        assert asked.rounds.rules.host_processes is HostRule.WARN
        assert asked.rounds.rules.unleased is HostRule.STOP
        status, told = await call("GET", "/v1/processes")
        assert (status, len(told["processes"])) == (200, 3)


async def test_what_a_lost_lease_gave_is_taken(tmp_path: Path, world: World) -> None:
    """What runs on a lease that the ledger has is no more than that lease; on one that it does not have, all of it."""
    asked = Asked(world, TRUSTED)
    seen = snapshot(gpu(0), gpu(1), gpu(2))
    async with served(tmp_path, asked.routes) as call:
        for number, index, taken in (("known", "0", set()), ("lost", "1", {gpu(1).uuid})):
            inspect: dict[str, Any] = {
                "Config": {},
                "HostConfig": {"Runtime": "ds01", "DeviceRequests": [{"DeviceIDs": [index]}]},
                "Mounts": [],
            }
            carries = {"lease": number, "inspect": inspect}
            one: dict[str, Any] = {"id": "b" * 64, "pid": 5, "owner_uid": 1000, "name": "web"}
            one["carries"] = carries
            assert await call("PUT", "/v1/containers", {"containers": [one]}) == (200, {})
            assert asked.foreign.taken(seen) == taken
        one["carries"] = {"lease": "lost", "inspect": None}
        assert await call("PUT", "/v1/containers", {"containers": [one]}) == (200, {})
        assert asked.foreign.taken(seen) == set(seen.devices)


async def test_root_grants_and_takes_access(tmp_path: Path, world: World) -> None:
    """By the name of who asks; a body that cannot be read is 400, who is not there 404."""
    async with served(tmp_path, Asked(world, TRUSTED).routes) as call:
        wish = {"user": "alice", "seconds": 3600, "reason": "profiling"}
        status, given = await call("POST", "/v1/host-access", wish)
        assert (status, given["user"]) == (201, "alice")
        assert given["granted_by"]
        _, listed = await call("GET", "/v1/host-access")
        assert [one["user"] for one in listed["grants"]] == ["alice"]
        assert (await call("POST", "/v1/host-access", {"user": "alice"}))[0] == 400
        assert (await call("POST", "/v1/host-access/revoke", {"user": "alice"}))[0] == 200
        assert (await call("POST", "/v1/host-access/revoke", {"user": "alice"}))[0] == 404


@pytest.mark.parametrize("trusted", [TRUSTED, NOBODY])
async def test_who_looks_at_processes_watches(tmp_path: Path, world: World, trusted: frozenset[int]) -> None:
    """Everybody, and nothing else that is asked does."""
    asked = Asked(world, trusted)
    async with served(tmp_path, asked.routes) as call:
        await call("GET", "/v1/host-access")
        assert len(asked.watched) == 0
        await call("GET", "/v1/processes")
        assert len(asked.watched) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", "/v1/containers"),
        ("PUT", "/v1/host-rules"),
        ("POST", "/v1/host-access"),
        ("POST", "/v1/host-access/revoke"),
    ],
)
async def test_others_only_look(tmp_path: Path, world: World, method: str, path: str) -> None:
    """At what is theirs."""
    asked = Asked(world, NOBODY)
    async with served(tmp_path, asked.routes) as call:
        status, said = await call(method, path, {"user": "alice"})
        assert (status, said["message"]) == (403, f"ds01: {words(method, path)}")
        _, told = await call("GET", "/v1/processes")
        assert all(one["owner_uid"] == os.getuid() for one in told["processes"])
        assert await call("GET", "/v1/host-access") == (200, {"grants": []})
