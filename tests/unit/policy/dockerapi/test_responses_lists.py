"""Lists show the user's entries, byte for byte, and nothing else."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.name_filters import NameFilter
from policy.dockerapi.responses import (
    UnreadableAnswer,
    container_list,
    image_history,
    image_inspect,
    image_list,
    network_inspect,
    network_list,
    volume_inspect,
    volume_list,
)
from policy.model import Uid
from policy.names import ViewerNames
from policy.stand_ins import StandIns
from tests.fakes.visibility import SetVisibility

ALICES = ViewerNames(Uid(1001))
OWN, OTHER = "a" * 64, "b" * 64
OWN_NET, SHARED_NET, OTHER_NET = "1" * 64, "2" * 64, "3" * 64
SEES = SetVisibility(
    containers=frozenset({OWN, "c" * 64}),
    volumes=frozenset({"data"}),
    networks=frozenset({SHARED_NET}),
    own_networks=frozenset({OWN_NET}),
    images=frozenset({"sha256:1", "busybox:latest", "mine:1"}),
)


def container(container_id: str, *names: str) -> str:
    return f'{{"Id": "{container_id}", "Names":{json.dumps(names)} ,"Labels":{{"x":"}}{{\\u003c"}},"N":1.0}}'


def test_own_containers_keep_their_bytes_and_order() -> None:
    """Spacing, escapes and number forms of an own entry arrive as the engine wrote them."""
    first, second = container(OWN, "/web"), container("c" * 64, "/db")
    body = f"[{first}, {container(OTHER, '/secret')},{second}]".encode()
    assert container_list(body, SEES) == f"[{first},{second}]".encode()


def test_limit_counts_own_containers_only() -> None:
    """Foreign containers in front do not use up the limit."""
    body = f"[{container(OTHER, '/x')},{container(OWN, '/web')},{container('c' * 64, '/db')}]".encode()
    assert container_list(body, SEES, limit=1) == f"[{container(OWN, '/web')}]".encode()


@pytest.mark.parametrize("limit", [0, -1])
def test_no_limit_shows_all(limit: int) -> None:
    """Zero and below mean no limit, as in dockerd."""
    body = f"[{container(OWN, '/web')},{container('c' * 64, '/db')}]".encode()
    assert len(json.loads(container_list(body, SEES, limit=limit))) == 2


def test_link_alias_of_a_foreign_parent_is_dropped() -> None:
    """A foreign container's name does not show as the parent of a link alias."""
    body = f"[{container(OWN, '/db', '/secret/db')},{container(OTHER, '/secret')}]".encode()
    assert json.loads(container_list(body, SEES))[0]["Names"] == ["/db"]


def test_link_alias_of_an_own_parent_is_kept() -> None:
    """The alias stays when its parent is the user's, also when the limit cuts the parent off."""
    body = f"[{container(OWN, '/db', '/web/db')},{container('c' * 64, '/web')}]".encode()
    assert json.loads(container_list(body, SEES, limit=1))[0]["Names"] == ["/db", "/web/db"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"[1]",
        b'[{"Names":["/x"]}]',
        b'[{"Id":1}]',
        b"[{]",
        b"[" * 5000,
        b'[{"Id":"a"}] x',
        b"\xff",
    ],
    ids=["empty", "object", "number", "no id", "id a number", "broken", "deep", "trailing", "not text"],
)
def test_unexpected_container_list_is_refused(body: bytes) -> None:
    """What is not a list of containers is never passed on."""
    with pytest.raises(UnreadableAnswer):
        container_list(body, SEES)


def test_names_are_mapped_in_a_container_list() -> None:
    """The name inside dockerd shows nowhere: Names, Mounts, network keys."""
    entry = {
        "Id": OWN,
        "Names": ["/u1001.db", "/u1001.db/alias"],
        "Mounts": [{"Type": "volume", "Name": "u1001.data", "Source": "/x"}],
        "NetworkSettings": {"Networks": {"u1001.net": {"NetworkID": OWN_NET}}},
    }
    shown = container_list(json.dumps([entry]).encode(), SEES, names=ALICES)
    assert b"u1001" not in shown
    assert json.loads(shown)[0]["Names"] == ["/db", "/db/alias"]


def test_a_list_shows_paths_and_no_stand_ins() -> None:
    """Of every container, also of one without any name to map."""
    told = '[{"Type": "bind", "Source": "/s/1001/2ro/home/a", "Destination": "/d"}]'
    body = f'[{{"Id": "{OWN}", "Names": ["/web"], "Mounts": {told}, "N": 1.0}}]'.encode()
    shown = container_list(body, SEES, names=ViewerNames(Uid(1001), stand_ins=StandIns("/s")))
    assert json.loads(shown)[0]["Mounts"] == [{"Type": "bind", "Source": "/home/a", "Destination": "/d"}]
    assert b'"N": 1.0' in shown


