"""The questions a filter asks about the user it works for, and the names that user knows things by.

Owns the two seams, `Visibility` and `Names`; leaves the answers to whoever keeps the index of owners.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    import msgspec


class UnreadableAnswer(Exception):  # noqa: N818  names what happened, as MalformedRequest does for the other side
    """The engine's answer has not the expected shape, so nobody can say whose it is: never pass it on, say 502."""


class Visibility(Protocol):
    """What one user may see. Everything not known for certain is False.

    Ids stay answerable for a while after their object is gone, so that its last events still find their reader.
    """

    def sees_container(self, container_id: str, /) -> bool:
        """Whether a container is the user's; the id is full, or the 12-digit short form that error texts print."""

    def shown_as(self, container_id: str, /) -> str | None:
        """What the user calls another's container that is shared with them; None if it is not shared. The id is full."""

    def sees_volume(self, real_name: str, /) -> bool:
        """Whether a volume, by its name inside dockerd, is the user's or shared."""

    def sees_network(self, network_id: str, /) -> bool:
        """Whether a network is the user's, shared or predefined; the id is full, or short as in error texts."""

    def network_name(self, network_id: str, /) -> str | None:
        """The name inside dockerd of a network the user sees, by its full id; None if there is none such now."""

    def owns_network(self, network_id: str, /) -> bool:
        """Whether a network is the user's own: then its operational details are shown too."""

    def sees_image(self, image_id: str, references: Sequence[str], /) -> bool:
        """Whether an image may be read, judged by its id ("" if unknown) and the tags it is known to have, if any."""

    def sees_reference(self, reference: str, /) -> bool:
        """Whether a tag or digest may be shown: private names can stand on content that everybody may read."""


class Names(Protocol):
    """The names a user knows objects by, from those inside dockerd; `policy.names.ViewerNames` has the rule."""

    @property
    def everything(self) -> bool:
        """Whether the user may read what ds01 itself wrote: others' names, the owner's labels."""

    def plain(self, real_name: str, /) -> str: ...

    def plain_source(self, source: str, /) -> str:
        """The host path that a bind source of dockerd's stands for."""

    def image(self, reference: str, /) -> str: ...

    def may_be_in(self, piece: bytes | msgspec.Raw, /) -> bool:
        """Whether JSON may hold a name that shows differently; False spares taking it apart."""

    def plain_text(self, text: str, kept: frozenset[str] = frozenset(), /) -> str:
        """A message as the user may read it; `kept` is what the user wrote."""


class RealNames:
    """Names inside dockerd are the names users know."""

    everything = True

    def plain(self, real_name: str, /) -> str:
        return real_name

    def plain_source(self, source: str, /) -> str:
        return source

    def image(self, reference: str, /) -> str:
        return reference

    def may_be_in(self, _: bytes | msgspec.Raw, /) -> bool:
        return False

    def plain_text(self, text: str, _: frozenset[str] = frozenset(), /) -> str:
        return text


REAL_NAMES = RealNames()
