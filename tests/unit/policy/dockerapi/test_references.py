"""Every place where a request names an object is seen, and the same place is bound."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from policy.dockerapi.bind import UnboundReference, bind, taken
from policy.dockerapi.model import Incoming, MalformedRequest, Request
from policy.dockerapi.read import read
from policy.dockerapi.references import tagged
from policy.dockerapi.write import write
from policy.facts import needed
from policy.model import EngineFacts, Facts, Kind, ObjectFact, Reference, Uid

ALICE, BOB = Uid(1001), Uid(1002)

ENGINE = EngineFacts(
    engine_id="e",
    version="20.10.24",
    api_version=(1, 41),
    min_api_version=(1, 12),
    cgroup_driver="cgroupfs",
    cgroup_version=1,
    gpu_path="hook",
)


def ask(method: str, path: str, body: object = None) -> Request:
    raw = None if body is None else json.dumps(body).encode()
    headers = (("content-type", "application/json"),) if raw else ()
    return read(
        Incoming(method=method, target=f"/v1.41{path}", headers=headers, body=raw), engine_max=(1, 41)
    )


def host(**fields: object) -> Request:
    return ask("POST", "/containers/create", {"HostConfig": fields})


def named(request: Request) -> set[str]:
    return {
        f"{'new ' * reference.new}{'literal ' * reference.literal}{reference.kind} {reference.text}"
        for reference in needed(request)
    }


def facts(*, absent: tuple[str, ...] = (), request: Request) -> Facts:
    """A fact for each reference, its id the name in brackets."""
    return Facts(
        engine=ENGINE,
        objects={
            reference: None
            if reference.text in absent
            else ObjectFact(kind=reference.kind, id=f"[{reference.text}]", owner=ALICE)
            for reference in needed(request)
        },
    )


PLACES = [
    pytest.param(ask("GET", "/containers/a/json"), {"container a"}, id="path"),
    pytest.param(ask("POST", "/containers/a/exec", {"Container": "b"}), {"container a"}, id="exec create"),
    pytest.param(ask("POST", "/exec/e/start"), {"exec e"}, id="exec start"),
    pytest.param(ask("GET", "/images/r/a:1/json"), {"image r/a:1"}, id="image with a slash"),
    pytest.param(ask("POST", "/images/r/a/push?tag=1"), {"image r/a:1"}, id="push"),
    pytest.param(ask("POST", "/images/a/tag?repo=b&tag=2"), {"image a", "new image b:2"}, id="tag"),
    pytest.param(ask("POST", "/images/create?fromImage=a&tag=1"), {"literal image a:1"}, id="pull"),
    pytest.param(
        ask("POST", "/images/create?fromImage=a&tag=sha256:0"),
        {"literal image a@sha256:0"},
        id="pull by digest",
    ),
    pytest.param(ask("POST", "/images/create?fromSrc=-&repo=a&tag=1"), {"new image a:1"}, id="import"),
    pytest.param(ask("GET", "/images/get?names=a&names=b"), {"image a", "image b"}, id="save"),
    pytest.param(ask("POST", "/images/load"), set(), id="load"),
    pytest.param(ask("GET", "/distribution/a/json"), set(), id="registry"),
    pytest.param(
        ask("POST", "/commit?container=a&repo=b&tag=1"), {"container a", "new image b:1"}, id="commit"
    ),
    pytest.param(
        ask("POST", '/build?t=a&t=b:1&cachefrom=["c"]&networkmode=container:d'),
        {"new image a", "new image b:1", "container d"},
        id="build",
    ),
    pytest.param(ask("POST", "/build?networkmode=n"), {"network n"}, id="build network"),
    pytest.param(ask("POST", "/build?networkmode=host"), set(), id="build host network"),
    pytest.param(ask("GET", "/networks/a"), {"network a"}, id="network"),
    pytest.param(
        ask("POST", "/networks/n/connect", {"Container": "/a", "EndpointConfig": {"Links": ["b:c"]}}),
        {"network n", "container a", "container b"},
        id="connect",
    ),
    pytest.param(
        ask("POST", "/networks/n/disconnect", {"Container": "a"}),
        {"network n", "container a"},
        id="disconnect",
    ),
    pytest.param(ask("POST", "/volumes/create", {"Name": "v"}), {"new volume v"}, id="volume create"),
    pytest.param(ask("POST", "/networks/create", {"Name": "n"}), {"new network n"}, id="network create"),
    pytest.param(ask("POST", "/containers/create?name=/c", {}), {"new container c"}, id="container create"),
    pytest.param(ask("POST", "/containers/a/rename?name=b"), {"container a", "new container b"}, id="rename"),
    pytest.param(ask("DELETE", "/volumes/v"), {"volume v"}, id="volume"),
    pytest.param(ask("POST", "/containers/create", {"Image": "a"}), {"image a"}, id="image"),
    pytest.param(host(NetworkMode="n"), {"network n"}, id="NetworkMode"),
    pytest.param(host(NetworkMode="nat"), {"network nat"}, id="a network named nat"),
    pytest.param(host(NetworkMode="container:a"), {"container a"}, id="NetworkMode container"),
    pytest.param(
        host(PidMode="container:a", IpcMode="container:b"), {"container a", "container b"}, id="Pid"
    ),
    pytest.param(host(PidMode="host", IpcMode="host", NetworkMode="host"), set(), id="host namespaces"),
    pytest.param(host(VolumesFrom=["a:ro", "b"]), {"container a", "container b"}, id="VolumesFrom"),
    pytest.param(host(Links=["a:x", "/b:/me/y", "c"]), {f"container {n}" for n in "abc"}, id="Links"),
    pytest.param(host(Binds=["v:/x:ro", "/h:/y", "/z"]), {"volume v"}, id="Binds"),
    pytest.param(
        host(
            Mounts=[
                {"Type": "volume", "Source": "v"},
                {"Type": "image", "Source": "i"},
                {"Type": "bind", "Source": "/h"},
                {"Type": "volume"},
            ]
        ),
        {"volume v", "image i"},
        id="Mounts",
    ),
    pytest.param(
        ask(
            "POST",
            "/containers/create",
            {
                "NetworkingConfig": {
                    "EndpointsConfig": {"n": {"NetworkID": "m", "Links": ["a"]}, "bridge": {}}
                }
            },
        ),
        {"network n", "network m", "container a"},
        id="EndpointsConfig",
    ),
    pytest.param(ask("GET", '/containers/json?filters={"volume":["v"]}'), set(), id="filters"),
    pytest.param(
        ask("GET", '/containers/json?filters={"ancestor":["i"],"since":["c"]}'),
        {"image i", "container c"},
        id="ancestor",
    ),
    pytest.param(
        ask("GET", '/images/json?filters={"before":["i"],"reference":["x"]}'), {"image i"}, id="before"
    ),
    pytest.param(ask("GET", "/swarm"), set(), id="refused"),
]


@pytest.mark.parametrize(("request_", "references"), PLACES)
def test_every_reference_is_needed(request_: Request, references: set[str]) -> None:
    """Facts are asked for each object a request names, and for nothing else."""
    assert named(request_) == references


def bound_form(reference: str) -> str:
    kind, name = reference.rsplit(" ", 1)
    match kind:
        case "image" | "literal image":
            return reference
        case "new image":
            return f"{kind} ds01.invalid/u1001/{name}"
        case "new container" | "new network":
            return f"{kind} u1001.{name}"
    return f"{kind} [{name}]"


@pytest.mark.parametrize(("request_", "references"), PLACES)
def test_every_reference_is_bound(request_: Request, references: set[str]) -> None:
    """After binding each reference but an image is the id of its fact, and a new name is in the actor's namespace."""
    bound = bind(request_, uid=ALICE, facts=facts(request=request_))
    assert named(bound) == {bound_form(reference) for reference in references}


