"""Inspect and create answers: only of own objects, sources shown as the user wrote them."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.responses import (
    Sources,
    UnreadableAnswer,
    container_create,
    container_inspect,
    container_update,
    created_id,
    exec_inspect,
    image_inspect,
    network_create,
    stats,
    wait,
)
from policy.model import Uid
from policy.names import ViewerNames
from policy.stand_ins import StandIn, StandIns
from tests.fakes.visibility import SetVisibility

ALICES = ViewerNames(Uid(1001))
OWN, OTHER, NET = "a" * 64, "b" * 64, "c" * 64
SEES = SetVisibility(
    containers=frozenset({OWN}), networks=frozenset({NET}), images=frozenset({"sha256:1", "busybox:latest"})
)
REAL = "/run/ds01/users/alice/docker.sock"
SHOWN = "/var/run/docker.sock"


def inspect_answer() -> dict[str, object]:
    return {
        "Id": OWN,
        "Name": "/u1001.web",
        "HostConfig": {
            "Binds": [f"{REAL}:{SHOWN}", f"{REAL}:/b.sock:ro", "u1001.data:/d", "/home/a:/home/a", "/anon"],
            "Mounts": [
                {"Type": "bind", "Source": REAL, "Target": "/m"},
                {"Type": "volume", "Source": "u1001.data"},
            ],
            "Links": ["/u1001.db:/u1001.web/other"],
            "NetworkMode": NET,
            "Memory": 1,
        },
        "Mounts": [
            {"Type": "bind", "Source": REAL, "Destination": SHOWN},
            {"Type": "volume", "Name": "u1001.data", "Source": "/var/lib/docker/volumes/u1001.data/_data"},
        ],
        "NetworkSettings": {
            "Networks": {
                "u1001.net": {
                    "Aliases": ["web", "aaaaaaaaaaaa"],
                    "Links": ["u1001.db:other"],
                    "DNSNames": ["u1001.web", "web", "aaaaaaaaaaaa"],
                }
            }
        },
        "State": {"Error": "driver failed on endpoint u1001.web", "Pid": 0},
    }


def test_own_container_keeps_its_bytes() -> None:
    """Nothing to map back means nothing is touched."""
    body = json.dumps(inspect_answer(), indent=2).encode()
    assert container_inspect(body, SEES) == body


@pytest.mark.parametrize(
    ("cpus", "nano"),
    [
        ({"NanoCpus": 0, "CpuPeriod": 100_000, "CpuQuota": 150_000}, 1_500_000_000),
        ({"NanoCpus": 2_000_000_000, "CpuPeriod": 0, "CpuQuota": 0}, 2_000_000_000),
        ({"NanoCpus": 0, "CpuPeriod": 0, "CpuQuota": 150_000}, 0),
    ],
    ids=["quota", "cpus", "not one of ours"],
)
def test_a_quota_is_shown_as_cpus_as_well(cpus: dict[str, int], nano: int) -> None:
    """An update of `--cpus` became one; what the engine has is shown beside it."""
    answer = inspect_answer()
    answer["HostConfig"] = {**cpus, "Memory": 1}
    host = json.loads(container_inspect(json.dumps(answer).encode(), SEES, names=ALICES))["HostConfig"]
    assert host == {**cpus, "Memory": 1, "NanoCpus": nano}


def test_bind_sources_are_mapped_back() -> None:
    """The user's own socket shows as /var/run/docker.sock in Binds and both Mounts; other sources stay."""
    shown = json.loads(
        container_inspect(json.dumps(inspect_answer()).encode(), SEES, sources=Sources(real={REAL: SHOWN}))
    )
    assert shown["HostConfig"]["Binds"][:2] == [f"{SHOWN}:{SHOWN}", f"{SHOWN}:/b.sock:ro"]
    assert shown["HostConfig"]["Binds"][2:] == ["u1001.data:/d", "/home/a:/home/a", "/anon"]
    assert shown["HostConfig"]["Mounts"][0]["Source"] == SHOWN
    assert shown["Mounts"][0]["Source"] == SHOWN
    assert shown["HostConfig"]["Memory"] == 1


STAND_INS = StandIns("/var/lib/ds01/sources")


