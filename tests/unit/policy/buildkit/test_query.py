"""A build as `/build?version=2` asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from policy.buildkit import query
from policy.buildkit import solve as solves
from policy.buildkit.model import Builder, Entry, Solve
from policy.dockerapi.model import MalformedRequest, Operation
from policy.grants import Grants, Limits
from tests.fakes.policy_world import ALICE, request

BASE = {"version": ("2",), "session": ("s1",), "remote": (query.SESSION,)}
UPLOAD = "http://buildkit-session/abc"
BUILDER = Builder(actor=ALICE, grants=Grants(limits=Limits(shm_bytes=10**9)), cgroup_parent="/ds01/1000")


def read(**keys: str | tuple[str, ...]) -> Solve | tuple[Any, ...]:
    """The build of a query, as the canonical request holds it."""
    given = {key: value if isinstance(value, tuple) else (value,) for key, value in keys.items()}
    said = {key: values for key, values in (BASE | given).items() if values != ("",)}
    asked = request(Operation.IMAGE_BUILD, query=said).query
    return query.read(asked, ref="r1", session="own1", upload=UPLOAD)


def attrs(**keys: str | tuple[str, ...]) -> dict[str, str]:
    found = read(**keys)
    assert isinstance(found, Solve), found
    return dict(found.frontend_attrs)


def refused(**keys: str | tuple[str, ...]) -> str:
    found = read(**keys)
    assert isinstance(found, tuple)
    return " ".join(reason.text() for reason in found)


def test_the_least_that_the_cli_asks_for() -> None:
    """The engine's frontend, the client's session, and an image without a name."""
    assert read() == Solve(
        ref="r1",
        session="s1",
        frontend="dockerfile.v0",
        frontend_attrs={"image-resolve-mode": "default"},
        exporters=(Entry(type="moby"),),
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"target": "one"}, {"target": "one"}),
        ({"dockerfile": "sub/Dockerfile"}, {"filename": "sub/Dockerfile"}),
        ({"dockerfile": ".docker"}, {"filename": ".docker"}),
        ({"dockerfile": "."}, {}),
        ({"nocache": "1"}, {"no-cache": ""}),
        ({"pull": "1"}, {"image-resolve-mode": "pull"}),
        ({"platform": "linux/amd64"}, {"platform": "linux/amd64"}),
        ({"networkmode": "default"}, {}),
        ({"networkmode": "none"}, {"force-network-mode": "none"}),
        ({"shmsize": "1024"}, {"shm-size": "1024"}),
        ({"extrahosts": ("a:10.0.0.1", "b:::1")}, {"add-hosts": "a=10.0.0.1,b=::1"}),
        ({"buildargs": '{"A":"1","B":null}'}, {"build-arg:A": "1"}),
        ({"labels": '{"a":"b"}'}, {"label:a": "b"}),
        ({"cachefrom": '["x","y"]'}, {"cache-from": "x,y"}),
        ({"remote": query.UPLOAD}, {"context": UPLOAD}),
        ({"remote": ""}, {"context": UPLOAD}),
        ({"remote": "https://example.org/x.git"}, {"context": "https://example.org/x.git"}),
        ({"memory": "1", "cpuquota": "2", "cgroupparent": "/x", "ulimits": "[]"}, {}),
    ],
)
def test_each_key_becomes_what_dockerd_makes_of_it(
    keys: dict[str, str | tuple[str, ...]], expected: dict[str, str]
) -> None:
    """An attribute of the frontend, or nothing."""
    assert attrs(**keys) == {"image-resolve-mode": "default"} | expected


@pytest.mark.parametrize(
    ("keys", "exporters"),
    [
        ({"t": ("a", "b:1")}, (Entry(type="moby", attrs={"name": "a,b:1"}),)),
        ({"outputs": '[{"Type":"local"}]', "t": "a"}, (Entry(type="local"),)),
        ({"outputs": '[{"Type":"image","Attrs":{"push":"true"}}]', "t": "a"},
         (Entry(type="image", attrs={"push": "true", "name": "a"}),)),
        ({"outputs": '[{"Type":"cacheonly"}]'}, ()),
    ],
)  # fmt: skip
def test_where_the_result_goes(keys: dict[str, str | tuple[str, ...]], exporters: tuple[Entry, ...]) -> None:
    """Into the engine under the names asked for, or to the client."""
    found = read(**keys)
    assert isinstance(found, Solve)
    assert found.exporters == exporters


@pytest.mark.parametrize("value", ["1", "true"])
def test_an_inline_cache_is_written_where_it_is_asked_for(value: str) -> None:
    """By the argument that dockerd looks at."""
    found = read(buildargs=f'{{"BUILDKIT_INLINE_CACHE":"{value}"}}')
    assert isinstance(found, Solve)
    assert found.cache_exports == (Entry(type="inline"),)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ({"networkmode": "bridge"}, "networkmode"),
        ({"networkmode": "container:x"}, "networkmode"),
        ({"outputs": '[{"Type":"local"},{"Type":"tar"}]'}, "outputs"),
        ({"t": "a,b"}, "rule buildkit"),
        ({"extrahosts": "a"}, "extrahosts"),
        ({"extrahosts": "a:host-gateway"}, "extrahosts"),
    ],
)
def test_what_cannot_be_asked_for_so_is_refused(keys: dict[str, str], said: str) -> None:
    """With what to do instead."""
    assert said in refused(**keys)


@pytest.mark.parametrize(
    "keys",
    [
        {"networkmode": "host"},
        {"remote": "http://127.0.0.1/x.tar"},
        {"remote": "git@127.0.0.1:x.git"},
        {"session": "x:ds01-1001-s1"},
        {"buildargs": '{"BUILDKIT_SYNTAX":"x/y"}'},
        {"outputs": '[{"Type":"image","Attrs":{"push":"true"}}]'},
        {"outputs": '[{"Type":"registry"}]'},
        {"cachefrom": '["nowhere.invalid/x"]'},
        {"platform": "\n"} | {"outputs": '[{"Type":"x"}]'},
    ],
)
def test_what_reaches_out_is_refused_as_on_any_way(keys: dict[str, str]) -> None:
    """The message that the query becomes is decided like one that a client has written."""
    found = read(**keys)
    assert isinstance(found, Solve)
    shaped = solves.shape(found, BUILDER)
    assert isinstance(shaped, tuple)
    assert {reason.rule for reason in shaped} == {"buildkit"}


def test_a_call_may_be_the_upload_of_anothers_context() -> None:
    """Both name the build."""
    assert query.uploaded_for({"buildid": ("upload-request:b1",)}) == "b1"
    assert query.uploaded_for({"buildid": ("b1",)}) == ""
    assert query.uploaded_for({}) == ""
    waiting = {"buildid": ("b1",), "remote": ("upload-request",)}
    assert (query.waits_for_upload(waiting), query.build_id(waiting)) == (True, "b1")


def test_a_client_without_a_session_gets_one() -> None:
    """And may send the context as the body."""
    found = read(session="", remote="")
    assert isinstance(found, Solve)
    assert found.session == "own1"
    assert not query.has_session({})
    assert query.has_session(BASE)
    assert query.carries_context({})
    assert not query.carries_context(BASE)


def test_what_is_not_json_is_malformed() -> None:
    """And no build."""
    with pytest.raises(MalformedRequest):
        read(buildargs="{")
