"""Every way a request can be spelled so that two readers differ is refused or brought to one form."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from policy.dockerapi.model import (
    Incoming,
    MalformedRequest,
    Operation,
    Request,
    UnknownField,
    UnknownRoute,
)
from policy.dockerapi.read import read

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policy.model import Json

JSON_TYPE = ("content-type", "application/json")
CREATE = "/v1.41/containers/create"


def ask(
    method: str = "GET",
    target: str = "/v1.41/info",
    body: bytes | None = None,
    headers: tuple[tuple[str, str], ...] = (),
    engine_max: tuple[int, int] = (1, 41),
) -> Request:
    return read(Incoming(method=method, target=target, headers=headers, body=body), engine_max=engine_max)


def create(body: str | bytes) -> Mapping[str, Json]:
    raw = body if isinstance(body, bytes) else body.encode()
    made = ask("POST", CREATE, raw, (JSON_TYPE,)).body
    assert made is not None
    return made


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("/v1.41/containers/cre%61te", id="encoded unreserved"),
        pytest.param("/v1.41/containers/%2e%2e/json", id="encoded dots"),
        pytest.param("/v1.41/images/a%2Fb/json", id="encoded slash"),
        pytest.param("/v1.41//info", id="empty segment"),
        pytest.param("//v1.41/info", id="leading empty segment"),
        pytest.param("/v1.41/./info", id="dot"),
        pytest.param("/v1.41/containers/../info", id="dot dot"),
        pytest.param("/v1.41/containers/..", id="last dot dot"),
        pytest.param("/v1.41/info#x", id="fragment"),
        pytest.param("/v1.41/info\r\nx: y", id="control characters"),
        pytest.param("/v1.41/infö", id="not ASCII"),
        pytest.param("http://x/v1.41/info", id="absolute form"),
        pytest.param("", id="empty"),
        pytest.param("*", id="asterisk"),
        pytest.param("/v01.041/info", id="padded version"),
        pytest.param("/v1.041/info", id="padded minor"),
        pytest.param("/v1/info", id="no minor"),
        pytest.param("/v1..41/info", id="two dots"),
        pytest.param("/v1.5/info", id="too old"),
        pytest.param("/v1.23/info", id="just too old"),
        pytest.param("/v1.52/info", id="too new"),
        pytest.param("/v2.0/info", id="next major"),
        pytest.param("/v1.41/containers/a;b/json", id="semicolon in path"),
        pytest.param("/v1.41/containers/json?all=1;limit=2", id="semicolon in query"),
        pytest.param("/v1.41/containers/json?all=%zz", id="broken escape"),
        pytest.param("/v1.41/containers/json?all=%ff", id="query not UTF-8"),
        pytest.param("/v1.41/containers/json?limit=1&limit=2", id="scalar twice"),
        pytest.param("/v1.41/containers/json?limit=ten", id="not a number"),
        pytest.param("/v1.41/containers/json?limit=99999999999999999999", id="number too large"),
        pytest.param("/v1.41/containers/json?ALL=1", id="folded query key"),
        pytest.param("/v1.41/containers/json?filters=[1]", id="filters not an object"),
        pytest.param('/v1.41/containers/json?filters={"label":{"a":1}}', id="filter value not a flag"),
        pytest.param('/v1.41/containers/json?filters={"id":["a"],"id":["b"]}', id="filter twice"),
    ],
)
def test_targets_that_two_readers_could_read_differently_are_refused(target: str) -> None:
    """A path, version or query that dockerd might take for something else never becomes a request."""
    with pytest.raises(MalformedRequest):
        ask(target=target)


@pytest.mark.parametrize(
    ("method", "target"),
    [
        ("GET", "/v1.41/nothing"),
        ("GET", "/"),
        ("GET", "/v1.41"),
        ("GET", "/v1.41/"),
        ("OPTIONS", "/v1.41/info"),
        ("HEAD", "/v1.41/info"),
        ("get", "/v1.41/info"),
        ("GET", "/v1.41/info/"),
        ("GET", "/v1.41/v1.41/info"),
        ("PRI", "*"),
        ("POST", "/v1.41/containers/a/b/start"),
        ("GET", "/v1.24/distribution/a/json"),
    ],
)
def test_what_the_table_does_not_hold_is_not_a_request(method: str, target: str) -> None:
    """A method and path without a row is unknown, or malformed, and never allowed."""
    with pytest.raises((UnknownRoute, MalformedRequest)):
        ask(method, target)


@pytest.mark.parametrize(
    ("target", "engine_max", "version"),
    [
        ("/_ping", (1, 41), (1, 41)),
        ("/_ping", (1, 55), (1, 51)),
        ("/v1.24/_ping", (1, 41), (1, 24)),
        ("/v1.51/_ping", (1, 41), (1, 51)),
    ],
)
def test_the_version_is_explicit(target: str, engine_max: tuple[int, int], version: tuple[int, int]) -> None:
    """Without a version the engine's highest is meant, up to the highest that ds01 knows."""
    assert ask(target=target, engine_max=engine_max).version == version


