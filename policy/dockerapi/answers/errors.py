"""What dockerd says when it refuses, without what it lets slip about others; and its words for what is not there.

Source: dockerd 20.10.24, each text tried; API 1.24-1.51.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, assert_never

import msgspec

from policy.dockerapi.answers.pieces import read, write
from policy.dockerapi.answers.visibility import REAL_NAMES
from policy.model import Kind
from policy.names import HIDDEN

if TYPE_CHECKING:
    from policy.dockerapi.answers.visibility import Names, Visibility


class _Error(msgspec.Struct, frozen=True):
    message: str


_ERROR = msgspec.json.Decoder(_Error)

# An id printed whole, or short as dockerd prints containers and images; "br-" + 12 digits is a network's bridge.
# The end of a UUID (a GPU's in an error of CDI) is no id.
_ID = re.compile(
    r"(?<![0-9A-Za-z])(?<![0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-)(?:[0-9a-f]{64}|[0-9a-f]{12})(?![0-9A-Za-z])"
)
# Engines from 28 name the containers that keep a network: name:"web" id:"0123456789ab".
_ENDPOINT = re.compile(r'name:"[^"]*" id:"([0-9a-f]*)"')

NO_SWARM_STATUS = 503
NO_SWARM_MESSAGE = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" '
    "to connect this node to swarm and try again."
)


def error(
    body: bytes, sees: Visibility, *, kept: frozenset[str] = frozenset(), names: Names = REAL_NAMES
) -> bytes:
    """The engine's `{"message": ...}` with every id and name that is not the user's replaced.

    Args:
        kept: References the user wrote in the request, and the ids ds01 resolved them to: no news to the user.
    Raises: UnreadableAnswer: the body is not the engine's form of an error.
    """
    return message(scrub(read(_ERROR, body).message, sees, kept=kept, names=names))


def message(text: str) -> bytes:
    """Write an error as dockerd does: `{"message": text}` and a line end."""
    return write({"message": text}) + b"\n"


def scrub(
    text: str, sees: Visibility, *, kept: frozenset[str] = frozenset(), names: Names = REAL_NAMES
) -> str:
    """Replace each id, full or short, that is neither in a `kept` text nor of something the user sees; names likewise.

    SECURITY: whether it is an image is not asked: everybody sees images, so every id would pass for one.
    The 409 for a taken name prints the other container's full id, "overlapping" the other network's.
    """

    def shown(match: re.Match[str]) -> str:
        return match[0] if _may_show(match[0], sees, kept) else HIDDEN

    def endpoint(match: re.Match[str]) -> str:
        return match[0] if sees.sees_container(match[1]) else f"container {HIDDEN}"

    return names.plain_text(_ID.sub(shown, _ENDPOINT.sub(endpoint, text)), kept)


def _may_show(object_id: str, sees: Visibility, kept: frozenset[str]) -> bool:
    return (
        any(object_id in known for known in kept)
        or sees.sees_container(object_id)
        or sees.sees_network(object_id)
        or sees.sees_volume(object_id)  # an anonymous volume is named by 64 digits
    )


def taken(kind: Kind, text: str, object_id: str) -> tuple[int, str]:
    """Status and message for a name that another object of the user's own has, in dockerd's words.

    Args:
        text: the name, as the client wrote it.
        object_id: the full id of the object that has it.
    """
    if kind is Kind.NETWORK:
        return 409, f"network with name {text} already exists"
    return 409, (
        f'Conflict. The container name "/{text}" is already in use by container "{object_id}". '
        "You have to remove (or rename) that container to be able to reuse that name."
    )


def not_found(kind: Kind, text: str) -> tuple[int, str]:
    """Status and message for what is absent *or another's*, in dockerd's words: nobody can tell which (I4).

    text: the reference as the client wrote it.
    """
    match kind:
        case Kind.CONTAINER:
            return 404, f"No such container: {text}"
        case Kind.EXEC:
            return 404, f"No such exec instance: {text}"
        case Kind.VOLUME:
            return 404, f"get {text}: no such volume"
        case Kind.NETWORK:
            return 404, f"network {text} not found"
        case Kind.IMAGE:
            return 404, f"No such image: {_familiar(text)}"
        case _:
            assert_never(kind)


def _familiar(reference: str) -> str:
    """An image reference as dockerd repeats it: short on Docker Hub, always with tag, digest or sha256."""
    if re.fullmatch("[0-9a-f]{64}", reference):
        return f"sha256:{reference}"
    if re.fullmatch("sha256:[0-9a-f]{64}", reference):
        return reference
    short = reference.removeprefix("docker.io/").removeprefix("library/")
    tagged = "@" in short or ":" in short.rpartition("/")[2]
    return short if tagged else f"{short}:latest"