@pytest.mark.parametrize(("request_", "references"), PLACES)
def test_an_absent_object_is_never_bound_to_its_name(request_: Request, references: set[str]) -> None:
    """Passing on the name of something absent, or another's, could reach another's object."""
    must_exist = {
        text.rsplit(" ", 1)[1]
        for text in references
        if not text.startswith(("image", "literal", "new ")) or "volume" in text
    }
    absent = facts(request=request_, absent=tuple(must_exist))
    if request_.operation == "VolumeCreate":
        assert named(bind(request_, uid=ALICE, facts=absent)) == {"new volume u1001.v"}
    elif not must_exist:
        assert named(bind(request_, uid=ALICE, facts=absent)) == {bound_form(text) for text in references}
    else:
        with pytest.raises(UnboundReference):
            bind(request_, uid=ALICE, facts=absent)


@pytest.mark.parametrize(
    ("owner", "name", "written"),
    [
        (ALICE, "api", "u1001.api"),
        (BOB, "api", "u1002.api"),
        (BOB, "u1002.api", "u1002.api"),
        (BOB, "u1003.api", "u1002.u1003.api"),
        (None, "api", "api"),
    ],
)
def test_an_admin_renames_within_the_owners_namespace(owner: Uid | None, name: str, written: str) -> None:
    """By the plain name or the one that admins see; what is nobody's gets the name as it is written."""
    request = ask("POST", f"/containers/web/rename?name={name}")
    objects: dict[Reference, ObjectFact | None] = {
        Reference(kind=Kind.CONTAINER, text="web"): ObjectFact(kind=Kind.CONTAINER, id="a" * 64, owner=owner),
        Reference(kind=Kind.CONTAINER, text=name, new=True): None,
    }
    bound = bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects))
    assert bound.query["name"] == (written,)