def test_reserved_characters_of_image_names_may_be_encoded() -> None:
    """docker-py writes the @ of a digest as %40; it means the same and is written out plainly."""
    assert ask(target="/v1.41/images/r%3A5000/a%40sha256:0/json").params == {"image": "r:5000/a@sha256:0"}


BAD_BODIES = [
    pytest.param(b'{"Image":"a","Image":"b"}', id="duplicate key"),
    pytest.param(b'{"HostConfig":{"Memory":1,"Memory":2}}', id="duplicate key below"),
    pytest.param(b'{"HostConfig":{},"HostConfig":{"Privileged":true}}', id="merged objects"),
    pytest.param(b'{"Labels":{"a":"1","a":"2"}}', id="duplicate label"),
    pytest.param(b'{"hostconfig":{}}', id="lower case"),
    pytest.param('{"Ho\u017ftConfig":{"Privileged":true}}'.encode(), id="long s"),
    pytest.param('{"HostConfig":{"Bind\u017f":["/:/x"]}}'.encode(), id="long s below"),
    pytest.param('{"HostConfig":{"Networ\u212aMode":"host"}}'.encode(), id="Kelvin sign"),
    pytest.param(b'{"HostConfig":{"Bind\\u017f":["/:/x"]}}', id="escaped long s"),
    pytest.param(b'{"HostConfig":{"privileged":false}}', id="other case of false"),
    pytest.param(b"{} {}", id="second document"),
    pytest.param(b"{}x", id="trailing bytes"),
    pytest.param(b"[]", id="not an object"),
    pytest.param(b'"x"', id="a string"),
    pytest.param(b'{"Image":', id="cut off"),
    pytest.param(b'\xef\xbb\xbf{"Image":"a"}', id="byte order mark"),
    pytest.param('{"Image":"a"}'.encode("utf-16"), id="UTF-16"),
    pytest.param(b'{"Image":"\xff"}', id="not UTF-8"),
    pytest.param(b'{"Image":"\\ud800"}', id="lone surrogate"),
    pytest.param(b'{"Labels":{"\\udc00":""}}', id="lone surrogate in a key"),
    pytest.param(b'{"Image":"a\\u0000b"}', id="NUL"),
    pytest.param(b'{"HostConfig":{"Memory":NaN}}', id="NaN"),
    pytest.param(b'{"HostConfig":{"Memory":Infinity}}', id="Infinity"),
    pytest.param(b'{"New":1e999}', id="float overflow"),
    pytest.param(b'{"HostConfig":{"Memory":9223372036854775808}}', id="beyond int64"),
    pytest.param(b'{"HostConfig":{"Memory":' + b"9" * 5000 + b"}}", id="huge number"),
    pytest.param(b'{"HostConfig":{"Memory":1.0}}', id="float for a number"),
    pytest.param(b'{"HostConfig":{"Memory":"1"}}', id="string for a number"),
    pytest.param(b'{"HostConfig":{"Memory":true}}', id="flag for a number"),
    pytest.param(b'{"HostConfig":{"Privileged":1}}', id="number for a flag"),
    pytest.param(b'{"HostConfig":{"Privileged":"true"}}', id="string for a flag"),
    pytest.param(b'{"HostConfig":[]}', id="list for an object"),
    pytest.param(b'{"HostConfig":{"Binds":"/:/x"}}', id="string for a list"),
    pytest.param(b'{"HostConfig":{"Binds":[null]}}', id="null in a list"),
    pytest.param(b'{"HostConfig":{"Mounts":[null]}}', id="null among structs"),
    pytest.param(b'{"New":' + b"[" * 40 + b"]" * 40 + b"}", id="deep"),
    pytest.param(b'{"New":' + b"[" * 100_000, id="very deep"),
    pytest.param(b'{"Image":"' + b"a" * 950_000 + b'"}', id="too large"),
]


