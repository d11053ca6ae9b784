"""Another's container as it is shown: what tells how it does, and nothing that its owner did not mean to show."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policy.dockerapi import responses
from policy.model import Uid
from policy.names import ViewerNames
from tests.fakes.visibility import SetVisibility

WEB, MINE, OTHER = "a" * 64, "b" * 64, "c" * 64
SECRET = "alices-4711"
NAME = "alice.web"
SEES = SetVisibility(
    containers=frozenset({MINE}),
    shared={WEB: NAME},
    images=frozenset({"busybox:latest", "sha256:" + "1" * 64}),
)
NAMES = ViewerNames(Uid(1002))

LISTED: dict[str, Any] = {
    "Id": WEB,
    "Names": ["/u1001.web", f"/{SECRET}/alias"],
    "Image": "busybox",
    "ImageID": "sha256:" + "1" * 64,
    "Command": f"sh -c {SECRET}",
    "Created": 7,
    "Ports": [{"PrivatePort": 80, "PublicPort": 8080, "Type": "tcp", "IP": "127.0.0.1"}],
    "Labels": {"note": SECRET, "ds01.owner": "alice"},
    "State": "running",
    "Status": "Up 2 minutes",
    "HostConfig": {"NetworkMode": SECRET},
    "NetworkSettings": {"Networks": {SECRET: {"IPAddress": "10.0.0.9"}}},
    "Mounts": [{"Type": "bind", "Source": f"/home/alice/{SECRET}"}],
    "NewThing": SECRET,
}
INSPECTED: dict[str, Any] = {
    "Id": WEB,
    "Created": "2026-01-01T00:00:00Z",
    "Path": "sh",
    "Args": ["-c", SECRET],
    "State": {
        "Status": "running",
        "Running": True,
        "Pid": 4711,
        "ExitCode": 0,
        "Error": f"cannot mount /home/alice/{SECRET}",
        "Health": {"Status": "healthy", "FailingStreak": 0, "Log": [{"Output": SECRET}]},
    },
    "Image": "sha256:" + "1" * 64,
    "Name": "/u1001.web",
    "LogPath": f"/var/lib/docker/{SECRET}",
    "HostnamePath": f"/var/lib/docker/{SECRET}",
    "RestartCount": 3,
    "ExecIDs": [SECRET],
    "HostConfig": {"Memory": 1024, "Binds": [f"/home/alice/{SECRET}:/x"], "CgroupParent": SECRET},
    "GraphDriver": {"Data": {"UpperDir": SECRET}},
    "Mounts": [{"Type": "volume", "Name": SECRET}],
    "Config": {
        "Hostname": "web",
        "Tty": True,
        "Env": [f"TOKEN={SECRET}", "PATH=/bin", "EMPTY"],
        "Cmd": ["-c", SECRET],
        "Entrypoint": [SECRET],
        "Image": "busybox",
        "Labels": {"note": SECRET},
        "WorkingDir": f"/{SECRET}",
        "Healthcheck": {"Test": ["CMD", SECRET]},
    },
    "NetworkSettings": {
        "Ports": {"80/tcp": None},
        "Networks": {SECRET: {}},
        "IPAddress": "10.0.0.9",
        "SandboxKey": SECRET,
    },
    "NewThing": SECRET,
}


def listed(*entries: dict[str, Any], **more: Any) -> list[dict[str, Any]]:
    body = json.dumps(entries).encode()
    shown: list[dict[str, Any]] = json.loads(responses.container_list(body, SEES, names=NAMES, **more))
    return shown


def test_a_list_entry_tells_how_it_does() -> None:
    """State, ports and image, by the name that finds it; neither command nor labels, mounts or networks."""
    (entry,) = listed(LISTED)
    assert SECRET not in json.dumps(entry)
    assert "u1001" not in json.dumps(entry)
    assert entry["Names"] == [f"/{NAME}"]
    assert (entry["Id"], entry["State"], entry["Status"], entry["Image"]) == (
        WEB,
        "running",
        "Up 2 minutes",
        "busybox",
    )
    assert entry["Ports"] == LISTED["Ports"]
    assert (entry["Labels"], entry["Mounts"], entry["Command"]) == ({}, [], "")


def test_the_limit_counts_own_and_shared_ones() -> None:
    """In the engine's order, after those of nobody's business are left out."""
    own = {"Id": MINE, "Names": ["/u1002.mine"]}
    other = {"Id": OTHER, "Names": ["/u1003.x"]}
    assert [each["Id"] for each in listed(other, LISTED, own, limit=1)] == [WEB]
    assert [each["Id"] for each in listed(other, own, LISTED)] == [MINE, WEB]


def test_disk_usage_is_of_own_containers() -> None:
    """What others use is not the viewer's to clear up."""
    body = json.dumps({"Containers": [LISTED, {"Id": MINE, "Names": ["/u1002.mine"]}]}).encode()
    shown = json.loads(responses.disk_usage(body, SEES, names=NAMES))
    assert [each["Id"] for each in shown["Containers"]] == [MINE]


