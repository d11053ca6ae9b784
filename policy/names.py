"""Names per user: dockerd has one space of names for all, so a user's `web` is `u1001.web` inside dockerd.

Owns the two forms and the way between them. A name of the second form is never an id or a prefix of one (`u` is no hex
digit) nor a word of the Engine API (none has a dot). What was named before, or by dockerd itself, has only its real name.

INVARIANT: `plain(uid, real(uid, name)) == name` for every name, and two users' names never give the same real name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from policy import image_names
from policy.model import Uid

if TYPE_CHECKING:
    from collections.abc import Iterable

    import msgspec

    from policy.stand_ins import StandIns

HIDDEN = "(not yours)"
MASKED = "***"
ROOT = Uid(0)

_REAL = re.compile(r"u(0|[1-9][0-9]*)\..+", re.DOTALL)
# Logins that stand before a dot without being taken for part of a name, or for a uid.
_LOGIN = re.compile(r"(?!u[0-9]+\Z)[A-Za-z_][A-Za-z0-9_-]{0,63}", re.ASCII)
# In a message: not within a longer word, and with all that may follow in a name.
_IN_TEXT = re.compile(
    rf"(?<![0-9A-Za-z_./-]){re.escape(image_names.HOST)}/u[0-9]+/[0-9A-Za-z_./@-]*(?::[0-9A-Za-z_][0-9A-Za-z_.@-]*)*"
    r"|(?<![0-9A-Za-z_.-])u(?:0|[1-9][0-9]*)\.[0-9A-Za-z_.-]*"
)


def real(uid: Uid, name: str) -> str:
    """The name inside dockerd of what `uid` calls `name`."""
    return f"u{uid}.{name}"


def plain(uid: Uid | None, real_name: str) -> str:
    """What the owner `uid` calls the object that is `real_name` inside dockerd; unmanaged ones have one name."""
    return real_name if uid is None else real_name.removeprefix(f"u{uid}.") or real_name


def own(listed: Iterable[str] | None) -> str:
    """A container's own name among those that the engine lists it by, without the slash; "" if it has none.

    A container is also listed under its link aliases (`/parent/alias`); its own name has one slash.
    """
    return next((name[1:] for name in listed or () if name.count("/") == 1), "")


def owner(real_name: str) -> Uid | None:
    """Whose namespace a name inside dockerd is in; None if it is nobody's, as before names were per user."""
    found = _REAL.fullmatch(real_name)
    return Uid(int(found[1])) if found else None


def of_another(uid: Uid, login: str, real_name: str) -> tuple[str, ...]:
    """What others may call a container that `uid` shares with them, best first: `alice.web`, `u1001.web`.

    The second is never ambiguous: the first dot ends the uid, and one's plain names are one's own. A login that would make
    the first so is left out.
    """
    name = plain(uid, real_name)
    numbered = real(uid, name)
    return (f"{login}.{name}", numbered) if _LOGIN.fullmatch(login) else (numbered,)


class ViewerNames:
    """Names as one viewer knows them: the own ones plain, others' as they are inside dockerd."""

    __slots__ = ("_images", "_marks", "_prefix", "_shared", "_stand_ins", "everything")

    def __init__(
        self,
        uid: Uid,
        *,
        everything: bool = False,
        networks: frozenset[str] = frozenset(),
        stand_ins: StandIns | None = None,
    ) -> None:
        """One viewer.

        Args:
            everything: an admin, who may read others' names.
            networks: root's networks that policy shares with the viewer, by their plain names.
            stand_ins: what dockerd knows host paths by; None: by themselves.
        """
        self.everything = everything
        self._shared = {real(ROOT, name): name for name in networks}
        self._prefix = f"u{uid}."
        self._images = image_names.prefix(uid)
        self._stand_ins = stand_ins
        roots = () if stand_ins is None else (stand_ins.root,)
        self._marks = tuple(text.encode() for text in (self._prefix, self._images, *self._shared, *roots))

    def plain(self, real_name: str, /) -> str:
        return self._shared.get(real_name) or real_name.removeprefix(self._prefix) or real_name

    def may_be_in(self, piece: bytes | msgspec.Raw, /) -> bool:
        """Whether JSON text may hold a name to be shown in another form; quick."""
        text = bytes(piece)
        return any(mark in text for mark in self._marks)

    def image(self, reference: str, /) -> str:
        """An image's name; admins go by those inside dockerd."""
        return reference if self.everything else reference.removeprefix(self._images) or reference

    def plain_source(self, source: str, /) -> str:
        """The host path behind a bind source of dockerd's."""
        return source if self._stand_ins is None else self._stand_ins.source(source)

    def plain_text(self, text: str, kept: frozenset[str] = frozenset(), /) -> str:
        """A message of dockerd's with own names plain and, but for admins, others' taken out.

        kept: what the viewer wrote; a name in there is no news.
        """
        if self._stand_ins is not None:
            text = self._stand_ins.plain_text(text)

        def shown(match: re.Match[str]) -> str:
            name = match[0]
            if name.startswith(self._images):
                return self.image(name)
            if name.startswith(self._prefix):
                return name[len(self._prefix) :]
            if name in self._shared:
                return self._shared[name]
            return name if self.everything or any(name in known for known in kept) else HIDDEN

        return _IN_TEXT.sub(shown, text)