@pytest.mark.parametrize("body", BAD_BODIES)
def test_bodies_that_two_readers_could_read_differently_are_refused(body: bytes) -> None:
    """What dockerd's JSON reader and another could read differently is never forwarded."""
    with pytest.raises(MalformedRequest):
        create(body)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ('{"Privileged":true}', "Privileged"),
        ('{"Binds":["/:/x"]}', "Binds"),
        ('{"CgroupParent":"/x"}', "CgroupParent"),
        ('{"Memory":1}', "Memory"),
        ('{"HostConfig":{"NewThing":{"a":[0,1]}}}', "HostConfig.NewThing"),
        ('{"HostConfig":{"Mounts":[{"ClusterOptions":{"x":1}}]}}', "HostConfig.Mounts[0].ClusterOptions"),
        ('{"HostConfig":{"Capabilities":["ALL"]}}', "HostConfig.Capabilities"),
    ],
)
def test_a_field_with_unknown_meaning_is_named_and_refused(body: str, field: str) -> None:
    """A field ds01 does not know, HostConfig's own at the top level among them, is a denial with its path."""
    with pytest.raises(UnknownField) as refused:
        create(body)
    assert refused.value.field == field


@pytest.mark.parametrize("zero", ["null", "0", "0.0", '""', "false", "[]", "{}", '{"a":[0,""],"b":null}'])
def test_an_unknown_field_that_asks_for_nothing_is_left_out(zero: str) -> None:
    """New clients send zero values of fields this version does not know."""
    assert create(f'{{"Image":"a","Privileged":{zero},"HostConfig":{{"New":{zero}}}}}') == {
        "Image": "a",
        "HostConfig": {},
    }