def test_an_entry_keeps_its_bytes_around_the_names() -> None:
    """What looks like a name elsewhere (labels, a command) is the user's own word, and blanks stay blanks."""
    entry = f'{{ "Id":"{OWN}","Names" : ["/u1001.web"], "Command":"[\\"/u1001.web\\"]","Labels":{{"a":"/u1001.web"}} }}'
    shown = container_list(f"[{entry}]".encode(), SEES, names=ALICES)
    assert shown == f"[{entry}]".replace('["/u1001.web"]', '["/web"]').encode()


@pytest.mark.parametrize(
    ("values", "limit", "shown"),
    [(["^web$"], 0, ["/web"]), (["^/w"], 0, ["/web", "/wob"]), (["^w"], 1, ["/web"]), (["u1001"], 0, [])],
)
def test_containers_are_filtered_by_plain_names_and_then_cut(
    values: list[str], limit: int, shown: list[str]
) -> None:
    """With the slash or without it."""
    body = ",".join(container(OWN, f"/u1001.{name}") for name in ("db", "web", "wob"))
    listed = container_list(f"[{body}]".encode(), SEES, names=ALICES, limit=limit, wanted=NameFilter(values))
    assert [each["Names"][0] for each in json.loads(listed)] == shown


def test_networks_and_volumes_are_filtered_by_plain_names() -> None:
    """Not by those inside dockerd."""
    sees = SetVisibility(volumes=frozenset({"u1001.a", "u1001.b"}), networks=frozenset({OWN_NET, SHARED_NET}))
    volumes = b'{"Volumes":[{"Name":"u1001.a","Mountpoint":"/v/u1001.a/_data"},{"Name":"u1001.b"}]}'
    assert json.loads(volume_list(volumes, sees, names=ALICES, wanted=NameFilter(["^a$"])))["Volumes"] == [
        {"Name": "a", "Mountpoint": "/v/a/_data"}
    ]
    networks = json.dumps([network(OWN_NET, Name="u1001.n"), network(SHARED_NET, Name="bridge")]).encode()
    listed = json.loads(network_list(networks, sees, names=ALICES, wanted=NameFilter(["^n"])))
    assert [each["Name"] for each in listed] == ["n"]


def network(network_id: str, **more: object) -> dict[str, object]:
    return {"Name": f"n-{network_id[0]}", "Id": network_id, "Containers": {}, **more}


def test_networks_of_others_are_left_out() -> None:
    """Own and shared networks are listed, others are not."""
    body = json.dumps([network(OWN_NET), network(OTHER_NET), network(SHARED_NET)]).encode()
    assert [entry["Id"] for entry in json.loads(network_list(body, SEES))] == [OWN_NET, SHARED_NET]


def test_shared_network_shows_own_containers_only() -> None:
    """Containers, swarm peers and address counts of others are not shown on a shared network."""
    joined = {OWN: {"Name": "web"}, OTHER: {"Name": "secret"}, "ep-1": {"Name": "secret2"}}
    body = json.dumps(
        network(SHARED_NET, Containers=joined, Peers=[{"IP": "1"}], Status={"IPAM": 1})
    ).encode()
    shown = json.loads(network_inspect(body, SEES))
    assert shown == network(SHARED_NET, Containers={OWN: {"Name": "web"}})


def test_own_network_keeps_its_bytes() -> None:
    """An own network is passed as it came, details included."""
    body = json.dumps(network(OWN_NET, Containers={OWN: {"Name": "web"}}, Peers=[]), indent=1).encode()
    assert network_inspect(body, SEES) == body


def test_inspect_of_a_foreign_network_is_refused() -> None:
    """If the engine answers with another's network, nothing is passed on."""
    with pytest.raises(UnreadableAnswer):
        network_inspect(json.dumps(network(OTHER_NET)).encode(), SEES)


def test_names_are_mapped_in_a_network() -> None:
    """Network and container names are the user's."""
    body = json.dumps(
        network(OWN_NET, Containers={OWN: {"Name": "u1001.web"}}) | {"Name": "u1001.n"}
    ).encode()
    shown = json.loads(network_inspect(body, SEES, names=ALICES))
    assert (shown["Name"], shown["Containers"][OWN]["Name"]) == ("n", "web")


def test_volumes_of_others_and_warnings_are_left_out() -> None:
    """Only own volumes are listed; drivers' warnings may name others', so they go."""
    body = b'{"Volumes":[{"Name":"data" },{"Name":"secret"}],"Warnings":["secret is broken"]}'
    assert volume_list(body, SEES) == b'{"Volumes":[{"Name":"data" }],"Warnings":null}'


def test_no_volumes_is_an_empty_list() -> None:
    """An engine without volumes says null; clients get an empty list, the same as when all are others'."""
    assert volume_list(b'{"Volumes":null,"Warnings":null}', SEES) == b'{"Volumes":[],"Warnings":null}'


def test_volume_answer_of_another_name_is_refused() -> None:
    """A create or inspect answer for a volume the user does not see is never passed on."""
    with pytest.raises(UnreadableAnswer):
        volume_inspect(b'{"Name":"secret"}', SEES)


def test_volume_name_is_mapped() -> None:
    """The volume shows by the user's name."""
    sees = SetVisibility(volumes=frozenset({"u1001.data"}))
    assert volume_inspect(b'{"Name":"u1001.data"}', sees, names=ALICES) == b'{"Name":"data"}'


