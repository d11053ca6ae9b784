"""The pull that ds01 makes for a build: the same call, with the credentials that the build brought."""

from __future__ import annotations

import base64
import binascii

import msgspec

from policy.dockerapi.model import Operation, Request
from policy.rules.registry import HUB, registry_of

_HUB_KEY = "https://index.docker.io/v1/"  # what the docker CLI calls Docker Hub in its credentials
_Auths = dict[str, dict[str, str]]


def pull_request(build: Request, name: str) -> Request:
    """The IMAGE_CREATE that fetches `name`, one tag or digest, for this build."""
    repository, at, tag = name.partition("@")
    if not at:
        repository, colon, tag = name.rpartition(":")
        if not colon or "/" in tag:
            repository, tag = name, "latest"
    query: dict[str, tuple[str, ...]] = {"fromImage": (repository,), "tag": (tag,)}
    if build.query.get("platform"):
        query["platform"] = build.query["platform"]
    credentials = _credentials(build.headers.get("x-registry-config", ""), registry_of(name))
    headers = {"x-registry-auth": credentials} if credentials else {}
    return Request(operation=Operation.IMAGE_CREATE, version=build.version, query=query, headers=headers)


def _credentials(config: str, host: str) -> str:
    """The one registry's entry of X-Registry-Config, as X-Registry-Auth; "" if there is none or it is unreadable."""
    try:
        auths = msgspec.json.decode(base64.urlsafe_b64decode(config + "=" * (-len(config) % 4)), type=_Auths)
    except (binascii.Error, msgspec.DecodeError, ValueError):
        return ""
    entry = auths.get(_HUB_KEY if host == HUB else host)
    return base64.urlsafe_b64encode(msgspec.json.encode(entry)).decode() if entry else ""
