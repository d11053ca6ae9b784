"""Every place where a request names an object: one walk, used both to ask for facts and to bind.

INVARIANT: `policy.facts.needed` and `policy.dockerapi.bind` see the same places, since both walk here.
SOURCE: engine-api reference 1.24-1.51; moby runconfig/opts ParseLink, volume/mounts ParseVolumesFrom.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest, Operation, Request
from policy.dockerapi.query import filters
from policy.dockerapi.routes import ROUTE_OF
from policy.model import Json, Kind, Reference

Body = dict[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A reference where it stands.

    target: the call makes or moves this name, which need not exist yet.
    in_dns: dockerd looks the name up only when the container asks for it, in the network's DNS, which knows no full ids.
    """

    reference: Reference
    target: bool = False
    in_dns: bool = False


Naming = Callable[[Place], str]  # what to write at a place; the reference's own text changes nothing

# Words that stand for no object of anybody's: dockerd lets nobody make a network with such a name.
NETWORK_WORDS = frozenset({"default", "bridge", "none", "host"})
DEFAULT_WORDS = frozenset({"", "default", "bridge"})  # what a container means that names no network
_PATH_KINDS = {
    "container": Kind.CONTAINER,
    "exec": Kind.EXEC,
    "image": Kind.IMAGE,
    "network": Kind.NETWORK,
    "volume": Kind.VOLUME,
}


# Where a container or an exec can be named: in the path, and in the body or query of these.
NAMING_CONTAINERS = frozenset(
    operation
    for operation, route in ROUTE_OF.items()
    if {"{container}", "{exec}"} & {*route.template.split("/")}
) | {
    Operation.CONTAINER_LIST,
    Operation.CONTAINER_CREATE,
    Operation.NETWORK_CONNECT,
    Operation.NETWORK_DISCONNECT,
    Operation.IMAGE_COMMIT,
    Operation.IMAGE_BUILD,
}


def walk(request: Request, name: Naming) -> Request:
    """The request with every reference written as `name` says.

    Raises: MalformedRequest: two spellings of one network, given as two endpoints.
    """
    params = _walk_params(request, name)
    walked = request if params == request.params else replace(request, params=params)
    walked = _walk_query(walked, name)
    return _walk_body(walked, name) if walked.body else walked


def _existing(name: Naming, kind: Kind, text: str) -> str:
    return name(Place(reference=Reference(kind=kind, text=text)))


def _target(name: Naming, kind: Kind, text: str) -> str:
    return name(Place(reference=Reference(kind=kind, text=text, new=True), target=True))


def _container(name: Naming, text: str) -> str:
    return _existing(name, Kind.CONTAINER, text.removeprefix("/"))


def tagged(repository: str, tag: str) -> str:
    """One image reference from the two query keys the Engine API splits it into."""
    if not tag:
        return repository
    return f"{repository}@{tag}" if ":" in tag else f"{repository}:{tag}"


# --- path ------------------------------------------------------------------------------------------------


def _walk_params(request: Request, name: Naming) -> Mapping[str, str]:
    if request.operation is Operation.DISTRIBUTION_INSPECT or "path" in request.params:
        return request.params  # a registry's image, or a refused call: no object of this engine
    if request.operation is Operation.IMAGE_PUSH:
        _existing(name, Kind.IMAGE, tagged(request.params["image"], _one(request, "tag")))
        return request.params
    return {
        key: _existing(name, kind, text) if (kind := _PATH_KINDS.get(key)) else text
        for key, text in request.params.items()
    }


# --- query -----------------------------------------------------------------------------------------------


def _one(request: Request, key: str) -> str:
    values = request.query.get(key, ())
    return values[0] if values else ""


