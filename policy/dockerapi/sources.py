"""Bind sources under their real names: a path that leads elsewhere is judged, and forwarded, as what it leads to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from policy.dockerapi.model import Request
from policy.model import Json


def with_sources(request: Request, real: Mapping[str, str]) -> Request:
    """The same create with every host path of `HostConfig.Binds` and `HostConfig.Mounts` that `real` names replaced."""
    host = (request.body or {}).get("HostConfig")
    if not isinstance(host, dict):
        return request
    shown: dict[str, Json] = dict(host)
    binds, mounts = host.get("Binds"), host.get("Mounts")
    if isinstance(binds, list):
        shown["Binds"] = [_bind(item, real) for item in binds]
    if isinstance(mounts, list):
        shown["Mounts"] = [_mount(item, real) for item in mounts]
    return replace(request, body={**(request.body or {}), "HostConfig": shown})


def _bind(item: Json, real: Mapping[str, str]) -> Json:
    if not isinstance(item, str):
        return item
    source, colon, rest = item.partition(":")
    return f"{real.get(source, source)}{colon}{rest}"


def _mount(item: Json, real: Mapping[str, str]) -> Json:
    if not isinstance(item, dict) or item.get("Type") != "bind":
        return item
    source = item.get("Source")
    return {**item, "Source": real.get(source, source)} if isinstance(source, str) else item