@pytest.mark.parametrize("body", ["{}", "null", '{"HostConfig":null}', '{"HostConfig":{"Binds":null}}', ""])
def test_a_create_always_has_a_host_config(body: str) -> None:
    """Without one, old engines would take Privileged and Binds from the top level."""
    assert create(body) == {"HostConfig": {}}


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ({"Cmd": "sh -c x", "Entrypoint": "a"}, {"Cmd": ["sh -c x"], "Entrypoint": ["a"]}),
        ({"Cmd": [], "Entrypoint": []}, {"Entrypoint": []}),
        ({"StopTimeout": 0}, {"StopTimeout": 0}),
        ({"Healthcheck": {"Interval": 0}}, {}),
        ({"Labels": {"A": None, "a": "b"}}, {"Labels": {"A": "", "a": "b"}}),
        ({"Volumes": {"/x": None}}, {"Volumes": {"/x": {}}}),
        ({"HostConfig": {"PidsLimit": 0}}, {"HostConfig": {"PidsLimit": 0}}),
        ({"HostConfig": {"MaskedPaths": []}}, {"HostConfig": {"MaskedPaths": []}}),
        ({"HostConfig": {"MaskedPaths": None}}, {}),
        ({"HostConfig": {"Init": False, "Privileged": False}}, {"HostConfig": {"Init": False}}),
        ({"HostConfig": {"MemorySwappiness": 0}}, {"HostConfig": {"MemorySwappiness": 0}}),
        (
            {"HostConfig": {"PortBindings": {"80/tcp": None, "81/tcp": [{"HostIp": ""}]}}},
            {"HostConfig": {"PortBindings": {"80/tcp": [], "81/tcp": [{}]}}},
        ),
        (
            {"NetworkingConfig": {"EndpointsConfig": {"n": None}}},
            {"NetworkingConfig": {"EndpointsConfig": {"n": {}}}},
        ),
    ],
)
def test_values_have_one_canonical_form(given: dict[str, Any], canonical: dict[str, Any]) -> None:
    """Zeros are left out, except where the engine tells a zero from an absence."""
    assert create(json.dumps(given)) == {"HostConfig": {}, **canonical}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param((("content-type", "application/x-www-form-urlencoded"),), id="form"),
        pytest.param((("content-type", "Multipart/Form-Data; boundary=x"),), id="multipart"),
        pytest.param((("content-type", "text/plain"),), id="text"),
        pytest.param((), id="none"),
        pytest.param((JSON_TYPE, ("content-type", "text/plain")), id="two types"),
        pytest.param((("content-type", "application/json; charset=utf-16"),), id="charset"),
    ],
)
def test_a_body_that_the_plugin_would_not_see_as_json_is_refused(
    headers: tuple[tuple[str, str], ...],
) -> None:
    """dockerd shows its plugin JSON bodies only, and takes form fields before the query's."""
    with pytest.raises(MalformedRequest):
        ask("POST", CREATE, b"{}", headers)


def test_a_form_is_refused_without_a_body_too() -> None:
    """A streamed form would override the query of a call that takes no body."""
    with pytest.raises(MalformedRequest):
        ask(
            "POST", "/v1.41/containers/a/kill", None, (("content-type", "application/x-www-form-urlencoded"),)
        )


@pytest.mark.parametrize("headers", [(("content-length", "7"),), (("transfer-encoding", "chunked"),)])
@pytest.mark.parametrize("target", [CREATE, "/v1.41/containers/a/start", "/v1.41/containers/a/attach"])
def test_an_announced_body_that_cannot_be_seen_is_refused(
    target: str, headers: tuple[tuple[str, str], ...]
) -> None:
    """A body too large for the plugin arrives there empty, and in dockerd whole."""
    with pytest.raises(MalformedRequest):
        ask("POST", target, None, (JSON_TYPE, *headers))


def test_start_takes_no_body() -> None:
    """Old engines replaced the whole HostConfig by the body of start."""
    with pytest.raises(MalformedRequest):
        ask("POST", "/v1.41/containers/a/start", b'{"Privileged":true}', (JSON_TYPE,))


@pytest.mark.parametrize("body", [None, b"", b"{}", b"null\n", b'{"t":5}'])
def test_a_body_on_a_call_that_takes_none_is_dropped(body: bytes | None) -> None:
    """dockerode repeats its query as JSON, docker-py sends an empty object."""
    assert ask("POST", "/v1.41/containers/a/stop?t=5", body, (JSON_TYPE,)).body is None


def test_a_stream_has_no_json_body() -> None:
    """A call that relays a stream is never given a body that was read whole."""
    with pytest.raises(MalformedRequest):
        ask("POST", "/v1.41/images/load", b"{}", (JSON_TYPE,))


def test_the_refused_are_named_whatever_they_carry() -> None:
    """A swarm call is refused by name, its body and query unread."""
    request = ask("POST", "/v1.41/swarm/init?x=1", b"\xff", ())
    assert request.operation is Operation.SWARM_WRITE
    assert request.body is None
    assert request.query == {}