@pytest.mark.parametrize(
    ("real_name", "is_taken"), [("u1001.web", False), ("web", True), (None, False)], ids=str
)
@pytest.mark.parametrize(
    "request_",
    [
        ask("POST", "/containers/create?name=web", {}),
        ask("POST", "/containers/web/rename?name=web"),
        ask("POST", "/networks/create", {"Name": "web"}),
    ],
    ids=lambda request: str(request.operation),
)
def test_a_name_that_shows_already_is_taken(
    request_: Request, real_name: str | None, *, is_taken: bool
) -> None:
    """dockerd sees the conflict only where both have the same form; the other one is seen here."""
    objects = {
        reference: None
        if real_name is None
        else ObjectFact(kind=reference.kind, id="a" * 64, owner=ALICE, name=real_name)
        for reference in needed(request_)
    }
    assert (taken(request_, Facts(engine=ENGINE, objects=objects), uid=ALICE) is not None) == is_taken


def test_a_volume_made_before_is_made_again_under_its_own_name() -> None:
    """dockerd then answers with the volume that is there."""
    request = ask("POST", "/volumes/create", {"Name": "old"})
    fact = ObjectFact(kind=Kind.VOLUME, id="old", owner=ALICE, name="old")
    objects = {Reference(kind=Kind.VOLUME, text="old", new=True): fact}
    assert bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects)).body == {"Name": "old"}


@pytest.mark.parametrize(
    "fields",
    [
        {"NetworkMode": "container:"},
        {"PidMode": "container:/"},
        {"VolumesFrom": [":ro"]},
        {"VolumesFrom": [""]},
        {"Links": [":alias"]},
    ],
    ids=str,
)
def test_an_empty_name_is_refused(fields: dict[str, object]) -> None:
    """An empty name is a prefix of every id, so it must never be looked up."""
    with pytest.raises(MalformedRequest):
        host(**fields)


def test_an_endpoint_without_a_name_is_refused() -> None:
    """An endpoint's key is a network, and none has an empty name."""
    with pytest.raises(MalformedRequest):
        ask("POST", "/containers/create", {"NetworkingConfig": {"EndpointsConfig": {"": {}}}})


