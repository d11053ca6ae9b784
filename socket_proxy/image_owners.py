"""Whose an image is, whose a tag, and who else may read it. One store holds everybody's images; this keeps them apart.

An image id has *makers*: everybody who built, committed, loaded or imported it (two who make the same content get the
same id, and both are makers). A tag has one owner, or none: what was pulled, or tagged by an admin. An image is read by
its makers; by all if it was pulled; by those a maker shared a tag of it with. What nobody can be shown to own is
nobody's to read: the steps of a build, and whatever dockerd made that ds01 did not see. Whose a local name is
(`policy.image_names`) it says itself; the record says of those only which there are.

Rows are durable (`records`) and held in memory, since lists and events ask for every image.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from policy import image_names
from policy.image_names import familiar as normal_tag
from policy.image_names import repository
from policy.model import Actor, Uid
from socket_proxy.records import Records

__all__ = [
    "ALL",
    "ImageOwners",
    "Reader",
    "group_grantee",
    "normal_tag",
    "repository",
    "user_grantee",
]

ALL = "all"
_REMEMBERED = 4096  # removed images whose last events may still be on their way to their makers


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who wants to read. `groups` are policy groups; `everything`: an admin."""

    uid: Uid
    groups: frozenset[str] = frozenset()
    networks: frozenset[str] = frozenset()  # names of root's networks that policy shares with the reader
    everything: bool = False

    @classmethod
    def of(
        cls,
        actor: Actor,
        *,
        groups: Iterable[str],
        networks: frozenset[str] = frozenset(),
        everything: bool,
    ) -> Reader:
        return cls(uid=actor.uid, groups=frozenset(groups), networks=networks, everything=everything)

    def is_among(self, grantees: Iterable[str]) -> bool:
        own = {ALL, user_grantee(self.uid), *map(group_grantee, self.groups)}
        return not own.isdisjoint(grantees)


def user_grantee(uid: Uid) -> str:
    """How a share names one user."""
    return f"user:{uid}"


def group_grantee(name: str) -> str:
    """How a share names a policy group."""
    return f"group:{name}"


