"""Whose foreign containers may be: the host is asked for what the evidence names, and never twice at once."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from allocator.adoption import Evidence, Inspected, Ownership
from allocator.foreign_owners import ForeignOwners, Host, look
from host.users import Account
from policy.model import ContainerId, Gid, Uid

ALICE, BOB = 1000, 1001
NAMES = {"alice": ALICE, "bob": BOB, "daemon": 1}
PATHS = {"/home/bob/data": BOB, "/srv/app": ALICE, "/var/lib": 1}


def _account(uid: int) -> Account | None:
    for name, known in NAMES.items():
        if known == uid:
            nothing: frozenset[str] = frozenset()
            return Account(
                uid=Uid(uid), gid=Gid(uid), name=name, groups=nothing, gids=frozenset(), home=f"/home/{name}"
            )
    return None


def _owner_of(path: str) -> int:
    if path not in PATHS:
        raise FileNotFoundError(path)
    return PATHS[path]


HOST = Host(
    first_uid=1000,
    owner_of=_owner_of,
    by_name=lambda name: _account(NAMES.get(name, -1)),
    by_uid=_account,
)


def container(name: str = "x", binds: tuple[str, ...] = (), **labels: str) -> Inspected:
    plain = {key.replace("__", "."): value for key, value in labels.items()}
    return Inspected(id=ContainerId(name[0] * 64), name=name, labels=plain, binds=binds)


@pytest.mark.parametrize(
    ("given", "owner", "evidence"),
    [
        pytest.param(container(aime__mlc="alice"), ALICE, Evidence.LEGACY_LABEL, id="label"),
        pytest.param(container("torch._.1001"), BOB, Evidence.NAME, id="name"),
        pytest.param(
            container(binds=("/gone", "/home/bob/data")), BOB, Evidence.HOME_MOUNT, id="mount of a home"
        ),
        pytest.param(
            container(devcontainer__local_folder="/srv/app"), ALICE, Evidence.PROJECT_PATH, id="project"
        ),
        pytest.param(container(aime__mlc="daemon"), None, None, id="no person"),
        pytest.param(container("torch._.4242"), None, None, id="no account"),
        pytest.param(container(binds=("/var/lib", "/gone")), None, None, id="nothing"),
    ],
)
def test_the_host_is_asked_for_what_the_evidence_names(
    given: Inspected, owner: int | None, evidence: Evidence | None
) -> None:
    """And for nothing else: no account is listed."""
    found = look(given, HOST)
    assert (found.owner, found.evidence) == (owner, evidence)


def test_a_path_is_whose_it_is_itself(tmp_path: Path) -> None:
    """By lstat of the real file system; a null byte in a path names none."""
    link = tmp_path / "link"
    link.symlink_to("/etc")
    own = link.lstat().st_uid
    host = replace(
        HOST, owner_of=Host(first_uid=0).owner_of, first_uid=0, by_uid=lambda uid: person(uid, own)
    )
    given = container(devcontainer__local_folder=str(link), binds=("/\0",))
    assert look(given, host).owner == own


def person(uid: int, own: int) -> Account | None:
    account = _account(ALICE)
    return replace(account, uid=Uid(own)) if account is not None and uid == own else None


def _said(one: Inspected) -> Ownership:
    return Ownership(owner=Uid(ALICE), evidence=Evidence.NAME, why=one.name)


async def _settled(owners: ForeignOwners) -> None:
    async with asyncio.timeout(5):
        if owners._looking is not None:
            await owners._looking


async def test_each_container_is_looked_at_once() -> None:
    """Until it is told otherwise, and it is forgotten once it is gone."""
    looked: list[str] = []

    def note(one: Inspected) -> Ownership:
        looked.append(one.name)
        return _said(one)

    owners, one = ForeignOwners(note), container("a")
    assert owners.of(one.id) is None
    for told in ([one], [one], [replace(one, name="new")], []):
        owners.tell(told)
        await _settled(owners)
        kept = owners.of(one.id)
        assert (kept.why if kept else None) == (told[0].name if told else None)
    assert looked == ["a", "new"]


async def test_a_look_that_fails_is_tried_again_with_the_next_telling() -> None:
    """Until then nothing is known."""
    answers: list[OSError | None] = [OSError("NSS is away"), None]

    def fail_once(one: Inspected) -> Ownership:
        if error := answers.pop(0):
            raise error
        return _said(one)

    owners, one = ForeignOwners(fail_once), container("a")
    owners.tell([one])
    await _settled(owners)
    assert owners.of(one.id) is None
    owners.tell([one])
    await _settled(owners)
    assert owners.of(one.id) is not None


async def test_a_look_that_hangs_has_none_beside_it() -> None:
    """Tellings go on; what is gone when it returns is not kept, and what came meanwhile is looked at then."""
    go, begun, looked = threading.Event(), threading.Event(), []

    def hang(one: Inspected) -> Ownership:
        looked.append(one.name)
        begun.set()
        assert go.wait(5)
        return _said(one)

    owners = ForeignOwners(hang)
    try:
        owners.tell([container("a")])
        await asyncio.to_thread(begun.wait, 5)
        for _ in range(3):
            owners.tell([container("b")])
            await asyncio.sleep(0)
        assert looked == ["a"]
    finally:
        go.set()
    await _settled(owners)
    assert looked == ["a", "b"]
    assert owners.of(container("a").id) is None
    assert owners.of(container("b").id) is not None
