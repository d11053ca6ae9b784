"""Tags while they are written: a name is one user's from before dockerd hears of it, whatever comes of it.

What a request may write the rules decided; between that and the write others write too, so here it is looked at again.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from policy.model import Actor, Uid
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ImageOwners, normal_tag, repository
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Transaction

RULE = "ownership"
EVERY_TAG = ":*"  # a pull without a tag


class Writing:
    """Tags that one request is about to write."""

    def __init__(self, owners: ImageOwners, facts: FactSource, tags: tuple[str, ...]) -> None:
        self._owners = owners
        self._facts = facts
        self.tags = tags
        self.fresh: list[str] = []  # owned only since this request

    async def undo(self) -> None:
        """The engine refused: what it did not write is free again."""
        for tag in self.fresh:
            if await self._facts.find_image(tag) is None:
                self._owners.set_tag(tag, None)


class Tags:
    """Every tag in flight. INVARIANT: one tag is written by one user at a time (any number may pull it)."""

    def __init__(self, *, owners: ImageOwners, facts: FactSource) -> None:
        self._owners = owners
        self._facts = facts
        self._busy: dict[str, tuple[Uid | None, int]] = {}

    @asynccontextmanager
    async def writing(
        self, transaction: Transaction, *names: str, pulling: bool = False
    ) -> AsyncIterator[Writing | Taken]:
        """Hold `names` for a block, as `begin` does."""
        writing = await self.begin(
            transaction.actor, names, everything=transaction.everything, pulling=pulling
        )
        try:
            yield writing
        finally:
            if isinstance(writing, Writing):
                self.end(writing)

    async def begin(
        self, actor: Actor, names: Iterable[str], *, everything: bool, pulling: bool = False
    ) -> Writing | Taken:
        """Hold `names` while dockerd writes them, until `end`; a Refusal when one is, meanwhile, another's.

        SECURITY: recorded before they are written, so that nobody reads what they name in between; what an admin tags,
        and what is pulled, belongs to nobody, for everybody to use.
        """
        tags = tuple(dict.fromkeys(map(normal_tag, names)))
        holder = None if pulling else actor.uid
        for tag in tags:
            if self._is_anothers(tag, holder):
                return taken(tag)
        # INVARIANT: not awaited between the look and the taking, so that of two writes of a free name one is refused.
        for tag in tags:
            self._busy[tag] = (holder, self._busy.get(tag, (holder, 0))[1] + 1)
        writing = Writing(self._owners, self._facts, tags)
        try:
            refusal = None if everything else await self._claim(actor.uid, writing, pulling=pulling)
        except BaseException:
            self.end(writing)
            raise
        if refusal is not None:
            self.end(writing)
            return refusal
        return writing

    def end(self, writing: Writing) -> None:
        """The names are written, or will not be."""
        for tag in writing.tags:
            holder, count = self._busy[tag]
            if count > 1:
                self._busy[tag] = (holder, count - 1)
            else:
                del self._busy[tag]

    def _is_anothers(self, tag: str, holder: Uid | None) -> bool:
        """Whether another holder writes the tag now, or every tag of its repository."""
        wide = tag.endswith(EVERY_TAG)
        return any(
            holder != theirs
            and (busy == tag or (repository(busy) == repository(tag) and (wide or busy.endswith(EVERY_TAG))))
            for busy, (theirs, _) in self._busy.items()
        )

    async def _claim(self, uid: Uid, writing: Writing, *, pulling: bool) -> Taken | None:
        for tag in writing.tags:
            exists = await self._facts.find_image(tag) is not None
            owner = self._owners.tag_owner(tag)
            if exists and owner != uid and not (pulling and owner is None):
                return taken(tag)
            if not exists:
                writing.fresh.append(tag)
        for tag in () if pulling else writing.tags:
            self._owners.set_tag(tag, uid)
        return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken(Refusal):
    """A tag that may not be written: another's, or everybody's."""

    tag: str


def taken(tag: str) -> Taken:
    return Taken(
        status=403,
        message=f"ds01: image={tag} is not permitted, limit is free names and tags of your own (rule {RULE}); "
        "choose another name for the image",
        rules=(RULE,),
        tag=tag,
    )