class ImageOwners:
    """The record of images, asked by id, tag and reader."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._tags = records.tags()
        self._makers: defaultdict[str, set[Uid]] = defaultdict(set)
        self._public = set(records.public_images())
        self._shares: defaultdict[str, set[str]] = defaultdict(set)
        self._gone: OrderedDict[str, frozenset[Uid]] = OrderedDict()
        self._by_repository: defaultdict[str, set[str]] = defaultdict(set)
        for tag in self._tags:
            self._by_repository[repository(tag)].add(tag)
        for image_id, uid in records.makers():
            self._makers[image_id].add(uid)
        for tag, grantee in records.shares():
            self._shares[tag].add(grantee)

    # --- who may ---

    def tag_owner(self, tag: str) -> Uid | None:
        owner = self._tags.get(tag)
        return image_names.owner(tag) if owner is None else owner

    def knows(self, name: str) -> bool:
        """Whether there may be a local name like this. INVARIANT: what the engine has is here, since it is written here first."""
        return (
            bool(self._by_repository.get(repository(name))) if "@" in name else normal_tag(name) in self._tags
        )

    def shadows(self, uid: Uid, tag: str) -> bool:
        """Whether `uid` has a local name of this spelling, and so means that one by it."""
        return "/" not in tag and f"{image_names.prefix(uid)}{tag}" in self._tags

    def makers(self, image_id: str, tags: Iterable[str] = ()) -> frozenset[Uid]:
        """Everybody whose image it is.

        Args: tags: all it has. An image that just got its first tags, and is not on record yet, is their owner's.
        """
        known = self._makers.get(image_id) or self._gone.get(image_id)
        if known:
            return frozenset(known)
        return frozenset(owner for tag in tags if (owner := self.tag_owner(tag)) is not None)

    def is_public(self, image_id: str, tags: Sequence[str]) -> bool:
        """Whether all users may read it: it was pulled, or was here before ds01 under a name that is nobody's."""
        if image_id in self._public:
            return True
        public = not self._makers.get(image_id) and any(self.tag_owner(tag) is None for tag in tags)
        if public and image_id:
            self._public.add(image_id)  # what all could read once stays so, also when its tag is moved
        return public

    def may_read(self, reader: Reader, image_id: str, tags: Sequence[str]) -> bool:
        """Args: tags: all the image has, as far as known; fewer can only hide it."""
        if reader.everything or self.is_public(image_id, tags):
            return True
        makers = self.makers(image_id, tags)
        # SECURITY: only what a maker shares is shared: a reader's own tag on it passes nothing on.
        return reader.uid in makers or any(
            self.tag_owner(tag) in {*makers, None} and reader.is_among(self._shares.get(tag, ()))
            for tag in tags
        )

    def shows_tag(self, reader: Reader, tag: str) -> bool:
        """Whether the name itself may be shown: private names can stand on content that all may read."""
        if "@" in tag:
            named = self._by_repository.get(repository(tag), ())
            if image_names.owner(tag) not in (None, reader.uid) and not named:
                return reader.everything
            return all(self.shows_tag(reader, each) for each in named)
        owner = self.tag_owner(tag)
        return reader.everything or owner in (None, reader.uid) or reader.is_among(self._shares.get(tag, ()))

    # --- what happened ---

    def set_tag(self, tag: str, owner: Uid | None) -> None:
        """`tag` was, or is about to be, written by `owner`; None: for everybody."""
        if owner is None:
            self._records.drop_tag(tag)
            self._tags.pop(tag, None)
            self._shares.pop(tag, None)
            self._by_repository[repository(tag)].discard(tag)
            return
        if self._tags.get(tag) not in (None, owner):
            self.set_tag(tag, None)
        self._records.set_tag(tag, owner)
        self._tags[tag] = owner
        self._by_repository[repository(tag)].add(tag)

    def claim(self, image_id: str, tags: Sequence[str], maker: Uid) -> None:
        """`maker` made this image; whoever else made it keeps it too, and what all could read they still can."""
        if self.is_public(image_id, tags):
            self.publish(image_id)
        self._records.claim_image(image_id, maker)
        self._makers[image_id].add(maker)

    def publish(self, image_id: str) -> None:
        """All users may read this image from now on."""
        self._records.publish_image(image_id)
        self._public.add(image_id)

    def disclaim(self, image_id: str, maker: Uid) -> None:
        """`maker` removed an image that is also another's."""
        self._records.disclaim_image(image_id, maker)
        self._makers[image_id].discard(maker)

    def forget(self, report: Iterable[dict[str, str]]) -> None:
        """Take over what dockerd says it removed: `Untagged` names and `Deleted` ids."""
        for item in report:
            if "Untagged" in item and "@" not in item["Untagged"]:
                self.set_tag(normal_tag(item["Untagged"]), None)
            if "Deleted" in item:
                self._forget_id(item["Deleted"])

    def note_local(self, tag: str) -> None:
        """A local name was written, by whomever: it is on record, also if the engine was matched meanwhile."""
        owner = image_names.owner(tag)
        if owner is not None and tag not in self._tags:
            self.set_tag(tag, owner)

    def match_local(self, present: Iterable[str]) -> None:
        """Have on record the local names that the engine has, and no others. Args: present: all its tags."""
        here = {tag: owner for tag in present if (owner := image_names.owner(tag)) is not None}
        for tag in [tag for tag in self._tags if image_names.owner(tag) is not None and tag not in here]:
            self.set_tag(tag, None)
        for tag, owner in here.items():
            if self._tags.get(tag) != owner:
                self.set_tag(tag, owner)

    def _forget_id(self, image_id: str) -> None:
        self._records.drop_image(image_id)
        self._public.discard(image_id)
        makers = self._makers.pop(image_id, None)
        if makers:
            self._gone[image_id] = frozenset(makers)
            if len(self._gone) > _REMEMBERED:
                self._gone.popitem(last=False)

    # --- sharing ---

    def share(self, tag: str, grantee: str) -> None:
        """Let a grantee (`all`, `group:NAME`, `user:UID`) read whatever image `tag` names, now and later."""
        self._records.share_tag(tag, grantee)
        self._shares[tag].add(grantee)

    def unshare(self, tag: str, grantee: str) -> None:
        self._records.unshare_tag(tag, grantee)
        self._shares[tag].discard(grantee)

    def grantees(self, tag: str) -> tuple[str, ...]:
        return tuple(sorted(self._shares.get(tag, ())))

    def owned_tags(self, owner: Uid) -> Iterator[str]:
        return (tag for tag, uid in sorted(self._tags.items()) if uid == owner)

    def shared_tags(self, reader: Reader) -> Iterator[str]:
        """Tags of others that are shared with `reader`."""
        return (
            tag
            for tag, grantees in sorted(self._shares.items())
            if self._tags.get(tag) != reader.uid and reader.is_among(grantees)
        )
