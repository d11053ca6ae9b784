"""One start on real files, real mounts and a real mount namespace: what ends up in the bundle, or why not. Runs as root."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from host.binds import hold
from host.trusted import Untrusted
from host.users import Account, Users
from policy.approval import Approval, ApprovedMount, Source
from policy.engine_note import EngineNote
from policy.model import ContainerId, DeviceUuid, Gid, LeaseId, Uid
from policy.stand_ins import StandIn, StandIns
from runtime import service
from runtime.checks import Refused
from runtime.pins import Pins, StandInPins
from runtime.ports import Lease, LeaseOver, LeasesUnavailable
from runtime.service import Allowed, Copy, Guard, Start
from tests.unit.runtime.test_bundle import CONFIG

if TYPE_CHECKING:
    from host.mounts import MountNamespace
    from tests.unit.runtime.conftest import SignedApprovals

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")

ID = ContainerId("a" * 64)
ALICE, SHARED_GID = 61234, 61299
LEASE = LeaseId("L1")
GPU = DeviceUuid("GPU-1")
APPROVAL = Approval(container=ID, engine_id="e" * 32, uid=Uid(ALICE))


class FakeLeases:
    """One lease, or the reason why it cannot be told."""

    def __init__(self) -> None:
        self.answer: Lease | LeaseOver | LeasesUnavailable | None = Lease(
            state="active", devices=frozenset({GPU}), container=ID
        )
        self.asked = 0

    def start(self, _lease: LeaseId, _container: ContainerId) -> Lease | None:
        self.asked += 1
        if isinstance(self.answer, LeaseOver | LeasesUnavailable):
            raise self.answer
        return self.answer


class World:
    """A guard, alice's home, and a container that is about to start."""

    def __init__(self, room: Path, place: MountNamespace, approvals: SignedApprovals) -> None:
        self.room, self.place, self.approvals = room, place, approvals
        self.home = room / "home"
        self.home.mkdir(mode=0o700)
        os.chown(self.home, ALICE, ALICE)
        self.leases = FakeLeases()
        self.accounts: dict[int, Account] = {ALICE: self.account()}
        self.board = room / "pins"
        self.stand_ins = StandIns(str(room / "sources"))
        self.guard = Guard(
            board=self.board,
            stand_ins=self.stand_ins,
            approvals=approvals.reader,
            note=lambda: EngineNote(runtime="ds01", data_root="/var/lib/docker"),
            users=Users(look_up=self.accounts.get, first_uid=1000),
            leases=self.leases,
        )
        self.bundle = room / "bundle"
        self.bundle.mkdir(mode=0o700)

    def account(self, *gids: int) -> Account:
        return Account(
            uid=Uid(ALICE),
            gid=Gid(ALICE),
            name="alice",
            groups=frozenset(),
            gids=frozenset({ALICE, *gids}),
            home=str(self.home),
        )

    def directory(self, name: str) -> Path:
        path = self.home / name
        path.mkdir()
        os.chown(path, ALICE, ALICE)
        (path / "marker").write_text("mine")
        return path

    def write_bundle(self, *mounts: tuple[Path | str, str], visible: str = "void", **linux: Any) -> None:
        config = json.loads(json.dumps(CONFIG))
        config["mounts"] = [
            {"destination": target, "type": "bind", "source": str(source), "options": ["rbind"]}
            for source, target in mounts
        ]
        config["process"] = {"env": [f"NVIDIA_VISIBLE_DEVICES={visible}"]}
        config["linux"] |= {
            "cgroupsPath": f"/ds01/{ALICE}/{ID}",
            "namespaces": [{"type": kind} for kind in ("mount", "network", "uts", "pid", "ipc")],
            "devices": [],
            **linux,
        }
        (self.bundle / "config.json").write_text(json.dumps(config))
        (self.bundle / "config.json").chmod(0o644)

    def approve(self, *mounts: ApprovedMount, **more: Any) -> None:
        self.approvals.write(replace(APPROVAL, mounts=mounts, **more))

    def start(self) -> Start:
        return Start(container=ID, bundle=self.bundle, place=self.place, pins=Pins(self.board, ID))

    def decide(self) -> Allowed:
        return self.guard.decide(self.start())

    def refusal(self) -> str:
        with pytest.raises(Refused) as caught:
            self.decide()
        return str(caught.value)

    def sources(self) -> list[Path]:
        config = json.loads((self.bundle / "config.json").read_text())
        return [Path(mount["source"]) for mount in config["mounts"]]


