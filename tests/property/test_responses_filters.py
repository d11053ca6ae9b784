"""Laws of the filters: nothing foreign comes out, own entries keep their bytes and order, garbage is refused."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from policy.dockerapi import responses
from policy.dockerapi.responses import Counts, UnreadableAnswer
from tests.fakes.visibility import SetVisibility

if TYPE_CHECKING:
    from collections.abc import Callable

# Whatever belongs to somebody else carries this text: in its id, name, labels, network, image.
FOREIGN = "zzforeign"
TEXT = st.text(alphabet=st.sampled_from('ab{}[]"\\/<é\u2028\x00'), max_size=6)
NUMBERS = st.lists(st.tuples(st.booleans(), TEXT), max_size=6)
INDENT = st.sampled_from([None, 0, 2])


def an_id(index: int, *, own: bool) -> str:
    return f"{'own' if own else FOREIGN}-{index}"


def sees(flags: list[bool]) -> SetVisibility:
    own = frozenset(an_id(index, own=True) for index, flag in enumerate(flags) if flag)
    return SetVisibility(
        containers=own, volumes=own, networks=own, images=own | {"shared:1"} | {f"{one}:1" for one in own}
    )


def container(index: int, text: str, *, own: bool) -> dict[str, object]:
    one = an_id(index, own=own)
    return {"Id": one, "Names": [f"/{one}"], "Labels": {f"l{one}": one + text}, "ImageID": one, "Ports": []}


def volume(index: int, text: str, *, own: bool) -> dict[str, object]:
    one = an_id(index, own=own)
    return {"Name": one, "Labels": {one: one + text}, "Mountpoint": f"/v/{one}"}


def image(index: int, text: str, *, own: bool) -> dict[str, object]:
    one = an_id(index, own=own)
    return {"Id": one, "RepoTags": [f"{one}:1"], "RepoDigests": [f"{one}@sha256:1"], "Labels": {one: text}}


def network(index: int, text: str, *, own: bool) -> dict[str, object]:
    one = an_id(index, own=own)
    return {"Id": one, "Name": one, "Labels": {one: text}, "Containers": {}}


LISTS = [
    pytest.param(container, responses.container_list, id="containers"),
    pytest.param(image, responses.image_list, id="images"),
    pytest.param(network, responses.network_list, id="networks"),
]


@pytest.mark.parametrize(("make", "filtered"), LISTS)
@given(items=NUMBERS, indent=INDENT)
def test_a_list_is_the_own_entries_byte_for_byte(
    make: Callable[..., dict[str, object]],
    filtered: Callable[[bytes, SetVisibility], bytes],
    items: list[tuple[bool, str]],
    indent: int | None,
) -> None:
    """The answer is exactly the own entries' bytes, in the engine's order, joined by commas."""
    entries = [
        (json.dumps(make(index, text, own=own), indent=indent), own)
        for index, (own, text) in enumerate(items)
    ]
    body = f"[{' , '.join(entry for entry, _ in entries)}]".encode()
    expected = f"[{','.join(entry for entry, own in entries if own)}]".encode()
    shown = filtered(body, sees([own for own, _ in items]))
    assert shown == expected
    assert FOREIGN.encode() not in shown


@given(items=NUMBERS, joined=NUMBERS, aliases=st.lists(st.booleans(), max_size=4))
def test_nothing_foreign_comes_out_of_nested_places(
    items: list[tuple[bool, str]], joined: list[tuple[bool, str]], aliases: list[bool]
) -> None:
    """Link aliases, containers on shared networks, private tags on shared images: no foreign text anywhere."""
    see = sees([True, *(own for own, _ in items), *(own for own, _ in joined)])
    first = container(0, "", own=True)
    first["Names"] = ["/own-0", *(f"/{an_id(1, own=own)}/alias" for own in aliases)]
    listed = [first, *(container(index + 1, text, own=own) for index, (own, text) in enumerate(items))]
    members = {
        an_id(index, own=own): {"Name": an_id(index, own=own)} for index, (own, _) in enumerate(joined)
    }
    net = network(0, "", own=True) | {"Containers": members, "Peers": [{"Name": FOREIGN}]}
    picture = {
        "Id": "other",
        "RepoTags": ["shared:1", *(f"{an_id(index, own=own)}:1" for index, (own, _) in enumerate(joined))],
        "RepoDigests": [f"{an_id(index, own=own)}@sha256:1" for index, (own, _) in enumerate(joined)],
        "ParentId": FOREIGN,
        "Containers": 5,
    }
    disk = {
        "LayersSize": 5,
        "Images": [picture],
        "Containers": listed,
        "Volumes": [volume(index, text, own=own) for index, (own, text) in enumerate(items)],
        "BuildCache": [{"ID": FOREIGN}],
        "Next": FOREIGN,
    }
    for shown in (
        responses.container_list(json.dumps(listed).encode(), see),
        responses.network_inspect(json.dumps(net).encode(), see),
        responses.image_inspect(json.dumps(picture).encode(), see),
        responses.disk_usage(json.dumps(disk).encode(), see),
    ):
        json.loads(shown)
        assert FOREIGN.encode() not in shown


@given(items=NUMBERS)
def test_a_volume_list_is_the_own_volumes(items: list[tuple[bool, str]]) -> None:
    """Own volumes keep their bytes and order; no foreign text, not even in warnings."""
    entries = [(json.dumps(volume(index, text, own=own)), own) for index, (own, text) in enumerate(items)]
    body = f'{{"Volumes":[{",".join(entry for entry, _ in entries)}],"Warnings":["{FOREIGN}"]}}'.encode()
    expected = f'{{"Volumes":[{",".join(entry for entry, own in entries if own)}],"Warnings":null}}'.encode()
    assert responses.volume_list(body, sees([own for own, _ in items])) == expected


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Id", "Name", "Names", "Volumes", "Images", "Containers", "RepoTags", "ApiVersion", "Components",
                 "ServerVersion", "Plugins", "Mounts", "HostConfig", "message", "Manifests", "ImageData"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)  # fmt: skip
FILTERS: list[Callable[[bytes], bytes]] = [
    lambda body: responses.container_list(body, SetVisibility()),
    lambda body: responses.container_inspect(
        body, SetVisibility(containers=frozenset({"a"})), sources=responses.Sources(real={"/a": "/b"})
    ),
    lambda body: responses.image_list(body, SetVisibility(images=frozenset({"a"}))),
    lambda body: responses.network_list(body, SetVisibility(networks=frozenset({"a"}))),
    lambda body: responses.volume_list(body, SetVisibility()),
    lambda body: responses.disk_usage(body, SetVisibility()),
    lambda body: responses.exec_inspect(body, SetVisibility()),
    lambda body: responses.container_create(body, SetVisibility()),
    lambda body: responses.network_create(body, SetVisibility()),
    lambda body: responses.info(body, Counts(running=0, paused=0, stopped=0, images=0)),
    responses.version,
    lambda body: responses.error(body, SetVisibility()),
]


@given(body=st.binary(max_size=30) | JSON.map(lambda value: json.dumps(value).encode()))
def test_garbage_raises_only_unreadable_answer(body: bytes) -> None:
    """Any bytes give JSON or UnreadableAnswer, never another error."""
    for filtered in FILTERS:
        try:
            shown = filtered(body)
        except UnreadableAnswer:
            continue
        json.loads(shown)
