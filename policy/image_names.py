"""Names of images: one spelling for each, their parts, and the local ones, which each user has for themselves (ADR 0019).

What uid 1001 calls `app:1` is `ds01.invalid/u1001/app:1` inside dockerd. A local name has one part, no registry and no
account; nobody can push it. Names with a slash are one space for all.

INVARIANT: `plain(uid, real(uid, name)) == name` for every local name in its one spelling, and two users' names never give
the same real name.
"""

from __future__ import annotations

import re

from policy.model import Uid

# SOURCE: RFC 6761, section 6.4: names below .invalid never resolve.
HOST = "ds01.invalid"

_DOMAINS = ("docker.io/", "index.docker.io/")
# SOURCE: distribution/reference, regexp.go: path component, tag, digest.
_LOCAL = re.compile(
    r"(?P<name>[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?"
    r"(?:@[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,})?",
    re.ASCII,
)
_NO_NAME = re.compile(r"[0-9a-f]{64}|sha256", re.ASCII)  # ids to dockerd, or refused by it
_REAL = re.compile(rf"{re.escape(HOST)}/u(?P<uid>0|[1-9][0-9]{{0,9}})/(?P<name>.+)", re.DOTALL)


def short(text: str) -> str:
    """A reference without Docker Hub's own beginnings, as the engine lists it, but for the tag."""
    for domain in _DOMAINS:
        if text.startswith(domain):
            text = text.removeprefix(domain)
            break
    name = text.removeprefix("library/")
    return text if "/" in name else name  # `library/a/b` is another repository than `a/b`


def familiar(text: str) -> str:
    """A reference as the engine lists it: `busybox`, `library/busybox` and `docker.io/library/busybox` are all `busybox:latest`."""
    text = short(text)
    name = text.rpartition("/")[2]
    return text if ":" in name or "@" in name else f"{text}:latest"


def repository(reference: str) -> str:
    """The name without tag and digest."""
    name = reference.partition("@")[0]
    return name.rpartition(":")[0] if ":" in name.rpartition("/")[2] else name


def is_local(reference: str) -> bool:
    """Whether a reference, as a user writes it, is a name of one part: of Docker Hub's own images, or the user's own."""
    found = _LOCAL.fullmatch(short(reference))
    return found is not None and _NO_NAME.fullmatch(found["name"]) is None


def real(uid: Uid, reference: str) -> str:
    """The name inside dockerd of what `uid` writes as `reference`; others than local names have one form."""
    return f"{prefix(uid)}{short(reference)}" if is_local(reference) else reference


def prefix(uid: Uid) -> str:
    """What every real name of this user's begins with. INVARIANT: no prefix begins with another's."""
    return f"{HOST}/u{uid}/"


def plain(uid: Uid, real_name: str) -> str:
    """What `uid` calls what is `real_name` inside dockerd; all but the own local names have one form."""
    return real_name.removeprefix(prefix(uid)) or real_name


def owner(real_name: str) -> Uid | None:
    """Whose local name this is; None for all others."""
    found = _REAL.fullmatch(real_name)
    return Uid(int(found["uid"])) if found else None


def is_reserved(text: str) -> bool:
    """Whether a name that a client writes would be in ds01's space, or be listed by dockerd as if it were.

    SECURITY: dockerd lists `docker.io/ds01.invalid/u1/a` as `ds01.invalid/u1/a`, so no part of a name may be the host.
    """
    return any(part.partition(":")[0].casefold() == HOST for part in text.split("/"))


def is_disguised(text: str) -> bool:
    """Whether dockerd lists a name of Docker Hub's as if it were another registry's: `docker.io/ghcr.io/a` as `ghcr.io/a`."""
    first, slash, _ = short(text).partition("/")
    return short(text) != text and bool(slash) and not {".", ":"}.isdisjoint(first)