@pytest.fixture
def world(room: Path, place: MountNamespace, approvals: SignedApprovals) -> World:
    return World(room, place, approvals)


def path(source: Path, target: str = "/d", **how: Any) -> ApprovedMount:
    plain: dict[str, Any] = {"read_only": False, "create": False, "setuid_ok": True}
    return ApprovedMount(kind=Source.PATH, source=str(source), target=target, **(plain | how))


def test_an_approved_source_is_pinned_and_written(world: World) -> None:
    """runc gets a path where only root gets, and there is what the owner has at the approved one."""
    source = world.directory("d")
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    assert world.decide() == Allowed(uid=Uid(ALICE), lease=None, pins=1)
    (pinned,) = world.sources()
    assert pinned.is_relative_to(world.board)
    source.rename(world.home / "away")
    source.symlink_to("/etc")
    assert world.place.run((pinned / "marker").read_text) == "mine"


def test_a_directory_made_anew_by_its_owner_is_mounted(world: World) -> None:
    """`rm -r build; mkdir build`: another inode, and what a create of now would be let have."""
    source = world.directory("build")
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    shutil.rmtree(source)
    world.directory("build")
    world.decide()


def test_a_file_replaced_by_an_editor_is_mounted(world: World) -> None:
    """Editors write a new file and rename it over the old one."""
    source = world.directory("d") / "app.conf"
    source.write_text("new")
    os.chown(source, ALICE, ALICE)
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    world.decide()
    assert world.place.run(world.sources()[0].read_text) == "new"


def test_a_directory_that_may_be_made_is_made_as_its_owner(world: World) -> None:
    """Docker's -v makes it at every start, as root; here it is the user's."""
    source = world.home / "fresh"
    world.write_bundle((source, "/d"))
    world.approve(path(source, create=True))
    world.decide()
    assert source.stat().st_uid == ALICE


@pytest.mark.parametrize(
    ("swap", "words"),
    [
        (lambda source: source.symlink_to("/etc"), "leads elsewhere now"),
        (lambda source: None, "does not exist"),
        (lambda source: os.mkfifo(source), "neither a directory nor a regular file"),  # noqa: PLW0108  a function of one argument
        (lambda source: source.mkdir(mode=0o700), "you may not read"),
        (lambda source: source.mkdir(mode=0o755), "you may not write"),
    ],
    ids=["a link", "nothing", "a fifo", "another's directory", "another's readable directory"],
)
def test_what_took_its_place_is_judged_as_its_owner(world: World, swap: Any, words: str) -> None:
    """And the bundle is left as it was, with nothing pinned."""
    source = world.directory("d")
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    shutil.rmtree(source)
    swap(source)
    told = world.refusal()
    assert words in told
    assert f"{source} cannot be mounted at /d" in told
    assert "(rule bind_mounts); " in told
    assert world.sources() == [source]


def test_a_link_further_up_is_not_followed_either(world: World) -> None:
    """Every component is the very one that was approved by name."""
    source = world.directory("p") / "d"
    source.mkdir()
    os.chown(source, ALICE, ALICE)
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    (world.home / "p").rename(world.home / "q")
    (world.home / "p").symlink_to(world.home / "q")
    assert "leads elsewhere now" in world.refusal()