def _walk_query(request: Request, name: Naming) -> Request:
    match request.operation:
        case Operation.IMAGE_CREATE if _one(request, "fromImage"):
            pulled = tagged(_one(request, "fromImage"), _one(request, "tag"))
            name(Place(reference=Reference(kind=Kind.IMAGE, text=pulled, literal=True), target=True))
        case Operation.IMAGE_CREATE | Operation.IMAGE_TAG | Operation.IMAGE_COMMIT:
            request = _walk_repo(request, name)
        case Operation.IMAGE_GET_ALL if request.query.get("names"):
            named = tuple(_existing(name, Kind.IMAGE, text) for text in request.query["names"])
            return request if named == request.query["names"] else _with_query(request, "names", *named)
        case Operation.IMAGE_BUILD:
            return _walk_build(request, name)
        case Operation.CONTAINER_LIST:
            container, image = partial(_container, name), partial(_existing, name, Kind.IMAGE)
            return _walk_filters(request, {"before": container, "since": container, "ancestor": image})
        case Operation.IMAGE_LIST:
            image = partial(_existing, name, Kind.IMAGE)
            return _walk_filters(request, {"before": image, "since": image})
        case Operation.CONTAINER_CREATE | Operation.CONTAINER_RENAME if _one(request, "name"):
            given = _one(request, "name").removeprefix("/")
            return _with_query(request, "name", _target(name, Kind.CONTAINER, given))
        case _:
            pass
    if request.operation is Operation.IMAGE_COMMIT and _one(request, "container"):
        return _with_query(request, "container", _container(name, _one(request, "container")))
    return request


def _with_query(request: Request, key: str, *values: str) -> Request:
    return replace(request, query={**request.query, key: values})


def _walk_repo(request: Request, name: Naming) -> Request:
    """The name that a tag, commit or import writes, split into the two keys as it came."""
    repository = _one(request, "repo")
    if not repository:
        return request
    whole = tagged(repository, _one(request, "tag"))
    written = _target(name, Kind.IMAGE, whole)
    return (
        request
        if written == whole
        else _with_query(request, "repo", written.removesuffix(whole[len(repository) :]))
    )


def _walk_build(request: Request, name: Naming) -> Request:
    """Tags and network. What `cachefrom` names is not looked at: the build rule drops it."""
    tags = request.query.get("t", ())
    named = tuple(_target(name, Kind.IMAGE, tag) for tag in tags)
    if named != tags:
        request = _with_query(request, "t", *named)
    mode = _one(request, "networkmode")
    return _with_query(request, "networkmode", _network_mode(name, mode)) if mode else request


def _walk_filters(request: Request, namings: Mapping[str, Callable[[str], str]]) -> Request:
    """SECURITY: for `before` and `since` dockerd looks an object up, and an error would tell that others have none."""
    given = filters(request)
    named = {key: [naming(text) for text in given[key]] for key, naming in namings.items() if given.get(key)}
    if not named:
        return request
    written: Body = {
        key: dict.fromkeys(sorted(named.get(key, [*values])), True) for key, values in given.items()
    }
    return _with_query(request, "filters", strict_json.write(written))


# --- body ------------------------------------------------------------------------------------------------


def _walk_body(request: Request, name: Naming) -> Request:
    body: Body = dict(request.body or {})
    match request.operation:
        case Operation.CONTAINER_CREATE:
            _walk_create(body, name)
        case Operation.NETWORK_CONNECT | Operation.NETWORK_DISCONNECT:
            _walk_text(body, "Container", lambda text: _container(name, text))
            if isinstance(endpoint := body.get("EndpointConfig"), dict):
                body["EndpointConfig"] = _endpoint(endpoint, name)
        case Operation.NETWORK_CREATE:
            _walk_text(body, "Name", lambda text: _target(name, Kind.NETWORK, text))
            if isinstance(source := body.get("ConfigFrom"), dict):
                copied = dict(source)
                _walk_text(copied, "Network", lambda text: _existing(name, Kind.NETWORK, text))
                body["ConfigFrom"] = copied
        case Operation.VOLUME_CREATE:
            _walk_text(body, "Name", lambda text: _target(name, Kind.VOLUME, text))
        case _:
            return request
    return replace(request, body=body)


def _walk_text(holder: Body, key: str, naming: Callable[[str], str]) -> None:
    """Rename the text at `key`, if there is one."""
    text = holder.get(key)
    if isinstance(text, str) and text:
        holder[key] = naming(text)


