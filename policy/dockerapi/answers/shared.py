"""Another's container as it is shown to whom it is shared with: built anew from the few fields that tell how it does.

What is not listed here is not shown, so that what a newer engine adds stays with the owner: command lines, environment,
labels, mounts, networks and addresses may hold secrets or name what is the owner's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policy.dockerapi.answers.pieces import (
    NULL,
    Fields,
    Piece,
    piece,
    read_fields,
    read_optional_fields,
    read_text,
    read_texts,
    write,
)
from policy.image_names import familiar
from policy.names import HIDDEN, MASKED

if TYPE_CHECKING:
    import msgspec

    from policy.dockerapi.answers.visibility import Visibility

_ID = re.compile(r"(sha256:)?[0-9a-f]{12}", re.ASCII)
_LISTED = ("Id", "Created", "Ports", "State", "Status", "SizeRw", "SizeRootFs")
_INSPECTED = ("Id", "Created", "RestartCount", "Driver", "Platform", "SizeRw", "SizeRootFs")
_STATE = (
    "Status", "Running", "Paused", "Restarting", "OOMKilled", "Dead", "ExitCode", "StartedAt", "FinishedAt",
)  # fmt: skip
_HEALTH = ("Status", "FailingStreak")
_CONFIG = (
    "Hostname",
    "Tty",
    "OpenStdin",
    "StdinOnce",
    "AttachStdin",
    "AttachStdout",
    "AttachStderr",
    "StopSignal",
)
_HOST_CONFIG = ("Memory", "MemorySwap", "NanoCpus", "PidsLimit", "ShmSize", "RestartPolicy", "AutoRemove")
_MESSAGE = ("status", "id", "Type", "Action", "scope", "time", "timeNano")
_WITH_WORDS = frozenset({"health_status: healthy", "health_status: unhealthy"})
_ATTRIBUTES = ("exitCode", "signal", "execDuration")


def list_entry(raw: Piece, name: str, sees: Visibility) -> bytes:
    """One entry of GET /containers/json. Raises: UnreadableAnswer.

    Args: name: what the viewer calls it.
    """
    fields = read_fields(raw)
    return write(
        {
            **_kept(fields, _LISTED),
            "Names": [f"/{name}"],
            "Image": _image_name(fields, "Image", sees),
            "ImageID": _image_id(fields, "ImageID", sees),
            "Command": "",
            "Labels": {},
            "HostConfig": {},
            "NetworkSettings": {"Networks": {}},
            "Mounts": [],
        }
    )


def container_inspect(body: Piece, name: str, sees: Visibility) -> bytes:
    """GET /containers/{id}/json. The names of variables stay, their values do not. Raises: UnreadableAnswer."""
    fields = read_fields(body)
    config = _object(fields, "Config")
    networks = _object(fields, "NetworkSettings")
    state = _object(fields, "State")
    health = {"Health": _kept(_object(state, "Health"), _HEALTH)} if "Health" in state else {}
    return write(
        {
            **_kept(fields, _INSPECTED),
            "Name": f"/{name}",
            "Path": "",
            "Args": [],
            "State": {**_kept(state, _STATE), **health},
            "Image": _image_id(fields, "Image", sees),
            "Config": {
                **_kept(config, _CONFIG),
                "Image": _image_name(config, "Image", sees),
                "Env": _masked(config.get("Env", NULL)),
                "Cmd": None,
                "Entrypoint": None,
                "Labels": {},
            },
            "HostConfig": _kept(_object(fields, "HostConfig"), _HOST_CONFIG),
            "NetworkSettings": {**_kept(networks, ("Ports",)), "Networks": {}},
            "Mounts": [],
        }
    )


def event(document: Piece, name: str, sees: Visibility) -> bytes:
    """One message about the container. What an exec runs stands behind a colon. Raises: UnreadableAnswer."""
    fields = read_fields(document)
    actor = _object(fields, "Actor")
    attributes = _object(actor, "Attributes")
    shown = _kept(fields, _MESSAGE)
    for key in {"status", "Action"} & fields.keys():
        shown[key] = _action(read_text(fields[key]))
    image = _image_name(attributes, "image", sees)
    if "from" in fields:
        shown["from"] = image
    told = {**_kept(attributes, _ATTRIBUTES), "image": image, "name": name}
    return write({**shown, "Actor": {**_kept(actor, ("ID",)), "Attributes": told}})


def _action(text: str) -> str:
    """Without what stands behind a colon, unless that is one of dockerd's words."""
    return text if text in _WITH_WORDS else text.partition(":")[0]


def stats(document: Piece, name: str) -> bytes:
    """One document of GET /containers/{id}/stats: numbers, and the name. Raises: UnreadableAnswer."""
    fields = read_fields(document)
    if "name" in fields:
        fields["name"] = piece(f"/{name}")
    return write(fields)


def wait(document: Piece) -> bytes:
    """The answer of POST /containers/{id}/wait. Why a start failed names paths. Raises: UnreadableAnswer."""
    fields = read_fields(document)
    failed = read_optional_fields(fields.get("Error", NULL)) is not None
    return write({**_kept(fields, ("StatusCode",)), "Error": {"Message": HIDDEN} if failed else None})


def _kept(fields: Fields, keys: tuple[str, ...]) -> dict[str, object]:
    return {key: fields[key] for key in keys if key in fields}


def _object(fields: Fields, key: str) -> Fields:
    """The object at `key`; empty if there is none."""
    return read_optional_fields(fields.get(key, NULL)) or {}


def _image_name(fields: Fields, key: str, sees: Visibility) -> str:
    """What the container was made of, unless the name is another's private one, or an id whose names have gone.

    SECURITY: the record of images is asked about the name as it stands, and about an id without any name: a name that is
    no tag of the image would count as nobody's, and with that the image as everybody's.
    """
    name = read_text(fields[key]) if key in fields else ""
    return name if name and not _ID.match(name) and sees.sees_reference(familiar(name)) else HIDDEN


def _image_id(fields: Fields, key: str, sees: Visibility) -> str:
    image_id = read_text(fields[key]) if key in fields else ""
    return image_id if sees.sees_image(image_id, []) else ""


def _masked(raw: msgspec.Raw) -> list[str]:
    return [f"{variable.partition('=')[0]}={MASKED}" for variable in read_texts(raw) or ()]
