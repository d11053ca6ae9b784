"""Sessions, builds and caches inside BuildKit are known by names alone; here each user's names begin with the user.

A name that begins so is nobody else's, whoever guesses or learns it: another's session, build or cache mount cannot even be
spelled. Nothing has to be remembered, so nothing is forgotten at a restart.
"""

from __future__ import annotations

import re

from policy.model import Uid

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", re.ASCII)


def prefix(uid: Uid) -> str:
    """What every name of this user begins with. INVARIANT: no prefix begins with another's."""
    return f"ds01-{uid}-"


def is_name(text: str) -> bool:
    """Whether a client may call a session or a build so: buildx writes 25 letters and digits."""
    return _NAME.fullmatch(text) is not None


def own(uid: Uid, name: str) -> str:
    """The name inside BuildKit. Applied twice it changes nothing more, so that the plugin can look again."""
    return name if name.startswith(prefix(uid)) else prefix(uid) + name


def shown(uid: Uid, name: str) -> str | None:
    """The name as its user knows it; None for one that is not this user's."""
    return name.removeprefix(prefix(uid)) if name.startswith(prefix(uid)) else None


def cache_namespace(uid: Uid) -> str:
    """What stands before the id of each `RUN --mount=type=cache`, and a slash after it."""
    return f"ds01-{uid}"
