"""Answers about one container or exec, and the answers of creating one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from policy.dockerapi.answers.errors import scrub
from policy.dockerapi.answers.mounts import Sources, shown_binds, shown_mounts, shown_networks
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


class _CreatedNetwork(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    warning: str = ""


class _Exec(msgspec.Struct, frozen=True):
    container_id: str = msgspec.field(name="ContainerID")


_CREATED = msgspec.json.Decoder(_Created)
_CREATED_NETWORK = msgspec.json.Decoder(_CreatedNetwork)
_EXEC = msgspec.json.Decoder(_Exec)


def container_inspect(
    body: bytes, sees: Visibility, *, sources: Sources | None = None, names: Names = REAL_NAMES
) -> bytes:
    """GET /containers/{id}/json, of an own container.

    Args:
        sources: Real bind source to the source the user had written, as the create was rewritten.
    Raises: UnreadableAnswer: also when it is not a container the user sees.
    """
    fields = read_fields(body)
    if "Id" not in fields or not sees.sees_container(read_text(fields["Id"])):
        raise UnreadableAnswer("the engine answered with another container")
    if not sources and names is REAL_NAMES:
        return body
    if "Name" in fields:
        fields["Name"] = piece("/" + names.container(read_text(fields["Name"]).removeprefix("/")))
    if "Mounts" in fields:
        fields["Mounts"] = shown_mounts(fields["Mounts"], names, sources or {})
    if "HostConfig" in fields:
        fields["HostConfig"] = _shown_host_config(fields["HostConfig"], names, sources or {})
    if "NetworkSettings" in fields and names is not REAL_NAMES:
        fields["NetworkSettings"] = shown_networks(fields["NetworkSettings"], names)
    return write(fields)


def _shown_host_config(raw: msgspec.Raw, names: Names, sources: Sources) -> msgspec.Raw:
    config = read_optional_fields(raw)
    if config is None:
        return raw
    if "Binds" in config:
        config["Binds"] = shown_binds(config["Binds"], names, sources)
    if "Mounts" in config:
        config["Mounts"] = shown_mounts(config["Mounts"], names, sources)
    return piece(config)


def exec_inspect(body: bytes, sees: Visibility) -> bytes:
    """GET /exec/{id}/json. Raises: UnreadableAnswer: also when it runs in a container the user does not see."""
    if not sees.sees_container(read(_EXEC, body).container_id):
        raise UnreadableAnswer("the engine answered with another exec")
    return body


def created_id(body: Piece) -> str:
    """The full id in the answer of a container, exec, network create or a commit. Raises: UnreadableAnswer."""
    return read(_CREATED, body).id


def container_create(body: bytes, sees: Visibility, *, warnings: Sequence[str] = ()) -> bytes:
    """POST /containers/create: the engine's warnings, then ours. Raises: UnreadableAnswer."""
    created = read(_CREATED, body)
    own = [scrub(warning, sees, kept=frozenset({created.id})) for warning in created.warnings or ()]
    return write({"Id": created.id, "Warnings": [*own, *warnings]})


def network_create(body: bytes, sees: Visibility) -> bytes:
    """POST /networks/create. Raises: UnreadableAnswer.

    SECURITY: engines up to 24 warn about a second network of that name with the other's id.
    """
    created = read(_CREATED_NETWORK, body)
    return write({"Id": created.id, "Warning": scrub(created.warning, sees, kept=frozenset({created.id}))})
