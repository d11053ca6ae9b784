"""A build as `POST /build?version=2` asks for it: what dockerd would make of the query, as values.

dockerd itself can put no cgroup, no source policy and no frontend of ds01's choice into such a build, so ds01 asks for it by
`Control/Solve`, where all of that has its place. What is decided there (`policy.buildkit.solve`) is not looked at here.

SOURCE: moby v24.0 to v28.5, builder/builder-next/builder.go, Build: which keys it reads, and what it makes of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from policy.buildkit.attrs import DOCKERFILE, refused
from policy.buildkit.model import Entry, Solve
from policy.dockerapi.strict_json import parse
from policy.fields import as_object, as_strings, as_text
from policy.model import Json, Reason

Query = Mapping[str, tuple[str, ...]]

UPLOAD = "upload-request"  # as `remote`, and with a colon and the build's id as `buildid`: the context comes by another call
SESSION = "client-session"  # as `remote`: the context is asked for in the session
_NETWORKS = {"": "", "default": "", "none": "none", "host": "host"}
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # SOURCE: Go, strconv.ParseBool


def uploaded_for(query: Query) -> str:
    """The build whose context is this call's body, "" if it is a build itself."""
    kind, colon, build = _one(query, "buildid").partition(":")
    return build if colon and kind == UPLOAD else ""


def build_id(query: Query) -> str:
    """How the client calls the build, to send its context and to cancel it; "" if it gives it no name."""
    return _one(query, "buildid")


def waits_for_upload(query: Query) -> bool:
    """Whether the context comes by another call, whose `uploaded_for` is this one's `build_id`."""
    return _one(query, "remote") == UPLOAD


def carries_context(query: Query) -> bool:
    """Whether the context is the body of the call."""
    return not _one(query, "remote")


def has_session(query: Query) -> bool:
    """Whether the client has a session for the build."""
    return bool(_one(query, "session"))


def read(query: Query, *, ref: str, session: str = "", upload: str = "") -> Solve | tuple[Reason, ...]:
    """The build that is asked for, or what cannot be asked for so.

    Args:
        ref: what to call it.
        session: what to take where the client has none.
        upload: the address at which an uploaded context is fetched through the session.
    Raises: MalformedRequest.
    """
    reasons = tuple(_refusals(query))
    if reasons:
        return reasons
    arguments = {
        key: value for key, value in _object(query, "buildargs").items() if isinstance(value, str)
    }  # null: taken from the Dockerfile
    inline = arguments.get("BUILDKIT_INLINE_CACHE", "") in _TRUE
    return Solve(
        ref=ref,
        session=_one(query, "session") or session,
        frontend=DOCKERFILE,
        frontend_attrs={
            **_attrs(query, upload),
            **{f"build-arg:{key}": value for key, value in arguments.items()},
            **{f"label:{key}": as_text(value) for key, value in _object(query, "labels").items()},
        },
        exporters=_exporters(query),
        cache_exports=(Entry(type="inline"),) if inline else (),
    )


def _refusals(query: Query) -> Iterator[Reason]:
    network = _one(query, "networkmode")
    if network not in _NETWORKS:
        yield refused("networkmode", network, "default or none", "leave out --network")
    if len(_outputs(query)) > 1:
        yield refused("outputs", "more than one", "one output", "build once for each --output")
    for tag in query.get("t", ()):
        if "," in tag:  # an exporter takes it for two
            yield refused("t", tag, "names of images", "name the image otherwise")
    for host in query.get("extrahosts", ()):
        name, colon, address = host.partition(":")
        if not name or not colon or not address or address == "host-gateway":
            yield refused("extrahosts", host, "name:address", "write the address out")


def _attrs(query: Query, upload: str) -> dict[str, str]:
    remote, filename = _one(query, "remote"), _one(query, "dockerfile")
    contexts = {"": upload, UPLOAD: upload, SESSION: ""}
    hosts = (host.partition(":") for host in query.get("extrahosts", ()))
    attrs = {
        "target": _one(query, "target"),
        "filename": "" if filename == "." else filename,
        "context": contexts.get(remote, remote),
        "cache-from": ",".join(as_strings(_json(query, "cachefrom"))),
        "platform": _one(query, "platform"),
        "force-network-mode": _NETWORKS[_one(query, "networkmode")],
        "add-hosts": ",".join(f"{name}={address}" for name, _, address in hosts),
        "shm-size": _one(query, "shmsize"),
    }
    attrs = {key: value for key, value in attrs.items() if value}
    attrs["image-resolve-mode"] = "pull" if "pull" in query else "default"
    if "nocache" in query:
        attrs["no-cache"] = ""
    return attrs


def _exporters(query: Query) -> tuple[Entry, ...]:
    outputs = _outputs(query)
    kind = as_text(outputs[0].get("Type")) if outputs else "moby"
    attrs = (
        {key: as_text(value) for key, value in as_object(outputs[0].get("Attrs")).items()} if outputs else {}
    )
    if kind == "cacheonly":
        return ()
    if kind in {"moby", "image"} and query.get("t"):
        attrs["name"] = ",".join(query["t"])
    return (Entry(type=kind, attrs=attrs),)


def _outputs(query: Query) -> list[Mapping[str, Json]]:
    found = _json(query, "outputs")
    return [as_object(one) for one in found] if isinstance(found, list) else []


def _object(query: Query, key: str) -> Mapping[str, Json]:
    return as_object(_json(query, key))


def _json(query: Query, key: str) -> Json:
    text = _one(query, key)
    return parse(text, what=key) if text else None


def _one(query: Query, key: str) -> str:
    return next(iter(query.get(key, ())), "")
