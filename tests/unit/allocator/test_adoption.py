"""Whose a container is that ds01 did not create: tables of evidence."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.adoption import Evidence, HostFacts, Inspected, Person, paths_to_ask, read_inspect, whose
from policy.foreign import excerpt
from policy.model import ContainerId, Uid

ALICE = Person(uid=Uid(1000), name="alice", home="/home/alice")
BOB = Person(uid=Uid(1001), name="bob", home="/home/bob")
ROOTED = Person(uid=Uid(1002), name="rooted", home="/")
PATHS = {
    "/home/alice": ALICE.uid,
    "/home/alice/data": ALICE.uid,
    "/home/alice/bobs": BOB.uid,
    "/home/alice/roots": Uid(0),
    "/home/bob": BOB.uid,
    "/srv/app": BOB.uid,
    "/data": Uid(0),
    "/home/alice2": BOB.uid,
}
FACTS = HostFacts(people=(ALICE, BOB, ROOTED), path_owners=PATHS)
COMPOSE = "com.docker.compose.project.working_dir"


def container(name: str = "web", binds: tuple[str, ...] = (), **labels: str) -> Inspected:
    plain = {key.replace("__", "."): value for key, value in labels.items()}
    return Inspected(id=ContainerId("a" * 64), name=name, labels=plain, binds=binds)


@pytest.mark.parametrize(
    ("given", "owner", "evidence"),
    [
        pytest.param(container(ds01__user="alice"), ALICE, Evidence.LEGACY_LABEL, id="ds01.user"),
        pytest.param(container(aime__mlc__USER="bob"), BOB, Evidence.LEGACY_LABEL, id="aime.mlc.USER"),
        pytest.param(container(aime__mlc="bob"), BOB, Evidence.LEGACY_LABEL, id="aime.mlc"),
        pytest.param(container("torch._.1000"), ALICE, Evidence.NAME, id="name"),
        pytest.param(container(binds=("/home/alice",)), ALICE, Evidence.HOME_MOUNT, id="home"),
        pytest.param(
            container(binds=("/data", "/home/alice/data")), ALICE, Evidence.HOME_MOUNT, id="in the home"
        ),
        pytest.param(
            container(devcontainer__local_folder="/srv/app"), BOB, Evidence.PROJECT_PATH, id="dev container"
        ),
        pytest.param(
            Inspected(id=ContainerId("a" * 64), name="x", labels={COMPOSE: "/home/bob"}),
            BOB,
            Evidence.PROJECT_PATH,
            id="compose",
        ),
        pytest.param(
            container("x._.1001", ("/home/bob",), ds01__user="alice"),
            ALICE,
            Evidence.LEGACY_LABEL,
            id="label before name",
        ),
        pytest.param(container("x._.1001", ("/home/alice",)), BOB, Evidence.NAME, id="name before mount"),
        pytest.param(
            container(binds=("/home/alice",), devcontainer__local_folder="/srv/app"),
            ALICE,
            Evidence.HOME_MOUNT,
            id="mount before project",
        ),
        pytest.param(
            container(ds01__user="ghost", aime__mlc="bob"), BOB, Evidence.LEGACY_LABEL, id="no such account"
        ),
    ],
)
def test_the_strongest_evidence_counts(given: Inspected, owner: Person, evidence: Evidence) -> None:
    """Label, name, mount, project, in this order."""
    found = whose(given, FACTS, sealed=None)
    assert (found.owner, found.evidence) == (owner.uid, evidence)
    assert found.why


def test_a_seal_comes_before_all() -> None:
    """It is the only proof."""
    found = whose(container("x._.1001", ds01__user="bob"), FACTS, sealed=ALICE.uid)
    assert (found.owner, found.evidence) == (ALICE.uid, Evidence.SEAL)


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(container(), id="nothing"),
        pytest.param(container(ds01__user="alice", ds01__seal="v1.forged"), id="labels beside a bad seal"),
        pytest.param(container("x._.4242"), id="a name without account"),
        pytest.param(container("._.1000"), id="no name before the uid"),
        pytest.param(container(binds=("/home/alice/bobs",)), id="another's folder in a home"),
        pytest.param(container(binds=("/home/alice/roots",)), id="root's folder in a home"),
        pytest.param(container(binds=("/home/alice/absent",)), id="a source that is not there"),
        pytest.param(container(binds=("/home/alice2",)), id="a longer path"),
        pytest.param(container(binds=("/srv/app",)), id="a mount outside the home"),
        pytest.param(container(devcontainer__local_folder="/data"), id="a project of root's"),
        pytest.param(container(devcontainer__local_folder="C:\\work"), id="a project elsewhere"),
    ],
)
def test_what_proves_nothing_is_unknown(given: Inspected) -> None:
    """Unknown is an answer, with a reason."""
    found = whose(given, FACTS, sealed=None)
    assert (found.owner, found.evidence) == (None, None)
    assert found.why


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(container("x._.1000", ds01__user="alice", aime__mlc="bob"), id="labels"),
        pytest.param(container(binds=("/home/alice", "/home/bob")), id="mounts"),
    ],
)
def test_evidence_that_contradicts_itself_is_not_outvoted(given: Inspected) -> None:
    """Weaker evidence does not settle what stronger evidence leaves open; both are named."""
    found = whose(given, FACTS, sealed=None)
    assert found.owner is None
    assert "alice, bob" in found.why


def test_an_inspect_is_read() -> None:
    """What counts of it, in the API's spelling; volumes are no host paths."""
    inspect: dict[str, Any] = {
        "Id": "a" * 64,
        "Name": "/torch._.1000",
        "Config": {"Labels": {COMPOSE: "/home/bob"}},
        "Mounts": [
            {"Type": "bind", "Source": "/home/alice"},
            {"Type": "volume", "Source": "/var/lib/docker/x"},
        ],
    }
    found = read_inspect(inspect)
    told = excerpt(inspect) | {"Id": inspect["Id"], "Name": inspect["Name"]}
    assert read_inspect(told) == found, "the excerpt that the proxy sends says the same"
    assert (found.name, found.binds) == ("torch._.1000", ("/home/alice",))
    assert paths_to_ask(found) == ("/home/alice", "/home/bob")
    assert read_inspect({"Id": "a", "Name": "/x", "Config": {"Labels": None}, "Mounts": None}).labels == {}
    with pytest.raises(TypeError):
        read_inspect({"Mounts": {}})
