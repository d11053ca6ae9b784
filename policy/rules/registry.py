"""Where images come from and go to: the registries policy lists, and never an address the engine fetches for a user."""

from __future__ import annotations

import re
from collections.abc import Iterable

from policy import image_names
from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_text, shown
from policy.grants import Grants
from policy.model import Reason

RULE_ID = "registry"
OPERATIONS = frozenset(
    {
        Operation.IMAGE_CREATE,
        Operation.IMAGE_PUSH,
        Operation.IMAGE_SEARCH,
        Operation.DISTRIBUTION_INSPECT,
        Operation.SYSTEM_AUTH,
    }
)
NEEDS_FACTS = False

_HOST = re.compile(r"([a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::[0-9]{1,5})?", re.ASCII)
_IPV4 = re.compile(r"(?:(?:0|[1-9][0-9]{0,2})\.){3}(?:0|[1-9][0-9]{0,2})", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*", re.ASCII)
HUB = "docker.io"
HUB_NAMES = frozenset({"", HUB, "index.docker.io", "registry-1.docker.io", "registry.hub.docker.com"})


def decide(ask: Ask) -> Iterable[Finding]:
    """Find the registry that the call would talk to, and look it up."""
    query = ask.request.query
    match ask.request.operation:
        case Operation.SYSTEM_AUTH:
            address = as_text(ask.body.get("serveraddress")).partition("://")
            host = (address[2] or address[0]).partition("/")[0]
            yield from _listed(ask, "serveraddress", host)
        case Operation.IMAGE_SEARCH:
            yield from _listed(ask, "term", registry_of((query.get("term") or ("",))[0]))
        case Operation.IMAGE_CREATE if source := (query.get("fromSrc") or ("",))[0]:
            if source != "-":
                # SECURITY: the daemon itself would fetch the address, from inside the host's network.
                yield _refused("fromSrc", source, "-, an upload", "download it and use docker import FILE")
        case Operation.IMAGE_CREATE:
            yield from _listed(ask, "fromImage", registry_of((query.get("fromImage") or ("",))[0]))
        case _:
            yield from _listed(ask, "image", registry_of(ask.request.params.get("image", "")))


def registry_of(image: str) -> str:
    """The host an image name points to, as docker reads it: the first part, if it has a dot or a port."""
    first, slash, _ = image.partition("/")
    named = slash and ("." in first or ":" in first or first == "localhost" or first != first.lower())
    return first if named else HUB


def _listed(ask: Ask, field: str, host: str) -> Iterable[Finding]:
    reason = refusal(ask.grants, field, host)
    if reason is not None:
        yield reason


def refusal(grants: Grants, field: str, host: str) -> Reason | None:
    """Why the engine may not talk to this registry for the actor; None if it may."""
    if is_listed(host, grants.registries):
        return None
    name = HUB if host in HUB_NAMES else host.lower()
    if name.partition(":")[0] == image_names.HOST:
        return _refused(
            field, name, "registries", "docker tag the image with the name of a registry, and push that"
        )
    permitted = ", ".join(sorted(grants.registries)) or "none"
    return _refused(field, name, permitted, "ask the admin to list the registry")


def is_listed(host: str, listed: frozenset[str]) -> bool:
    """Whether policy lists the registry `host`, by name or as any but this machine itself."""
    name = HUB if host in HUB_NAMES else host.lower()
    if name.partition(":")[0] == image_names.HOST:
        return False  # no registry: local names of users
    return name in listed or ("*" in listed and _is_elsewhere(name))


def _is_elsewhere(name: str) -> bool:
    """Whether a name is a registry and not this machine itself, which "*" does not cover: dockerd trusts it without TLS.

    SECURITY: a plain host and port, or refused: `user@127.0.0.1`, `[::]` and `0x7f.1` say "here" in other words.
    """
    found = _HOST.fullmatch(name)
    if found is None:
        return False
    host = found[1]
    local = host == "localhost" or host.endswith((".localhost", ".localdomain")) or host.startswith("127.")
    dotted = _IPV4.fullmatch(host) is not None and not host.startswith("0.")
    numeric = _NUMBER.fullmatch(host.rpartition(".")[2]) is not None
    return not local and (dotted or not numeric)


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