def test_images_show_visible_tags_and_no_foreign_count() -> None:
    """A private tag and its digest on shared content are not shown, nor how many containers use it."""
    image = {
        "Id": "sha256:1",
        "ParentId": "sha256:9",
        "RepoTags": ["busybox:latest", "reg:5000/bob/secret:1"],
        "RepoDigests": ["busybox@sha256:d", "reg:5000/bob/secret@sha256:d", "bob/by-digest@sha256:d"],
        "Containers": 7,
        "Size": 5,
    }
    body = json.dumps([image, {"Id": "sha256:2", "RepoTags": ["bob/private:1"]}]).encode()
    assert json.loads(image_list(body, SEES)) == [
        {
            "Id": "sha256:1",
            "ParentId": "",
            "RepoTags": ["busybox:latest"],
            "RepoDigests": ["busybox@sha256:d"],
            "Containers": -1,
            "Size": 5,
        }
    ]


def test_unchanged_image_keeps_its_bytes() -> None:
    """An image of which everything may be seen arrives as the engine wrote it."""
    body = b'[{"Id":"sha256:1", "ParentId":"","RepoTags":["mine:1"],"RepoDigests":null,"Containers":-1}]'
    assert image_list(body, SEES) == body


def test_dangling_image_of_old_api_keeps_its_placeholder() -> None:
    """`<none>:<none>` is no name of anybody's."""
    body = b'[{"Id":"sha256:1","RepoTags":["<none>:<none>"],"RepoDigests":["<none>@<none>"],"Containers":-1}]'
    assert image_list(body, SEES) == body


def test_manifests_list_own_containers_only() -> None:
    """The containers that use a manifest (API 1.47) are reduced to the user's."""
    image = {
        "Id": "sha256:1",
        "RepoTags": ["mine:1"],
        "Manifests": [{"ImageData": {"Containers": [OWN, OTHER]}}],
    }
    shown = json.loads(image_list(json.dumps([image]).encode(), SEES))
    assert shown[0]["Manifests"][0]["ImageData"]["Containers"] == [OWN]


def test_labels_of_ds01_do_not_show_on_networks_and_volumes() -> None:
    """The user's own labels stay, and null stays null."""
    labels = {"ds01.seal": "x", "mine": "1"}
    networks = [
        {"Id": OWN_NET, "Name": "n", "Labels": labels},
        {"Id": SHARED_NET, "Name": "s", "Labels": None},
    ]
    shown = json.loads(network_list(json.dumps(networks).encode(), SEES, names=ALICES))
    assert [network["Labels"] for network in shown] == [{"mine": "1"}, None]
    volume = json.dumps({"Name": "data", "Labels": labels}).encode()
    assert json.loads(volume_inspect(volume, SEES, names=ALICES)) == {"Name": "data", "Labels": {"mine": "1"}}


OWN_IMAGE = "ds01.invalid/u1001/app"


def test_a_container_is_listed_with_its_images_plain_name() -> None:
    """Another's, which was shared, as its grantee writes it."""
    sees = SetVisibility(containers=frozenset({"a"}))
    for image, shown in ((f"{OWN_IMAGE}:1", "app:1"), ("ds01.invalid/u1002/app", "ds01.invalid/u1002/app")):
        entry = {"Id": "a", "Names": ["/u1001.web"], "Image": image, "Labels": {"x": image}}
        listed = json.loads(container_list(json.dumps([entry]).encode(), sees, names=ALICES))
        assert listed == [{"Id": "a", "Names": ["/web"], "Image": shown, "Labels": {"x": image}}]


def test_images_are_listed_with_plain_names() -> None:
    """Tags and digests; a name that is not to be seen is left out before."""
    sees = SetVisibility(images=frozenset({"i", f"{OWN_IMAGE}:1", f"{OWN_IMAGE}@sha256:1", "app@sha256:1"}))
    image = {
        "Id": "i",
        "RepoTags": [f"{OWN_IMAGE}:1", "ds01.invalid/u1002/app:1"],
        "RepoDigests": [f"{OWN_IMAGE}@sha256:1", "app@sha256:1"],
    }
    body = json.dumps([image]).encode()
    shown = {"Id": "i", "RepoTags": ["app:1"], "RepoDigests": ["app@sha256:1"]}
    assert json.loads(image_list(body, sees, names=ALICES)) == [shown]
    config = {"Config": {"Image": OWN_IMAGE, "Cmd": None}, "ContainerConfig": {"Image": OWN_IMAGE}}
    inspected = image_inspect(json.dumps({**image, **config}).encode(), sees, names=ALICES)
    assert json.loads(inspected) == {
        **shown,
        "Config": {"Image": "app", "Cmd": None},
        "ContainerConfig": {"Image": "app"},
    }
    history = json.dumps([{"Id": "i", "Tags": [f"{OWN_IMAGE}:1", "x:1"]}]).encode()
    assert json.loads(image_history(history, sees, names=ALICES)) == [{"Id": "i", "Tags": ["app:1"]}]