def test_what_stands_around_a_name_is_kept() -> None:
    """Aliases, modes, targets and options stay; a link without alias keeps its name as alias."""
    request = host(
        Links=["a:x", "/b:/me/y", "c"],
        VolumesFrom=["d:ro"],
        Binds=["v:/x:ro,nocopy"],
        NetworkMode="container:/e",
    )
    config = dict(bind(request, uid=ALICE, facts=facts(request=request)).body or {})["HostConfig"]
    assert config == {
        "Links": ["[a]:x", "[b]:y", "[c]:c"],
        "VolumesFrom": ["[d]:ro"],
        "Binds": ["[v]:/x:ro,nocopy"],
        "NetworkMode": "container:[e]",
    }


def test_links_of_an_endpoint_are_names_that_dns_knows() -> None:
    """dockerd's DNS answers for names and short ids, never for a full id."""
    request = ask(
        "POST", "/networks/net/connect", {"Container": "a", "EndpointConfig": {"Links": ["b:x", "c"]}}
    )
    known = facts(request=request).objects
    objects = {
        reference: replace(fact, name=f"u1001.{reference.text}") if fact and reference.text != "c" else fact
        for reference, fact in known.items()
    }
    body = bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects)).body
    assert body == {"Container": "[a]", "EndpointConfig": {"Links": ["u1001.b:x", "[c]:c"]}}


def test_network_mode_and_its_endpoint_are_bound_to_one_id() -> None:
    """dockerd looks an endpoint up by the spelling of NetworkMode."""
    request = ask(
        "POST",
        "/containers/create",
        {
            "HostConfig": {"NetworkMode": "n"},
            "NetworkingConfig": {"EndpointsConfig": {"n": {"Aliases": ["a"]}}},
        },
    )
    assert bind(request, uid=ALICE, facts=facts(request=request)).body == {
        "HostConfig": {"NetworkMode": "[n]"},
        "NetworkingConfig": {"EndpointsConfig": {"[n]": {"Aliases": ["a"]}}},
    }


def test_one_network_under_two_names_is_refused() -> None:
    """A name and an id of one network would become one key, and one endpoint would be lost."""
    endpoints: dict[str, dict[str, str]] = {"n": {}, "0123": {}}
    request = ask("POST", "/containers/create", {"NetworkingConfig": {"EndpointsConfig": endpoints}})
    objects = {
        Reference(kind=Kind.NETWORK, text=text): ObjectFact(kind=Kind.NETWORK, id="same", owner=None)
        for text in endpoints
    }
    with pytest.raises(MalformedRequest):
        bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects))


def test_a_bound_path_is_written_with_the_full_id() -> None:
    """dockerd is asked by id, so that a rename in between changes nothing."""
    request = ask("POST", "/containers/web/stop?t=3")
    full = "a" * 64
    objects = {
        Reference(kind=Kind.CONTAINER, text="web"): ObjectFact(kind=Kind.CONTAINER, id=full, owner=None)
    }
    assert write(bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects))).target == (
        f"/v1.41/containers/{full}/stop?t=3"
    )


@pytest.mark.parametrize(
    ("repository", "tag", "text"),
    [("a", "", "a"), ("a", "1", "a:1"), ("r:5000/a", "sha256:0", "r:5000/a@sha256:0")],
)
def test_repository_and_tag_make_one_reference(repository: str, tag: str, text: str) -> None:
    """The Engine API splits an image reference into two query keys."""
    assert tagged(repository, tag) == text


def test_the_hosts_network_is_bound_as_its_word() -> None:
    """An id would hide from the plugin's second look which network it is."""
    asked = ask("POST", "/containers/create", {"HostConfig": {"NetworkMode": "70be"}})
    fact = ObjectFact(kind=Kind.NETWORK, id="70be" * 16, owner=None, shared=True, name="host")
    facts = Facts(engine=ENGINE, objects={Reference(kind=Kind.NETWORK, text="70be"): fact})
    body = bind(asked, uid=ALICE, facts=facts).body or {}
    assert body["HostConfig"] == {"NetworkMode": "host"}