def test_stand_ins_show_as_the_paths_of_the_create() -> None:
    """In the words of the create where it had others; clean in Mounts, as dockerd has it; in what failed last as well."""
    told = STAND_INS.path(StandIn(source="/data/real", uid=Uid(1001), read_only=True))
    plain = STAND_INS.path(StandIn(source="/home/a", uid=Uid(1001), read_only=False))
    answer = inspect_answer() | {
        "HostConfig": {
            "Binds": [f"{told}:/d:ro", f"{plain}:/h", "u1001.data:/v", "/anon"],
            "Mounts": [{"Type": "bind", "Source": told, "Target": "/m/"}],
        },
        "Mounts": [
            {"Type": "bind", "Source": told, "Destination": "/d", "Mode": "ro", "RW": False},
            {"Type": "bind", "Source": told, "Destination": "/m", "Mode": ""},
            {"Type": "bind", "Source": plain, "Destination": "/h"},
        ],
        "State": {"Error": f"cannot mount {told} here"},
    }
    shown = json.loads(
        container_inspect(
            json.dumps(answer).encode(),
            SEES,
            sources=Sources(words={"/d": "/home/a/../a/link/", "/m": "/data/link"}),
            names=ViewerNames(Uid(1001), stand_ins=STAND_INS),
        )
    )
    assert shown["HostConfig"]["Binds"] == [
        "/home/a/../a/link/:/d:ro",
        "/home/a:/h",
        "data:/v",
        "/anon",
    ]
    assert shown["HostConfig"]["Mounts"][0]["Source"] == "/data/link"
    assert [mount["Source"] for mount in shown["Mounts"]] == ["/home/a/link", "/data/link", "/home/a"]
    assert shown["State"]["Error"] == "cannot mount /data/real here"


def test_names_are_mapped_back() -> None:
    """The name inside dockerd shows nowhere in an inspect answer."""
    shown = container_inspect(json.dumps(inspect_answer()).encode(), SEES, names=ALICES)
    assert b"u1001" not in shown
    fields = json.loads(shown)
    assert fields["Mounts"][1]["Source"] == "/var/lib/docker/volumes/data/_data"
    assert fields["HostConfig"]["Links"] == ["/db:/web/other"]
    assert fields["HostConfig"]["NetworkMode"] == "net-c", "by its name, as the user gave it"
    assert fields["NetworkSettings"]["Networks"] == {
        "net": {
            "Aliases": ["web", "aaaaaaaaaaaa"],
            "Links": ["db:other"],
            "DNSNames": ["web", "aaaaaaaaaaaa"],
        }
    }
    assert fields["State"] == {"Error": "driver failed on endpoint web", "Pid": 0}


@pytest.mark.parametrize("absent", ["HostConfig", "Mounts", "NetworkSettings", "State"])
def test_null_parts_are_kept(absent: str) -> None:
    """A part that is null stays null."""
    body = json.dumps(inspect_answer() | {absent: None}).encode()
    assert (
        json.loads(container_inspect(body, SEES, sources=Sources(real={REAL: SHOWN}), names=ALICES))[absent]
        is None
    )


@pytest.mark.parametrize("body", [b"{}", b"[]", b"", json.dumps({"Id": OTHER}).encode()])
def test_inspect_of_anything_else_is_refused(body: bytes) -> None:
    """Another's container, or no container, is never passed on."""
    with pytest.raises(UnreadableAnswer):
        container_inspect(body, SEES)


def test_exec_of_own_container_is_passed() -> None:
    """An exec is judged by the container it runs in."""
    body = f'{{"ID":"e", "ContainerID":"{OWN}"}}'.encode()
    assert exec_inspect(body, SEES) == body


@pytest.mark.parametrize("body", [b'{"ID":"e"}', f'{{"ContainerID":"{OTHER}"}}'.encode()])
def test_exec_of_anything_else_is_refused(body: bytes) -> None:
    """An exec in another's container, or in none, is never passed on."""
    with pytest.raises(UnreadableAnswer):
        exec_inspect(body, SEES)