def test_inspect_masks_what_may_be_secret() -> None:
    """Names of variables without values; limits and state; nothing of the host, nor of how it is started."""
    shown = json.loads(responses.container_inspect(json.dumps(INSPECTED).encode(), SEES, names=NAMES))
    assert SECRET not in json.dumps(shown)
    assert "4711" not in json.dumps(shown)
    assert "10.0.0.9" not in json.dumps(shown)
    assert shown["Name"] == f"/{NAME}"
    assert shown["Config"]["Env"] == ["TOKEN=***", "PATH=***", "EMPTY=***"]
    assert shown["Config"]["Tty"] is True
    assert shown["State"] == {
        "Status": "running",
        "Running": True,
        "ExitCode": 0,
        "Health": {"Status": "healthy", "FailingStreak": 0},
    }
    assert shown["HostConfig"] == {"Memory": 1024}
    assert shown["NetworkSettings"] == {"Ports": {"80/tcp": None}, "Networks": {}}


@pytest.mark.parametrize("image", ["alices:1", "sha256:" + "2" * 64, "0123456789ab", ""])
def test_an_image_is_not_shared_with_its_container(image: str) -> None:
    """Another's private name, and an id that has lost its names, are not shown."""
    body = {**INSPECTED, "Image": "sha256:" + "2" * 64, "Config": {**INSPECTED["Config"], "Image": image}}
    shown = json.loads(responses.container_inspect(json.dumps(body).encode(), SEES, names=NAMES))
    assert (shown["Image"], shown["Config"]["Image"]) == ("", "(not yours)")


def test_inspect_of_anything_else_is_refused() -> None:
    """An answer about neither an own nor a shared container is passed on to nobody."""
    with pytest.raises(responses.UnreadableAnswer):
        responses.container_inspect(json.dumps({**INSPECTED, "Id": OTHER}).encode(), SEES, names=NAMES)


def message(action: str = "start", container: str = WEB, **attributes: str) -> bytes:
    return json.dumps(
        {
            "status": action,
            "id": container,
            "from": "busybox",
            "Type": "container",
            "Action": action,
            "Actor": {
                "ID": container,
                "Attributes": {
                    "image": "busybox",
                    "name": "u1001.web",
                    "note": SECRET,
                    "ds01.seal": "v1",
                    **attributes,
                },
            },
            "scope": "local",
            "time": 1,
            "timeNano": 1000,
        }
    ).encode()


def shown_events(*messages: bytes) -> list[dict[str, Any]]:
    shown = responses.EventFilter(SEES, names=NAMES).feed(b"".join(messages))
    return [json.loads(line) for line in shown.splitlines()]


def test_events_tell_what_happened_and_not_what_runs() -> None:
    """Name, image and exit code; no label, no exec's id, and no command line behind the colon."""
    started, sick, executed, died = shown_events(
        message(),
        message("health_status: unhealthy"),
        message(f"exec_create: sh -c {SECRET}", execID=SECRET),
        message("die", exitCode="3", oldName=f"/{SECRET}"),
    )
    assert SECRET not in json.dumps([started, sick, executed, died])
    assert started["Actor"] == {"ID": WEB, "Attributes": {"image": "busybox", "name": NAME}}
    assert sick["Action"] == "health_status: unhealthy"
    assert (executed["Action"], executed["status"]) == ("exec_create", "exec_create")
    assert died["Actor"]["Attributes"]["exitCode"] == "3"


def test_events_of_others_and_prunes_stay_out() -> None:
    """Only what is shared; the report of a prune is of everybody's."""
    assert shown_events(message(container=OTHER), message("prune"), message(container="")) == []


def test_numbers_come_under_the_shared_name() -> None:
    """`docker stats` shows a name that can be used; why a start failed is not said."""
    assert json.loads(responses.shared_stats(b'{"name": "/u1001.web", "pids": 1}', NAME)) == {
        "name": f"/{NAME}",
        "pids": 1,
    }
    waited = json.loads(
        responses.shared_wait(json.dumps({"StatusCode": 1, "Error": {"Message": SECRET}}).encode())
    )
    assert waited == {"StatusCode": 1, "Error": {"Message": "(not yours)"}}
    assert json.loads(responses.shared_wait(b'{"StatusCode": 0, "Error": null}')) == {
        "StatusCode": 0,
        "Error": None,
    }


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(SECRET) | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(st.sampled_from(["Labels", "Env", SECRET]), inner, max_size=2)
    ),
    max_leaves=5,
)
SHOWN_AS_THEY_ARE = {"State", "Status", "Created", "Ports", "SizeRw", "SizeRootFs"}


@settings(deadline=None, max_examples=200)
@given(st.dictionaries(st.sampled_from([*LISTED.keys() - SHOWN_AS_THEY_ARE - {"Id"}, "Future"]), VALUES))
def test_nothing_but_the_known_fields_is_ever_copied(fields: dict[str, Any]) -> None:
    """Whatever stands in all other fields of an entry, the answer holds none of it, or is refused."""
    body = json.dumps([{"Id": WEB, **fields}]).encode()
    try:
        shown = responses.container_list(body, SEES, names=NAMES)
    except responses.UnreadableAnswer:
        return
    assert SECRET.encode() not in shown
