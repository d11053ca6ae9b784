"""Names of containers, networks and volumes: such as dockerd takes, none like an id, and each in its user's own namespace.
Of images: none like an id, and those of one part in their user's own namespace (`policy.image_names`).

The proxy is asked about the name as the user wrote it, the plugin about the one inside dockerd (`policy.names`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from policy import image_names
from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_list, as_object, as_strings, as_text, shown
from policy.model import Kind, Reason
from policy.names import owner

RULE_ID = "names"
OPERATIONS = frozenset(
    {
        Operation.CONTAINER_CREATE,
        Operation.CONTAINER_RENAME,
        Operation.CONTAINER_DELETE,
        Operation.NETWORK_CREATE,
        Operation.VOLUME_CREATE,
        Operation.IMAGE_TAG,
        Operation.IMAGE_COMMIT,
        Operation.IMAGE_BUILD,
        Operation.IMAGE_CREATE,
    }
)
NEEDS_FACTS = False

_NOT_AN_ID = "names that are not 12 or 64 hex digits"
_LIKE_AN_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}", re.ASCII)
_PLAIN_SPELLING = "names without another registry behind docker.io/"
_ORDINARY = f"names without {image_names.HOST} or another registry behind docker.io/"
_HUB = re.compile(r"(?:(?:index\.)?docker\.io/)?(?:library/)?", re.ASCII)
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)


def decide(ask: Ask) -> Iterable[Finding]:
    """Judge every name that the call gives, and refuse the removal of link names, which may be another's."""
    if (ask.request.query.get("link") or ("",))[0] not in {"", "0", "false", "False"}:
        yield _refused("link", "true", "false", "remove the container itself")
    judge = _inside_dockerd if ask.facts is None else _as_written
    for kind, field, name in _given(ask):
        yield from judge(ask, kind, field, name)
    for field in ("repo", "t"):
        for name in ask.request.query.get(field, ()):
            yield from image_findings(ask, field, name)
    for name in filter(image_names.is_disguised, ask.request.query.get("fromImage", ())):
        yield _refused("fromImage", name, _PLAIN_SPELLING, "write the registry's own name")
    if ask.request.query.get("tag") and _is_tagged((ask.request.query.get("repo") or ("",))[0]):
        # SECURITY: dockerd takes the key and leaves the tag in the name out; ds01 would look at another name.
        yield _refused(
            "repo", ask.request.query["repo"][0], "a name without a tag beside the key tag", "leave one out"
        )


def image_findings(ask: Ask, field: str, name: str) -> Iterable[Finding]:
    """What is wrong with a name that the call would write."""
    if looks_like_an_id(name):
        yield _refused(field, name, _NOT_AN_ID, "choose another name")
    if ask.grants.admin:
        return
    if ask.facts is None:
        # SECURITY: the plugin's look at what the proxy wrote: a name of one part, or one in another's namespace, it did not.
        if image_names.is_local(name) or (
            image_names.is_reserved(name) and image_names.owner(name) != ask.actor.uid
        ):
            yield _refused(
                field, name, "the form that ds01 writes", "use your ds01 socket and not the engine's own"
            )
    elif image_names.is_reserved(name) or image_names.is_disguised(name):
        yield _refused(field, name, _ORDINARY, "choose another name")


def _is_tagged(repository: str) -> bool:
    return "@" in repository or ":" in repository.rpartition("/")[2]


def looks_like_an_id(image: str) -> bool:
    """Whether an image's name, with or without the hub's own beginnings, a tag or a digest, could be taken for an id."""
    repository = _HUB.sub("", image, count=1).partition("@")[0].partition(":")[0]
    return _LIKE_AN_ID.fullmatch(repository) is not None


def _given(ask: Ask) -> Iterator[tuple[Kind, str, str]]:
    """Kind, field and text of each name; volumes that a create would make included."""
    match ask.request.operation:
        case Operation.CONTAINER_CREATE | Operation.CONTAINER_RENAME:
            for name in ask.request.query.get("name", ()):
                yield Kind.CONTAINER, "name", name.removeprefix("/")
            for name in _volumes(ask):
                yield Kind.VOLUME, "HostConfig", name
        case Operation.NETWORK_CREATE | Operation.VOLUME_CREATE:
            kind = Kind.NETWORK if ask.request.operation is Operation.NETWORK_CREATE else Kind.VOLUME
            if name := as_text(ask.body.get("Name")):
                yield kind, "Name", name


def _volumes(ask: Ask) -> Iterator[str]:
    for bind in as_strings(ask.host_config.get("Binds")):
        source, colon, _ = bind.partition(":")
        if colon and source and not source.startswith("/"):
            yield source
    for mount in map(as_object, as_list(ask.host_config.get("Mounts"))):
        if mount.get("Type") == "volume" and mount.get("Source"):
            yield as_text(mount["Source"])


def _as_written(_: Ask, kind: Kind, field: str, name: str) -> Iterable[Finding]:
    """SECURITY: a name like an id would answer for it. dockerd itself does not see the name's own beginning and length."""
    if kind is not Kind.VOLUME and _LIKE_AN_ID.fullmatch(name):
        yield _refused(field, name, _NOT_AN_ID, "choose another name")
    if not (name.strip() if kind is Kind.NETWORK else _NAME.fullmatch(name)):
        yield _refused(field, name, "names of the form [a-zA-Z0-9][a-zA-Z0-9_.-]+", "choose another name")


def _inside_dockerd(ask: Ask, kind: Kind, field: str, name: str) -> Iterable[Finding]:
    """SECURITY: nobody but an admin makes a name in another's namespace, or in none.

    A volume from before names were per user, or without a name of its own (64 digits), is in no namespace.
    """
    holder = owner(name)
    if ask.grants.admin or holder == ask.actor.uid or (kind is Kind.VOLUME and holder is None):
        return
    yield _refused(field, name, "the form that ds01 writes", "use your ds01 socket and not the engine's own")


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