def test_image_inspect_drops_foreign_tags() -> None:
    """A private tag on shared content is not shown."""
    body = b'{"Id":"sha256:1","RepoTags":["busybox:latest","bob/secret:1"],"Parent":"sha256:9"}'
    assert json.loads(image_inspect(body, SEES)) == {
        "Id": "sha256:1",
        "RepoTags": ["busybox:latest"],
        "Parent": "",
    }


def test_foreign_image_inspect_is_refused() -> None:
    """Another's private image is never passed on."""
    with pytest.raises(UnreadableAnswer):
        image_inspect(b'{"Id":"sha256:2","RepoTags":["bob/secret:1"]}', SEES)


@pytest.mark.parametrize("warnings", [[], None, ["no swap"]])
def test_create_answer_ends_with_our_warnings(warnings: list[str] | None) -> None:
    """The engine's warnings come first, then ds01's."""
    body = json.dumps({"Id": OWN, "Warnings": warnings}).encode()
    shown = json.loads(container_create(body, SEES, warnings=["ds01: memory limited"]))
    assert shown == {"Id": OWN, "Warnings": [*(warnings or []), "ds01: memory limited"]}


def test_network_create_warning_hides_the_other_network() -> None:
    """Engines up to 24 print the id of the network that already has the name."""
    body = json.dumps(
        {"Id": "1" * 64, "Warning": f"Network with name x (id : {OTHER}) already exists"}
    ).encode()
    shown = json.loads(network_create(body, SEES))
    assert shown == {"Id": "1" * 64, "Warning": "Network with name x (id : (not yours)) already exists"}


@pytest.mark.parametrize("name", ["web", "u1002.web"])
def test_statistics_without_an_own_name_keep_their_bytes(name: str) -> None:
    """One document a second for each container that is watched."""
    document = f'{{ "name":"/{name}","id":"{OWN}"}}'.encode()
    assert stats(document, ALICES) is document


def test_statistics_have_the_plain_name() -> None:
    """`docker stats` shows it."""
    assert stats(b'{"read":"x","name":"/u1001.web","pids_stats":{}}', ALICES) == (
        b'{"read":"x","name":"/web","pids_stats":{}}'
    )


@pytest.mark.parametrize("body", [b'{"StatusCode":0}', b'{"Error":null,"StatusCode":1}', b'{"Error":{}}'])
def test_a_wait_that_ends_well_keeps_its_bytes(body: bytes) -> None:
    """There is nothing to read in it."""
    assert wait(body, ALICES) is body


def test_a_wait_for_a_failed_start_has_the_plain_name() -> None:
    """dockerd says why in its own words."""
    body = b'{"Error":{"Message":"endpoint u1001.web: port is taken"},"StatusCode":128}'
    assert wait(body, ALICES) == b'{"Error":{"Message":"endpoint web: port is taken"},"StatusCode":128}'


def test_created_id_is_read() -> None:
    """The id of a new object is taken from the engine's answer."""
    assert created_id(b'{"Id":"abc","Warning":""}') == "abc"


def test_a_container_is_of_an_image_by_its_plain_name() -> None:
    """In its configuration, and where it mounts one."""
    mount = {"Type": "image", "Source": "ds01.invalid/u1001/data:1", "Target": "/x"}
    answer = {
        **inspect_answer(),
        "Config": {"Image": "ds01.invalid/u1001/app", "Env": ["X=ds01.invalid/u1001/app"]},
        "HostConfig": {"Mounts": [mount]},
    }
    shown = json.loads(container_inspect(json.dumps(answer).encode(), SEES, names=ALICES))
    assert shown["Config"] == {"Image": "app", "Env": ["X=ds01.invalid/u1001/app"]}
    assert shown["HostConfig"]["Mounts"] == [{**mount, "Source": "data:1"}]


def test_warnings_of_an_update_name_nothing_of_others() -> None:
    """The engine's are scrubbed, ours stand behind them; an answer that is none is refused."""
    body = json.dumps({"Warnings": [f"see {OTHER}"]}).encode()
    (engines, ours) = json.loads(container_update(body, SEES, warnings=["ds01: changed"]))["Warnings"]
    assert OTHER not in engines
    assert ours == "ds01: changed"
    with pytest.raises(UnreadableAnswer):
        container_update(b"[]", SEES)