def test_a_mount_with_setuid_is_looked_for_on_the_pin(world: World) -> None:
    """The file system of this test's directory honours setuid files, and policy did not accept that."""
    source = world.directory("d")
    world.write_bundle((source, "/d"))
    world.approve(path(source, setuid_ok=False))
    assert f"the file system at {source} is not mounted nosuid,nodev" in world.refusal()


def test_groups_are_those_of_today(world: World) -> None:
    """Who left a group keeps nothing of it, whatever the create was let have."""
    shared = world.room / "shared"
    shared.mkdir()
    os.chown(shared, 0, SHARED_GID)
    shared.chmod(0o770)
    world.write_bundle((shared, "/d"))
    world.approve(path(shared))
    world.accounts[ALICE] = world.account(SHARED_GID)
    world.decide()
    world.write_bundle((shared, "/d"))
    world.accounts[ALICE] = world.account()
    world.guard._users.forget()
    assert "you may not read" in world.refusal()


def test_an_owner_without_an_account_starts_nothing_of_the_host(world: World) -> None:
    """A removed account's containers do not mount what is the next one's; without sources they start."""
    source = world.directory("d")
    world.accounts.clear()
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    assert "no account" in world.refusal()
    world.write_bundle()
    world.approve()
    world.decide()


def test_the_owners_socket_is_pinned_and_no_other(world: World) -> None:
    """It must be a socket, and the owner's."""
    door = world.room / "docker.sock"
    world.write_bundle((door, "/var/run/docker.sock"))
    world.approve(ApprovedMount(kind=Source.SOCKET, source=str(door), target="/var/run/docker.sock"))
    assert "is not there" in world.refusal()
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(str(door))
        assert "is not your Docker socket" in world.refusal()
        os.chown(door, ALICE, ALICE)
        assert world.decide().pins == 1
        assert world.place.run(world.sources()[0].is_socket)
    door.unlink()
    door.touch()
    os.chown(door, ALICE, ALICE)
    world.write_bundle((door, "/var/run/docker.sock"))
    assert "is not your Docker socket" in world.refusal()


def test_an_init_program_that_others_could_change_does_not_start(world: World) -> None:
    """The engine's own is root's."""
    program = world.room / "docker-init"
    program.touch(mode=0o755)
    config = [(program, "/sbin/docker-init")]
    world.approve()
    world.write_bundle(*config)
    document = json.loads((world.bundle / "config.json").read_text())
    document["mounts"][0]["options"].append("ro")
    for owner, starts in ((0, True), (ALICE, False)):
        os.chown(program, owner, owner)
        (world.bundle / "config.json").write_text(json.dumps(document))
        if starts:
            world.decide()
        else:
            assert "could be changed by others" in world.refusal()


# --- approvals ----------------------------------------------------------------------------------------------


def test_without_an_approval_a_source_does_not_start(world: World) -> None:
    """Whoever made the container, it was not let have it."""
    world.write_bundle((world.directory("d"), "/d"))
    assert "no record" in world.refusal()


def test_without_an_approval_a_plain_container_starts(world: World) -> None:
    """A build's step; the variable of its base image is made void."""
    world.write_bundle(visible="all")
    assert world.decide() == Allowed(uid=None, lease=None, pins=0)
    config = json.loads((world.bundle / "config.json").read_text())
    assert config["process"]["env"] == ["NVIDIA_VISIBLE_DEVICES=void"]


def test_a_bad_approval_is_not_none(world: World) -> None:
    """A file that proves nothing is a reason to refuse, also where nothing would be asked for."""
    world.write_bundle()
    world.approve()
    (world.approvals.directory / ID).write_bytes(b"x")
    assert "cannot be used" in world.refusal()


def test_an_unreadable_bundle_does_not_start(world: World) -> None:
    """And an engine of which nothing is known starts nothing."""
    assert "bundle cannot be read" in world.refusal()
    world.write_bundle()

    def unknown() -> EngineNote:
        raise Untrusted("engine.json is missing")

    world.guard._note = unknown
    assert "engine.json is missing" in world.refusal()


# --- leases -------------------------------------------------------------------------------------------------