def test_client_headers_are_dropped_but_for_the_allowed() -> None:
    """A stamp, meta headers or credentials for another call never reach dockerd."""
    request = ask(
        "POST",
        "/v1.41/images/a/push",
        None,
        (
            ("x-ds01-stamp", "forged"),
            ("x-meta-a", "b"),
            ("authorization", "b"),
            ("x-registry-auth", "e30="),
            ("x-registry-config", "e30="),
        ),
    )
    assert request.headers == {"x-registry-auth": "e30="}


@pytest.mark.parametrize("value", ["a b", "a\r\nx-y: z", "a,b", "ä", "a" * 70_000, "==="])
def test_registry_credentials_are_a_token_or_refused(value: str) -> None:
    """They are forwarded as they are, so they may hold base64url and nothing else."""
    with pytest.raises(MalformedRequest):
        ask("POST", "/v1.41/images/a/push", None, (("x-registry-auth", value),))


@pytest.mark.parametrize(
    ("method", "path", "asked", "got"),
    [
        ("POST", "containers/a/attach", "tcp", "tcp"),
        ("POST", "containers/a/attach", "TCP", "tcp"),
        ("POST", "exec/a/start", "tcp", "tcp"),
        ("GET", "containers/a/attach/ws", "websocket", "websocket"),
        ("POST", "session", "h2c", "h2c"),
        ("POST", "grpc", "h2c", "h2c"),
        ("GET", "info", "h2c", None),
    ],
)
def test_only_hijacked_calls_upgrade(method: str, path: str, asked: str, got: str | None) -> None:
    """Each hijacked call has its protocol; elsewhere an offer to upgrade is not passed on."""
    assert ask(method, f"/v1.41/{path}", None, (("upgrade", asked),)).upgrade == got


def test_a_hijacked_call_refuses_another_protocol() -> None:
    """h2c on attach would make client and engine speak of different things."""
    with pytest.raises(MalformedRequest):
        ask("POST", "/v1.41/containers/a/attach", None, (("upgrade", "h2c"),))


@pytest.mark.parametrize(
    ("target", "query"),
    [
        ("/v1.41/containers/json?all=True&size=no&limit=007", {"all": ("1",), "limit": ("7",)}),
        ("/v1.41/containers/json?all=+FALSE+&trunc_cmd=1", {}),
        ("/v1.41/containers/a/stats", {}),
        ("/v1.41/containers/a/stats?stream=", {"stream": ("0",)}),
        ("/v1.41/containers/a/stats?stream=1", {}),
        ("/v1.41/images/get?names=a&names=b", {"names": ("a", "b")}),
        ("/v1.41/containers/a/logs?tail=a%2Bb+c", {"tail": ("a+b c",)}),
        (
            '/v1.41/containers/json?filters={"label":["b","a"],"status":{"x":false}}',
            {"filters": ('{"label":{"a":true,"b":true},"status":{"x":true}}',)},
        ),
        ("/v1.41/containers/json?filters={}&new=0&newer=", {}),
    ],
)
def test_queries_have_one_canonical_form(target: str, query: dict[str, tuple[str, ...]]) -> None:
    """Flags, numbers and filters are written in one way, in the order of the table."""
    assert ask(target=target).query == query


def test_false_is_kept_where_absence_is_true() -> None:
    """commit pauses and build removes unless told otherwise."""
    paused = ask("POST", "/v1.41/commit?container=a&pause=0", b"null", (JSON_TYPE,))
    assert paused.query["pause"] == ("0",)
    assert ask("POST", "/v1.41/build?rm=false").query == {"rm": ("0",)}
    assert ask("POST", "/v1.41/build?rm=").query == {}


@pytest.mark.parametrize(
    ("target", "field"),
    [
        ("/v1.41/containers/json?newthing=1", "query.newthing"),
        ('/v1.41/containers/json?filters={"newthing":["x"]}', "query.filters.newthing"),
    ],
)
def test_an_unknown_query_key_that_asks_for_something_is_named(target: str, field: str) -> None:
    """What ds01 does not know is refused by name, not passed on and not lost."""
    with pytest.raises(UnknownField) as refused:
        ask(target=target)
    assert refused.value.field == field
