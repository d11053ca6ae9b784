"""Image references in one spelling, and their parts."""

from __future__ import annotations

_DOMAINS = ("docker.io/", "index.docker.io/")


def familiar(text: str) -> str:
    """A reference as the engine lists it: `busybox`, `library/busybox` and `docker.io/library/busybox` are all `busybox:latest`."""
    for domain in _DOMAINS:
        if text.startswith(domain):
            text = text.removeprefix(domain)
            break
    text = text.removeprefix("library/")
    name = text.rpartition("/")[2]
    return text if ":" in name or "@" in name else f"{text}:latest"


def repository(reference: str) -> str:
    """The name without tag and digest."""
    name = reference.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name