def test_a_lease_that_holds_starts(world: World) -> None:
    """The allocator is asked, once."""
    world.write_bundle(visible=GPU)
    world.approve(lease=LEASE, devices=(GPU,))
    assert world.decide() == Allowed(uid=Uid(ALICE), lease=LEASE, pins=0)
    assert world.leases.asked == 1


@pytest.mark.parametrize(
    "answer",
    [
        None,
        Lease(state="released", devices=frozenset({GPU}), container=ID),
        Lease(state="lost", devices=frozenset({GPU}), container=ID),
        Lease(state="pending", devices=frozenset({GPU}), container=None),
        Lease(state="active", devices=frozenset({GPU}), container=ContainerId("b" * 64)),
        Lease(state="active", devices=frozenset({DeviceUuid("GPU-2")}), container=ID),
        Lease(state="active", devices=frozenset(), container=ID),
    ],
)
def test_a_lease_that_does_not_hold_starts_nothing(world: World, answer: Lease | None) -> None:
    """Ended, another container's, not confirmed, or of other devices."""
    world.write_bundle(visible=GPU)
    world.approve(lease=LEASE, devices=(GPU,))
    world.leases.answer = answer
    told = world.refusal()
    assert "the GPU lease L1 of this container has ended (rule gpu_lease)" in told


def test_a_lease_that_is_over_is_refused_in_the_words_of_the_allocator(world: World) -> None:
    """They name device, rule and next step already."""
    said = "ds01: MIG device 2:0 of this container is another one by now (rule gpu_lease); create it again"
    world.leases.answer = LeaseOver(said)
    world.write_bundle(visible=GPU)
    world.approve(lease=LEASE, devices=(GPU,))
    assert world.refusal() == said


def test_a_silent_allocator_stops_only_those_with_a_lease(world: World) -> None:
    """Others do not even ask."""
    world.leases.answer = LeasesUnavailable("the allocator does not answer")
    world.write_bundle(visible=GPU)
    world.approve(lease=LEASE, devices=(GPU,))
    assert "cannot be checked: the allocator does not answer (rule gpu_lease)" in world.refusal()
    asked = world.leases.asked
    world.write_bundle()
    world.approve()
    world.decide()
    assert world.leases.asked == asked


# --- hanging file systems -----------------------------------------------------------------------------------


