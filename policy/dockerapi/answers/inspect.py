"""Answers about one container or exec, and the answers of creating one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from policy.cpus import as_nano
from policy.dockerapi.answers import shared
from policy.dockerapi.answers.errors import scrub
from policy.dockerapi.answers.mounts import (
    NO_SOURCES,
    Sources,
    shown_binds,
    shown_links,
    shown_mounts,
    shown_networks,
)
from policy.dockerapi.answers.pieces import (
    Piece,
    piece,
    read,
    read_fields,
    read_optional_fields,
    read_text,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

if TYPE_CHECKING:
    from collections.abc import Sequence


class _Created(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    warnings: list[str] | None = None


class _Updated(msgspec.Struct, frozen=True, rename="pascal"):
    warnings: list[str] | None = None


class _Cpus(msgspec.Struct, frozen=True, rename="pascal"):
    nano_cpus: int = 0
    cpu_quota: int = 0
    cpu_period: int = 0


class _CreatedNetwork(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    warning: str = ""


class _Exec(msgspec.Struct, frozen=True):
    container_id: str = msgspec.field(name="ContainerID")


_CREATED = msgspec.json.Decoder(_Created)
_UPDATED = msgspec.json.Decoder(_Updated)
_CPUS = msgspec.json.Decoder(_Cpus)
_CREATED_NETWORK = msgspec.json.Decoder(_CreatedNetwork)
_EXEC = msgspec.json.Decoder(_Exec)


def container_inspect(
    body: bytes, sees: Visibility, *, sources: Sources = NO_SOURCES, names: Names = REAL_NAMES
) -> bytes:
    """GET /containers/{id}/json, of an own container; a shared one is shown by `shared`.

    Args:
        sources: How the create had named the host paths, before it was rewritten.
    Raises: UnreadableAnswer: also when it is not a container the user sees.
    """
    fields = read_fields(body)
    container_id = read_text(fields["Id"]) if "Id" in fields else ""
    if not sees.sees_container(container_id):
        name = sees.shown_as(container_id)
        if name is None:
            raise UnreadableAnswer("the engine answered with another container")
        return shared.container_inspect(body, name, sees)
    renames = names.may_be_in(body)
    if sources == NO_SOURCES and not renames:
        return body
    if "Name" in fields:
        fields["Name"] = piece("/" + names.plain(read_text(fields["Name"]).removeprefix("/")))
    if "Mounts" in fields:
        fields["Mounts"] = shown_mounts(fields["Mounts"], names, sources)
    if "HostConfig" in fields:
        fields["HostConfig"] = _shown_host_config(fields["HostConfig"], sees, names, sources)
    if "NetworkSettings" in fields and renames:
        fields["NetworkSettings"] = shown_networks(fields["NetworkSettings"], names)
    if "Config" in fields and renames:
        fields["Config"] = _shown_config(fields["Config"], names)
    if "State" in fields and renames:
        fields["State"] = _shown_state(fields["State"], names)
    return write(fields)


def _shown_config(raw: msgspec.Raw, names: Names) -> msgspec.Raw:
    config = read_optional_fields(raw)
    if config is None or "Image" not in config:
        return raw
    config["Image"] = piece(names.image(read_text(config["Image"])))
    return piece(config)


def _shown_state(raw: msgspec.Raw, names: Names) -> msgspec.Raw:
    """Why the last start failed, in dockerd's words, is kept in `State.Error`."""
    state = read_optional_fields(raw)
    if state is None or "Error" not in state:
        return raw
    state["Error"] = piece(names.plain_text(read_text(state["Error"])))
    return piece(state)


def _shown_host_config(raw: msgspec.Raw, sees: Visibility, names: Names, sources: Sources) -> msgspec.Raw:
    config = read_optional_fields(raw)
    if config is None:
        return raw
    if "Binds" in config:
        config["Binds"] = shown_binds(config["Binds"], names, sources)
    if "Mounts" in config:
        config["Mounts"] = shown_mounts(config["Mounts"], names, sources)
    if "NetworkMode" in config:
        # A create goes on with the network's id; tools look for the name they gave.
        network = sees.network_name(read_text(config["NetworkMode"]))
        if network is not None:
            config["NetworkMode"] = piece(names.plain(network))
    if "Links" in config:
        config["Links"] = shown_links(config["Links"], names)
    cpus = read(_CPUS, raw)
    if cpus.nano_cpus == 0 and cpus.cpu_quota > 0 and cpus.cpu_period > 0:
        # An update of --cpus may have become a quota; both are shown, whichever the user gave.
        config["NanoCpus"] = piece(as_nano(quota_us=cpus.cpu_quota, period_us=cpus.cpu_period))
    return piece(config)


def exec_inspect(body: bytes, sees: Visibility) -> bytes:
    """GET /exec/{id}/json. Raises: UnreadableAnswer: also when it runs in a container the user does not see."""
    container_id = read(_EXEC, body).container_id
    if not sees.sees_container(container_id) and sees.shown_as(container_id) is None:
        raise UnreadableAnswer("the engine answered with another exec")
    return body


def stats(document: Piece, names: Names) -> Piece:
    """One document of GET /containers/{id}/stats; the same bytes if nothing had to go. Raises: UnreadableAnswer."""
    if not names.may_be_in(document):
        return document
    fields = read_fields(document)
    if "name" in fields:
        fields["name"] = piece("/" + names.plain(read_text(fields["name"]).removeprefix("/")))
    return write(fields)


def wait(document: Piece, names: Names) -> Piece:
    """The answer of POST /containers/{id}/wait; its `Error` says in dockerd's words why a start failed.

    Raises: UnreadableAnswer.
    """
    fields = read_fields(document)
    failure = read_optional_fields(fields["Error"]) if "Error" in fields else None
    if failure is None or "Message" not in failure or not names.may_be_in(document):
        return document
    failure["Message"] = piece(names.plain_text(read_text(failure["Message"])))
    fields["Error"] = piece(failure)
    return write(fields)


def created_id(body: Piece) -> str:
    """The full id in the answer of a container, exec, network create or a commit. Raises: UnreadableAnswer."""
    return read(_CREATED, body).id


def container_create(
    body: bytes, sees: Visibility, *, warnings: Sequence[str] = (), names: Names = REAL_NAMES
) -> bytes:
    """POST /containers/create: the engine's warnings, then ours. Raises: UnreadableAnswer."""
    created = read(_CREATED, body)
    kept = frozenset({created.id})
    own = [scrub(warning, sees, kept=kept, names=names) for warning in created.warnings or ()]
    return write({"Id": created.id, "Warnings": [*own, *warnings]})


def container_update(
    body: bytes, sees: Visibility, *, warnings: Sequence[str] = (), names: Names = REAL_NAMES
) -> bytes:
    """POST /containers/{id}/update: the engine's warnings, then ours. Raises: UnreadableAnswer."""
    own = [scrub(warning, sees, names=names) for warning in read(_UPDATED, body).warnings or ()]
    return write({"Warnings": [*own, *warnings]})


def network_create(body: bytes, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """POST /networks/create. Raises: UnreadableAnswer.

    SECURITY: engines up to 24 warn about a second network of that name with the other's id.
    """
    created = read(_CREATED_NETWORK, body)
    warning = scrub(created.warning, sees, kept=frozenset({created.id}), names=names)
    return write({"Id": created.id, "Warning": warning})
