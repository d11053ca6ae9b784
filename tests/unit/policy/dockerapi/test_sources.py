"""Host paths of a create under other names; all else of it stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from policy.dockerapi.model import Operation, Request
from policy.dockerapi.sources import host_paths, with_sources, with_stand_ins, without_stand_ins
from policy.model import Uid
from policy.stand_ins import StandIns

ROOT = "/var/lib/ds01/sources"
STAND_INS = StandIns(ROOT)
SOCKET = "/run/ds01/users/alice/docker.sock"


def create(**host: Any) -> Request:
    return Request(
        operation=Operation.CONTAINER_CREATE, version=(1, 41), body={"Image": "x", "HostConfig": host}
    )


def mount(source: str, **more: Any) -> dict[str, Any]:
    return {"Type": "bind", "Source": source, "Target": "/t", **more}


CASES = [
    ("/home/a:/t", f"{ROOT}/7/2rw/home/a:/t"),
    ("/home/a:/t:ro", f"{ROOT}/7/2ro/home/a:/t:ro"),
    ("/home/a:/t:rslave,ro", f"{ROOT}/7/2ro/home/a:/t:rslave,ro"),
    ("/home/a:/ro", f"{ROOT}/7/2rw/home/a:/ro"),
    ("/home/a:/t:rw", f"{ROOT}/7/2rw/home/a:/t:rw"),
    ("/home/a", "/home/a"),  # an anonymous volume at that place
    ("volume:/home/a", "volume:/home/a"),
    (f"{SOCKET}:/s", f"{SOCKET}:/s"),
]


@pytest.mark.parametrize(("bind", "told"), CASES)
def test_binds(bind: str, told: str) -> None:
    """The source alone, by what it is mounted for."""
    made = with_stand_ins(create(Binds=[bind]), STAND_INS, uid=Uid(7), user_socket=SOCKET)
    assert made == create(Binds=[told])
    assert without_stand_ins(made, STAND_INS) == create(Binds=[bind])


def test_mounts() -> None:
    """Only those of type bind have a host path, and their other options stay."""
    options = {"BindOptions": {"Propagation": "rslave"}}
    others = [
        {"Type": "volume", "Source": "v", "Target": "/v"},
        {"Type": "tmpfs", "Target": "/x"},
        mount(SOCKET),
    ]
    asked = create(Mounts=[mount("/home/a", ReadOnly=True, **options), mount("/home/a"), *others])
    made = with_stand_ins(asked, STAND_INS, uid=Uid(7), user_socket=SOCKET)
    assert made == create(
        Mounts=[
            mount(f"{ROOT}/7/2ro/home/a", ReadOnly=True, **options),
            mount(f"{ROOT}/7/2rw/home/a"),
            *others,
        ]
    )
    assert without_stand_ins(made, STAND_INS) == asked
    assert host_paths(made) == (f"{ROOT}/7/2ro/home/a", f"{ROOT}/7/2rw/home/a", SOCKET)


def test_real_paths() -> None:
    """A path that leads elsewhere is what it leads to; a volume's target of the same spelling is not."""
    asked = create(Binds=["/home/a/link:/t", "/home/a/link"], Mounts=[mount("/home/a/link")])
    assert with_sources(asked, {"/home/a/link": "/data"}) == create(
        Binds=["/data:/t", "/home/a/link"], Mounts=[mount("/data")]
    )


def test_what_has_none() -> None:
    """Nothing is made up."""
    bare = Request(operation=Operation.CONTAINER_CREATE, version=(1, 41), body={"Image": "x"})
    assert with_stand_ins(bare, STAND_INS, uid=Uid(7), user_socket="") == bare
    assert host_paths(bare) == ()