def _walk_texts(holder: Body, key: str, naming: Callable[[str], str]) -> None:
    """Rename each text of the list at `key`."""
    texts = holder.get(key)
    if isinstance(texts, list):
        holder[key] = [naming(text) if isinstance(text, str) else text for text in texts]


def _walk_create(body: Body, name: Naming) -> None:
    _walk_text(body, "Image", lambda text: _existing(name, Kind.IMAGE, text))
    if isinstance(host := body.get("HostConfig"), dict):
        body["HostConfig"] = _host_config(host, name)
    networking = body.get("NetworkingConfig")
    if isinstance(networking, dict) and isinstance(endpoints := networking.get("EndpointsConfig"), dict):
        body["NetworkingConfig"] = {**networking, "EndpointsConfig": _endpoints(endpoints, name)}


def _host_config(given: Body, name: Naming) -> Body:
    host = dict(given)
    _walk_text(host, "NetworkMode", lambda text: _network_mode(name, text))
    for key in ("PidMode", "IpcMode"):
        _walk_text(host, key, lambda text: _namespace(name, text))
    _walk_texts(host, "VolumesFrom", lambda text: _volumes_from(name, text))
    _walk_texts(host, "Links", lambda text: _link(name, text))
    _walk_texts(host, "Binds", lambda text: _bind(name, text))
    mounts = host.get("Mounts")
    if isinstance(mounts, list):
        host["Mounts"] = [_mount(mount, name) if isinstance(mount, dict) else mount for mount in mounts]
    return host


def _namespace(name: Naming, text: str) -> str:
    kind, colon, container = text.partition(":")
    return f"container:{_container(name, container)}" if kind == "container" and colon else text


def _network_mode(name: Naming, text: str) -> str:
    if text in NETWORK_WORDS:
        return text
    if text.startswith("container:"):
        return _namespace(name, text)
    return _existing(name, Kind.NETWORK, text)


def _volumes_from(name: Naming, text: str) -> str:
    container, colon, mode = text.partition(":")
    return f"{_container(name, container)}{colon}{mode}"


def _link(name: Naming, text: str, *, in_dns: bool = False) -> str:
    """`name`, `name:alias`, or `/name:/parent/alias` as inspect shows it; always written with its alias."""
    container, _, alias = text.partition(":")
    plain = container.removeprefix("/")
    if container.startswith("/"):
        alias = alias.rpartition("/")[2]
    place = Place(reference=Reference(kind=Kind.CONTAINER, text=plain), in_dns=in_dns)
    return f"{name(place)}:{alias or plain}"


def _bind(name: Naming, text: str) -> str:
    """`volume:/target[:options]`; a host path starts with `/`, and a lone target names nothing."""
    source, colon, rest = text.partition(":")
    if not colon or not source or source.startswith("/"):
        return text
    return f"{_existing(name, Kind.VOLUME, source)}:{rest}"


def _mount(given: Body, name: Naming) -> Body:
    mount = dict(given)
    if mount.get("Type") == "volume":
        _walk_text(mount, "Source", lambda text: _existing(name, Kind.VOLUME, text))
    elif mount.get("Type") == "image":
        _walk_text(mount, "Source", lambda text: _existing(name, Kind.IMAGE, text))
    return mount


def _endpoints(given: Body, name: Naming) -> Body:
    walked: Body = {}
    for network, endpoint in given.items():
        key = network if network in NETWORK_WORDS else _existing(name, Kind.NETWORK, network)
        if key in walked:
            raise MalformedRequest("NetworkingConfig.EndpointsConfig names one network twice")
        walked[key] = _endpoint(endpoint, name) if isinstance(endpoint, dict) else endpoint
    return walked


def _endpoint(given: Body, name: Naming) -> Body:
    endpoint = dict(given)
    _walk_text(endpoint, "NetworkID", lambda text: _existing(name, Kind.NETWORK, text))
    _walk_texts(endpoint, "Links", lambda text: _link(name, text, in_dns=True))
    return endpoint
