"""Whose a process is: tables of evidence."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from allocator.attribution import (
    NOBODY,
    Attribution,
    Identity,
    Kind,
    KnownContainer,
    ProcessFacts,
    Proof,
    SubuidRange,
    Surroundings,
    UidRange,
    attribute,
    by_path,
    own_paths,
    unseen,
)
from allocator.cgroup_paths import Engine
from policy.model import ContainerId, Uid

A, B = ContainerId("a" * 64), ContainerId("b" * 64)
STEP = "zx3kq9v0m1n2b3v4c5x6z7a8s"
ALICE, BOB = Uid(1000), Uid(1001)
MANAGER = "/user.slice/user-1000.slice/user@1000.service"
SUBUIDS = (
    SubuidRange(owner=ALICE, first=100000, count=65536),
    SubuidRange(owner=BOB, first=165536, count=65536),
)
INITIAL = (UidRange(inside=0, outside=0, count=4294967295),)


def process(cgroup: str | None = "0::/\n", **changes: Any) -> ProcessFacts:
    """A process of root's that nobody logged in for."""
    facts = ProcessFacts(
        identity=Identity(boot_id="boot", pid=7, start_ticks=1),
        cgroup=cgroup,
        login_uid=NOBODY,
        real_uid=Uid(0),
        uid_map=INITIAL,
        own_pid_namespace=True,
    )
    return replace(facts, **changes)


def known(container: ContainerId = A, owner: Uid | None = ALICE, *paths: str) -> KnownContainer:
    return KnownContainer(id=container, owner=owner, paths=frozenset(paths or {f"/docker/{container}"}))


def decided(facts: ProcessFacts, *containers: KnownContainer) -> Attribution:
    return attribute(facts, Surroundings(containers=by_path(containers), subuids=SUBUIDS))


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(f"/docker/{A}", id="cgroupfs"),
        pytest.param(f"/ds01/1000/{A}", id="cgroupfs, own parent"),
        pytest.param(f"/system.slice/docker-{A}.scope", id="systemd"),
        pytest.param(f"/ds01.slice/ds01-1000.slice/docker-{A}.scope", id="systemd, own parent"),
        pytest.param(f"/kubepods.slice/cri-containerd-{A}.scope", id="CRI"),
        pytest.param(f"/system.slice/nerdctl-{A}.scope", id="nerdctl"),
        pytest.param(f"/machine.slice/libpod-{A}.scope/container", id="podman"),
    ],
)
def test_each_form_is_of_a_known_container_or_of_nobody(path: str) -> None:
    """The engine's own word for where the container is decides; the name alone gives no owner."""
    facts = process(f"0::{path}\n")
    inside = decided(facts, known(A, ALICE, *own_paths(f"0::{path}\n", A)))
    assert (inside.kind, inside.owner, inside.proof, inside.container) == (
        Kind.CONTAINER,
        ALICE,
        Proof.CONTAINER,
        A,
    )
    alone = decided(facts)
    assert (alone.kind, alone.owner, alone.container) == (Kind.OTHER_CONTAINER, None, A)
    elsewhere = decided(facts, known(A, ALICE, f"/other/{A}"))
    assert elsewhere.kind is Kind.OTHER_CONTAINER


@pytest.mark.parametrize(
    ("path", "kind", "owner"),
    [
        pytest.param(f"/docker/{A}", Kind.CONTAINER, ALICE, id="equal"),
        pytest.param(f"/docker/{A}/docker/{'c' * 64}", Kind.CONTAINER, ALICE, id="DinD"),
        pytest.param(f"/docker/{A}/buildkit/{STEP}", Kind.CONTAINER, ALICE, id="BuildKit in a container"),
        pytest.param(f"/docker/{A}/user.slice/user-1001.slice", Kind.CONTAINER, ALICE, id="slices within"),
        pytest.param(f"/docker/{A}x", Kind.OTHER_CONTAINER, None, id="a longer name is no prefix"),
        pytest.param(f"/docker/{A}/{B}", Kind.CONTAINER, BOB, id="the innermost that is known"),
        pytest.param(
            f"{MANAGER}/docker-{A}.scope", Kind.USER, ALICE, id="forged, of a container of one's own"
        ),
        pytest.param(f"{MANAGER}/docker-{B}.scope", Kind.USER, ALICE, id="forged, of another's container"),
        pytest.param(f"{MANAGER}/docker/{B}", Kind.USER, ALICE, id="forged, cgroupfs"),
        pytest.param("/", Kind.SERVICE, None, id="above all containers"),
    ],
)
def test_a_container_is_told_by_where_it_is(path: str, kind: Kind, owner: Uid | None) -> None:
    """Equality with the container's cgroup, or below it, and nothing else."""
    found = decided(process(f"0::{path}\n"), known(), known(B, BOB, f"/docker/{A}/{B}", f"/docker/{B}"))
    assert (found.kind, found.owner) == (kind, owner)