def test_containers_that_filters_look_up_are_references() -> None:
    """`before` and `since` name containers, and are written with full ids; the other filters stay."""
    asked = ask("GET", '/containers/json?filters={"since":["web"],"label":["a"]}'.replace('"', "%22"))
    web = Reference(kind=Kind.CONTAINER, text="web")
    assert needed(asked) == (web,)
    fact = ObjectFact(kind=Kind.CONTAINER, id="ab" * 32, owner=None, name="web")
    bound = bind(asked, uid=ALICE, facts=Facts(engine=ENGINE, objects={web: fact}))
    assert json.loads(bound.query["filters"][0]) == {"since": {"ab" * 32: True}, "label": {"a": True}}


INSIDE = "ds01.invalid/u1001/app"


@pytest.mark.parametrize(
    ("request_", "written"),
    [
        (ask("GET", "/images/app/json"), {"image": INSIDE}),
        (ask("DELETE", "/images/app"), {"image": INSIDE}),
        (ask("POST", "/images/app/tag?repo=reg.example/app&tag=1"), {"image": INSIDE, "repo": "reg.example/app", "tag": "1"}),
        (ask("POST", "/images/x/tag?repo=app&tag=1"), {"repo": INSIDE, "tag": "1"}),
        (ask("POST", "/images/x/tag?repo=docker.io/library/app:1"), {"repo": f"{INSIDE}:1"}),
        (ask("POST", "/images/create?fromSrc=-&repo=app&tag=1"), {"repo": INSIDE, "tag": "1"}),
        (ask("POST", "/images/create?fromImage=app&tag=1"), {"fromImage": "app", "tag": "1"}),
        (ask("POST", "/images/app/push?tag=1"), {"image": "app", "tag": "1"}),
        (ask("GET", "/images/get?names=app"), {"names": INSIDE}),
        (ask("POST", "/build?t=app:1"), {"t": f"{INSIDE}:1"}),
    ],
)  # fmt: skip
def test_a_local_name_is_written_as_it_is_inside_dockerd(request_: Request, written: dict[str, str]) -> None:
    """Where it is read, and where it is given; a pull means what a registry has."""
    objects: dict[Reference, ObjectFact | None] = {
        reference: ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=ALICE, name=INSIDE)
        for reference in needed(request_)
        if reference.text.startswith("app")
    }
    bound = bind(request_, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects))
    found = {**bound.params, **{key: values[0] for key, values in bound.query.items()}}
    assert {key: found[key] for key in written} == written
    assert (
        read(
            Incoming(method=write(bound).method, target=write(bound).target, headers=(), body=None),
            engine_max=(1, 41),
        )
        == bound
    )


def test_an_admins_names_are_written_as_they_stand() -> None:
    """For everybody to use."""
    request = ask("POST", "/images/x/tag?repo=app")
    bound = bind(request, uid=ALICE, facts=facts(request=request), everything=True)
    assert bound.query["repo"] == ("app",)


def test_images_in_lists_and_bodies_are_written_so_too() -> None:
    """`ancestor`, and a create's image and mounts; what is absent keeps its name."""
    body = {"Image": "app", "HostConfig": {"Mounts": [{"Type": "image", "Source": "app", "Target": "/x"}]}}
    for request in (
        ask("GET", '/containers/json?filters={"ancestor":["app","other"]}'),
        ask("POST", "/containers/create", body),
    ):
        objects: dict[Reference, ObjectFact | None] = dict.fromkeys(needed(request))
        objects[Reference(kind=Kind.IMAGE, text="app")] = ObjectFact(
            kind=Kind.IMAGE, id="sha256:1", owner=ALICE, name=INSIDE
        )
        bound = bind(request, uid=ALICE, facts=Facts(engine=ENGINE, objects=objects))
        text = json.dumps([dict(bound.query), bound.body])
        assert text.count(INSIDE) == (1 if bound.query else 2)
        assert ("other" in text) == bool(bound.query)
