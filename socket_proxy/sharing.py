"""Sharing images on purpose: `/ds01/v1/images`, `images/share`, `images/unshare` on every socket ds01 serves.

A share is of a name: whatever image the tag names, now and later, its grantees may read and run. Only who made the image
shares it, whoever else has it; each change is on the audit record before it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from host.users import Users
from policy import image_names
from policy.compile import Policy
from policy.dockerapi import responses
from policy.model import Actor, Kind
from socket_proxy.facts import FactSource
from socket_proxy.grantees import Grantees
from socket_proxy.image_owners import ALL, ImageOwners, Reader, normal_tag
from socket_proxy.refusals import Refusal
from socket_proxy.trail import Trail

_MOST = 64  # grantees of one request


class _Wish(msgspec.Struct, forbid_unknown_fields=True):
    image: str
    with_: list[str] = msgspec.field(name="with", default_factory=list)


class ImageShares:
    """Lists, makes and ends shares."""

    def __init__(
        self,
        *,
        owners: ImageOwners,
        facts: FactSource,
        users: Users,
        trail: Trail,
        policy: Callable[[], Policy],
    ) -> None:
        self._owners = owners
        self._facts = facts
        self._grantees = Grantees(users=users, policy=policy)
        self._trail = trail

    async def listed(self, reader: Reader) -> Mapping[str, Any]:
        """The reader's own tags with whom they are shared, and the tags of others that are shared with the reader."""
        own = [
            {"image": _plain(reader, tag), "with": await self._shown(tag)}
            for tag in self._owners.owned_tags(reader.uid)
            if await self._facts.find_image(tag) is not None
        ]
        shared = [
            {"image": tag, "owner": await self._grantees.name(owner) if owner is not None else None}
            for tag in self._owners.shared_tags(reader)
            for owner in [self._owners.tag_owner(tag)]
            if await self._facts.find_readable(reader, tag) is not None
        ]
        return {"own": own, "shared": shared}

    async def share(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """Let grantees read what a tag names; without grantees everybody."""
        return await self._change(actor, reader, body, ending=False)

    async def unshare(self, actor: Actor, reader: Reader, body: bytes) -> Mapping[str, Any] | Refusal:
        """End shares of a tag; without grantees all of them."""
        return await self._change(actor, reader, body, ending=True)

    async def _change(
        self, actor: Actor, reader: Reader, body: bytes, *, ending: bool
    ) -> Mapping[str, Any] | Refusal:
        try:
            wish = msgspec.json.decode(body, type=_Wish)
        except msgspec.DecodeError as error:
            return Refusal(status=400, message=f"ds01: malformed request: {error}")
        if len(wish.with_) > _MOST:
            return Refusal(status=400, message=f"ds01: more than {_MOST} users and groups; name a group")
        tag = await self._named(reader, wish.image)
        refusal = await self._refusal(reader, tag, wish.image)
        if refusal is not None:
            return refusal
        grantees = self._owners.grantees(tag) if ending and not wish.with_ else (ALL,)
        if wish.with_:
            found = [ALL if name == ALL else await self._grantees.find(name) for name in wish.with_]
            wrong = [each for each in found if isinstance(each, Refusal)]
            if wrong:
                return wrong[0]
            grantees = tuple(each for each in found if isinstance(each, str))
        self._trail.note(
            {
                "event": "image.unshared" if ending else "image.shared",
                "actor": actor.name,
                "uid": actor.uid,
                "image": tag,
                "with": list(grantees),
            }
        )
        for grantee in grantees:
            (self._owners.unshare if ending else self._owners.share)(tag, grantee)
        return {"image": _plain(reader, tag), "with": await self._shown(tag)}

    async def _named(self, reader: Reader, text: str) -> str:
        """The tag inside dockerd: an own local one before others."""
        meant = await self._facts.find_meant(reader, text)
        return normal_tag(meant[0] if meant else text)

    async def _refusal(self, reader: Reader, tag: str, text: str) -> Refusal | None:
        """Why this tag is not the reader's to share; None if it is."""
        image = await self._facts.find_readable(reader, tag)
        if image is None:
            status, message = responses.not_found(Kind.IMAGE, text)
            return Refusal(status=status, message=message, rules=("ownership",))
        if reader.everything:
            return None
        if self._owners.tag_owner(tag) != reader.uid:
            return Refusal(
                status=403,
                message=f"ds01: {_plain(reader, tag)} is not your own name for an image (rule image_shares); docker tag gives it one",
                rules=("image_shares",),
            )
        makers = self._owners.makers(image.Id, image.tags)
        if reader.uid not in makers and not self._owners.is_public(image.Id, image.tags):
            return Refusal(
                status=403,
                message=f"ds01: the image of {_plain(reader, tag)} was made by another user, who alone can share it (rule image_shares); "
                "ask its maker",
                rules=("image_shares",),
            )
        return None

    async def _shown(self, tag: str) -> list[str]:
        return [await self._grantees.shown(each) for each in self._owners.grantees(tag)]


def _plain(reader: Reader, tag: str) -> str:
    return tag if reader.everything else image_names.plain(reader.uid, tag)