def test_on_cgroup_v1_any_hierarchy_tells() -> None:
    """A controller that is not mounted reads "/", and counts for nothing."""
    found = decided(process(f"12:pids:/docker/{A}\n11:misc:/\n0::/\n"), known())
    assert (found.kind, found.container) == (Kind.CONTAINER, A)


@pytest.mark.parametrize(
    ("text", "containers"),
    [
        pytest.param(
            f"2:cpu:/docker/{A}\n1:pids:/docker/{B}\n", (known(), known(B, BOB)), id="two known containers"
        ),
        pytest.param(f"2:cpu:/docker/{A}\n1:pids:/docker/{B}\n", (), id="two names"),
        pytest.param(
            "2:cpu:/user.slice/user-1000.slice\n1:pids:/user.slice/user-1001.slice\n", (), id="two users"
        ),
        pytest.param("0::/../docker/x\n", (), id="outside the cgroup namespace"),
        pytest.param("", (), id="empty"),
        pytest.param(None, (), id="unreadable"),
    ],
)
def test_a_contradiction_is_unknown(text: str | None, containers: tuple[KnownContainer, ...]) -> None:
    """What contradicts itself or cannot be read is attributed to nobody, and says why; a login does not help."""
    found = decided(process(text, login_uid=ALICE, real_uid=ALICE), *containers)
    assert (found.kind, found.owner) == (Kind.UNKNOWN, None)
    assert found.why


def test_a_container_that_nobody_owns_is_a_container_all_the_same() -> None:
    """Its owner is unknown, not nobody."""
    found = decided(process(f"0::/docker/{A}\n"), known(A, None))
    assert (found.kind, found.owner, found.proof) == (Kind.CONTAINER, None, None)


def test_what_has_just_ended_stands_for_nothing() -> None:
    """A first process that ended reads "/": it would make every process of the host the container's."""
    assert own_paths("2:pids:/\n0::/\n", A) == frozenset()
    assert own_paths(f"2:pids:/docker/{A}\n1:cpu:/\n", A) == {f"/docker/{A}"}
    assert own_paths(f"0::{MANAGER}/docker-{A}.scope\n", A) == frozenset()


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        pytest.param(f"/docker/buildkit/{STEP}", None, id="v1"),
        pytest.param(f"/system.slice/docker-{STEP}.scope", None, id="v2"),
        pytest.param(f"/ds01/1001/build/{STEP}", BOB, id="own parent"),
        pytest.param(f"/ds01.slice/ds01-1001.slice/build/{STEP}", BOB, id="own parent, systemd"),
    ],
)
def test_a_build_step_is_its_parents_owners(path: str, owner: Uid | None) -> None:
    """A step runs in no container; in a cgroup that ds01 made for a user it is that user's."""
    found = decided(process(f"0::{path}\n"))
    assert (found.kind, found.owner, found.step) == (Kind.BUILD_STEP, owner, STEP)