def test_an_owner_whose_starts_hang_holds_up_nobody_else(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some starts of one owner may wait; the next is refused, and another owner's goes on."""
    release = threading.Event()
    waiting = threading.Semaphore(0)
    real = hold

    def slow(source: str, **how: Any) -> Any:
        if how["owner_uid"] == ALICE:
            waiting.release()
            release.wait(30)
        return real(source, **how)

    monkeypatch.setattr(service, "hold", slow)
    monkeypatch.setattr(service, "_TURN_SECONDS", 0.1)
    source = world.directory("d")
    world.write_bundle((source, "/d"))
    world.approve(path(source))
    threads = [
        threading.Thread(target=lambda: world.guard.decide(world.start())) for _ in range(service._AT_ONCE)
    ]
    for thread in threads:
        thread.start()
        waiting.acquire(timeout=10)
    try:
        assert "wait for a file system" in world.refusal()
        bob = ALICE + 1
        world.accounts[bob] = replace(world.account(), uid=Uid(bob), gid=Gid(bob), gids=frozenset({bob}))
        theirs = world.room / "theirs"
        theirs.mkdir()
        os.chown(theirs, bob, bob)
        world.write_bundle((theirs, "/d"), cgroupsPath=f"/ds01/{bob}/{ID}")
        world.approvals.write(replace(APPROVAL, uid=Uid(bob), mounts=(path(theirs),)))
        assert world.decide().uid == bob
    finally:
        release.set()
        for thread in threads:
            thread.join()


# --- copies ---------------------------------------------------------------------------------------------------


def stand_in(
    world: World, source: Path, target: str = "/d", *, ro: bool = False, **how: Any
) -> ApprovedMount:
    told = world.stand_ins.path(StandIn(source=str(source), uid=Uid(ALICE), read_only=ro))
    return path(source, target, told=told, **how)


def copying(world: World) -> tuple[Copy, Allowed]:
    asked = Copy(container=ID, place=world.place, pins=StandInPins(Pins(world.board, ID)))
    return asked, world.guard.copy(asked)


def copy_refusal(world: World) -> str:
    with pytest.raises(Refused) as caught:
        copying(world)
    return str(caught.value)


def test_a_copy_pins_each_source_on_its_stand_in(world: World) -> None:
    """What dockerd finds there is what the owner has at the approved path, whatever comes to the path meanwhile."""
    source = world.directory("d")
    mine = stand_in(world, source)
    world.approve(mine, replace(mine, target="/again"), stand_in(world, source / "marker", "/f", ro=True))
    asked, allowed = copying(world)
    assert allowed == Allowed(uid=Uid(ALICE), lease=None, pins=2)
    source.rename(world.home / "away")
    source.symlink_to("/etc")
    told = Path(mine.told)
    assert world.place.run((told / "marker").read_text) == "mine"
    world.place.run(asked.pins.remove)
    assert world.place.run(lambda: list(told.iterdir())) == []


def test_a_copy_makes_a_missing_directory_as_its_owner(world: World) -> None:
    """As a start does, for `-v`; not through a link."""
    mine = stand_in(world, world.home / "new", create=True)
    world.approve(mine)
    asked, _ = copying(world)
    assert (world.home / "new").stat().st_uid == ALICE
    world.place.run(asked.pins.remove)
    (world.home / "new").rmdir()
    (world.home / "new").symlink_to(world.room / "root")
    assert "leads elsewhere now" in copy_refusal(world)
    assert not (world.room / "root").exists()


def test_a_copy_is_refused_where_a_start_would_be(world: World) -> None:
    """And the sentence is the start's."""
    source = world.directory("d")
    mine = stand_in(world, source)
    world.approve(mine)
    source.rename(world.home / "away")
    source.symlink_to("/etc")
    assert "there is a symbolic link in it (rule bind_mounts)" in copy_refusal(world)
    source.unlink()
    assert "does not exist" in copy_refusal(world)


def test_a_stand_in_to_write_takes_what_its_owner_may_write(world: World) -> None:
    """Even for a container that mounts it read-only (`--volumes-from x:ro`): another may mount the same to write."""
    source = world.directory("d")
    os.chown(source, 0, 0)
    source.chmod(0o755)
    world.approve(stand_in(world, source, read_only=True))
    assert "you may not write" in copy_refusal(world)
    world.approve(stand_in(world, source, ro=True))
    asked, _ = copying(world)
    world.place.run(asked.pins.remove)


def test_a_stand_in_of_something_else_is_not_replaced(world: World) -> None:
    """The record says two things then."""
    source = world.directory("d")
    other = stand_in(world, world.directory("e"))
    world.approve(replace(other, source=str(source)))
    assert "is not what stands for" in copy_refusal(world)
    world.approve(replace(other, told="/etc"))
    assert "is not what stands for" in copy_refusal(world)


def test_a_container_without_stand_ins_needs_none(world: World) -> None:
    """Nothing of the host, no approval, or one from before."""
    assert copying(world)[1].pins == 0
    world.approve(path(world.directory("d")))
    assert copying(world)[1] == Allowed(uid=None, lease=None, pins=0)


def test_copies_that_never_end_keep_a_bounded_number_of_pins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of each owner: the kernel's mounts are for all."""
    monkeypatch.setattr(service, "_COPIED_AT_ONCE", 3)
    world.approve(*(stand_in(world, world.directory(name), f"/{name}") for name in "ab"))
    first, _ = copying(world)
    assert "being copied at once" in copy_refusal(world)
    world.place.run(first.pins.remove)
    second, _ = copying(world)
    world.place.run(second.pins.remove)
