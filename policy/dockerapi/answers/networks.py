"""One network as a user may see it: on shared and predefined ones, only the user's own containers."""

from __future__ import annotations

import msgspec

from policy.dockerapi.answers.pieces import (
    Fields,
    Piece,
    piece,
    read,
    read_fields,
    read_optional_fields,
    read_text,
    write,
)
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility
from policy.ownership import is_reserved_label

_LABELS: msgspec.json.Decoder[dict[str, str] | None] = msgspec.json.Decoder(dict[str, str] | None)
# SECURITY: they count or name every container of the network: swarm peers, services, addresses in use (API 1.52).
_OPERATIONAL = ("Peers", "Services", "Status")


def network_inspect(body: Piece, sees: Visibility, *, names: Names = REAL_NAMES) -> bytes:
    """GET /networks/{id}. Raises: UnreadableAnswer: also when it is not one the user sees."""
    shown = shown_network(body, sees, names)
    if shown is None:
        raise UnreadableAnswer("the engine answered with another network")
    return bytes(shown)


def shown_network(raw: Piece, sees: Visibility, names: Names) -> Piece | None:
    """One network, or None if the user does not see it; the same bytes if nothing had to go."""
    fields = read_fields(raw)
    if "Id" not in fields or "Name" not in fields:
        raise UnreadableAnswer("the engine's answer holds a network without Id and Name")
    network_id = read_text(fields["Id"])
    if not sees.sees_network(network_id):
        return None
    changed = _without_others(fields, sees)
    if not sees.owns_network(network_id):
        hidden = [key for key in _OPERATIONAL if fields.pop(key, None) is not None]
        changed = changed or bool(hidden)
    if names.may_be_in(raw):
        _rename(fields, names)
        changed = True
    changed = hide_labels(fields, names) or changed
    return write(fields) if changed else raw


def hide_labels(fields: Fields, names: Names) -> bool:
    """Leave ds01's own out of `Labels`, but for admins; say whether there were any.

    compose takes a label of a network or volume that it did not write for a change, and warns at each `up`.
    """
    given = read(_LABELS, fields["Labels"]) if "Labels" in fields and not names.everything else None
    shown = {key: value for key, value in (given or {}).items() if not is_reserved_label(key)}
    if not given or len(shown) == len(given):
        return False
    fields["Labels"] = piece(shown)
    return True


def _without_others(fields: Fields, sees: Visibility) -> bool:
    """Take foreign containers out of `Containers`; say whether there were any."""
    containers = read_optional_fields(fields["Containers"]) if "Containers" in fields else None
    if not containers:
        return False
    own = {key: endpoint for key, endpoint in containers.items() if sees.sees_container(key)}
    fields["Containers"] = piece(own)
    return len(own) != len(containers)


def _rename(fields: Fields, names: Names) -> None:
    fields["Name"] = piece(names.plain(read_text(fields["Name"])))
    containers = read_optional_fields(fields["Containers"]) if "Containers" in fields else None
    if containers is not None:
        fields["Containers"] = piece({key: _renamed(raw, names) for key, raw in containers.items()})


def _renamed(raw: msgspec.Raw, names: Names) -> Fields:
    endpoint = read_fields(raw)
    if "Name" in endpoint:
        endpoint["Name"] = piece(names.plain(read_text(endpoint["Name"])))
    return endpoint