@pytest.mark.parametrize(
    ("facts", "owner", "proof"),
    [
        pytest.param(process(f"0::{MANAGER}/app.slice\n"), ALICE, Proof.SLICE, id="slice"),
        pytest.param(
            process("0::/user.slice/user-1000.slice/session-2.scope\n"), ALICE, Proof.SLICE, id="sudo"
        ),
        pytest.param(
            process("0::/user.slice/user-1000.slice/session-2.scope\n", login_uid=BOB, real_uid=BOB),
            ALICE,
            Proof.SLICE,
            id="the slice before login and uid",
        ),
        pytest.param(
            process("0::/user.slice/user-0.slice/session-2.scope\n"), Uid(0), Proof.SLICE, id="root's"
        ),
        pytest.param(
            process("0::/system.slice/cron.service\n", login_uid=ALICE), ALICE, Proof.LOGIN, id="login"
        ),
        pytest.param(
            process("0::/system.slice/cron.service\n", login_uid=ALICE, real_uid=BOB),
            ALICE,
            Proof.LOGIN,
            id="the login before the uid",
        ),
        pytest.param(
            process("0::/system.slice/jupyterhub.service\n", real_uid=BOB), BOB, Proof.REAL_UID, id="uid"
        ),
        pytest.param(process(real_uid=Uid(100999)), ALICE, Proof.SUBUID, id="subuid"),
        pytest.param(process(real_uid=Uid(165536)), BOB, Proof.SUBUID, id="the first of the next range"),
        pytest.param(
            process(real_uid=Uid(100999), own_pid_namespace=False),
            ALICE,
            Proof.SUBUID,
            id="subuid, in a container",
        ),
        pytest.param(
            process(
                real_uid=Uid(700000),
                uid_map=(
                    UidRange(inside=0, outside=1001, count=1),
                    UidRange(inside=1, outside=700000, count=9),
                ),
            ),
            BOB,
            Proof.SUBUID,
            id="the single uid of a rootless namespace",
        ),
        pytest.param(
            process(f"0::{MANAGER}/user.slice/libpod-{B}.scope/container\n", real_uid=Uid(100999)),
            ALICE,
            Proof.SLICE,
            id="rootless podman",
        ),
    ],
)
def test_a_hosts_process_is_the_first_hits(facts: ProcessFacts, owner: Uid, proof: Proof) -> None:
    """Slice, then login, then uid, then lent uids."""
    found = decided(facts, known(B, BOB))
    assert (found.kind, found.owner, found.proof) == (Kind.USER, owner, proof)


def test_all_three_uids_are_kept() -> None:
    """Whichever decided: sudo in a session of Alice's, begun by a login of Bob's."""
    found = decided(
        process("0::/user.slice/user-1000.slice/session-2.scope\n", login_uid=BOB, real_uid=Uid(0))
    )
    assert (found.slice_uid, found.login_uid, found.real_uid) == (ALICE, BOB, 0)
    assert found.unit == "session-2.scope"
    nobody = decided(process("0::/system.slice/x.service\n"))
    assert (nobody.slice_uid, nobody.login_uid, nobody.real_uid) == (NOBODY, NOBODY, 0)
    unread = decided(process(None, login_uid=None))
    assert (unread.slice_uid, unread.login_uid) == (None, None)


def test_a_service_is_nobodys() -> None:
    """Root's or a system account's, that nobody logged in for."""
    found = decided(process("0::/system.slice/nvidia-persistenced.service\n", real_uid=Uid(120)))
    assert (found.kind, found.owner, found.unit) == (Kind.SERVICE, None, "nvidia-persistenced.service")


@pytest.mark.parametrize(
    "changes",
    [{"login_uid": None}, {"real_uid": None}, {"own_pid_namespace": None}],
    ids=["login", "uid", "namespaces"],
)
def test_what_was_not_read_makes_no_service(changes: dict[str, Any]) -> None:
    """Nobody's is said only when everything that names somebody was read."""
    assert decided(process("0::/system.slice/x.service\n", **changes)).kind is Kind.UNKNOWN


@pytest.mark.parametrize("uid", [0, 1000])
def test_a_uid_in_another_pid_namespace_means_nothing(uid: int) -> None:
    """LXC and the like: root or 1000 in there is whoever that container says."""
    found = decided(process("0::/lxc.payload.web/x\n", real_uid=Uid(uid), own_pid_namespace=False))
    assert (found.kind, found.owner) == (Kind.OTHER_CONTAINER, None)


def test_podman_of_root_is_the_logins() -> None:
    """Podman has no daemon, so the login is that of who ran it; other engines' children have their daemon's."""
    podman = decided(process(f"0::/machine.slice/libpod-{A}.scope/container\n", login_uid=ALICE))
    assert (podman.kind, podman.owner, podman.engine) == (Kind.OTHER_CONTAINER, ALICE, Engine.PODMAN)
    nerdctl = decided(process(f"0::/system.slice/nerdctl-{A}.scope\n", login_uid=ALICE))
    assert nerdctl.owner is None


def test_a_uid_that_two_were_lent_is_unknown() -> None:
    """Ranges that overlap name nobody."""
    around = Surroundings(subuids=(*SUBUIDS, SubuidRange(owner=BOB, first=100000, count=5)))
    assert attribute(process(real_uid=Uid(100001)), around).kind is Kind.UNKNOWN


def test_uids_of_no_person_name_nobody() -> None:
    """nobody, and numbers below UID_MIN."""
    for uid in (65534, 999):
        assert decided(process(real_uid=Uid(uid))).kind is Kind.SERVICE


def test_what_proc_does_not_show_says_why() -> None:
    """A process that only NVML knows of."""
    assert unseen("gone").why == "gone"
