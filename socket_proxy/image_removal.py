"""Removing images: a user's share of an image goes, and dockerd removes the content when it was the last.

Two users who made the same image both have it. So an id stands for the user's own tags on it and the user's part in it;
what is also another's stays, and so does a parent that dockerd would take along.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping

import msgspec

from http1.writer import JSON, forwardable
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.model import Uid
from socket_proxy.answers import ANSWER_BYTES, Answers
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource, ImageFields
from socket_proxy.image_owners import ImageOwners, normal_tag, repository
from socket_proxy.refusals import EngineError, Refusal
from socket_proxy.transaction import Handler, Transaction

_PARENTS = 256
_KEPT = "ds01/kept"
_NO_PRUNE = {"noprune": ("1",)}

Report = list[dict[str, str]]


class ImageRemoval:
    """The handler of `docker rmi`, and what prune needs of it."""

    def __init__(self, *, engine: Engine, facts: FactSource, owners: ImageOwners, answers: Answers) -> None:
        self._engine = engine
        self._facts = facts
        self._owners = owners
        self._answers = answers
        self.by_operation: dict[Operation, Handler] = {Operation.IMAGE_DELETE: self.delete}

    async def delete(self, transaction: Transaction) -> Refusal | None:
        text = transaction.request.params["image"]
        image = await self._facts.find_image(text)
        if image is None or transaction.everything:
            return await self._forward(transaction)
        uid = transaction.actor.uid
        own = {tag for tag in image.tags if self._owners.tag_owner(tag) == uid}
        named = {normal_tag(text)} & set(image.tags)
        going = named or own
        if going >= own and self._is_others_too(image, uid):
            return await self._leave(transaction, image, sorted(going))
        return await self._forward(transaction, await self._noprune(image, uid))

    async def prune(self, image: ImageFields, uid: Uid) -> Report | None:
        """Remove an unused image, or the user's part in it; None if it is not the user's, or in use."""
        if any(self._owners.tag_owner(tag) != uid for tag in image.tags):
            return None
        makers = self._owners.makers(image.Id, image.tags)
        if uid not in makers and not image.tags:
            return None
        if makers - {uid}:
            if image.tags:
                return None
            self._owners.disclaim(image.Id, uid)
            return [{"Deleted": image.Id}]
        try:
            return await self._remove(image.Id, await self._noprune(image, uid), uid)
        except EngineError:
            return None  # in use

    async def _forward(
        self, transaction: Transaction, query: Mapping[str, tuple[str, ...]] | None = None
    ) -> Refusal | None:
        """Let dockerd remove it, and take over what it says it removed."""
        response = await self._answers.send(transaction.asking(query or {}), outlives_client=True)
        if response.head.status != 200:
            return await self._answers.relay_response(transaction, response)
        report = msgspec.json.decode(await response.read(ANSWER_BYTES), type=Report)
        self._owners.forget(report)
        body = responses.image_delete(report, self._answers.names(transaction))
        await transaction.exchange.respond(200, forwardable(response.head.headers), body)
        return None

    async def _leave(self, transaction: Transaction, image: ImageFields, tags: list[str]) -> Refusal | None:
        """Take the user's last tags off an image that is also another's, and the user out of its makers."""
        uid = transaction.actor.uid
        if len({repository(tag) for tag in tags}) > 1 and not transaction.request.query.get("force"):
            short = image.Id.removeprefix("sha256:")[:12]
            message = (
                f"conflict: unable to delete {short} (must be forced) - "
                "image is referenced in multiple repositories"
            )
            return Refusal(status=409, message=message, rules=("engine",))
        report: Report = []
        try:
            await self._keep_for_others(image, tags, uid)
            for tag in tags:
                report += await self._remove(tag, _NO_PRUNE, uid)
        except EngineError as error:
            return self._refusal(transaction, error)
        if uid in self._owners.makers(image.Id):
            self._owners.disclaim(image.Id, uid)
            report.append({"Deleted": image.Id})
        body = responses.image_delete(report, self._answers.names(transaction))
        await transaction.exchange.respond(200, JSON, body)
        return None

    def _is_others_too(self, image: ImageFields, uid: Uid) -> bool:
        others = self._owners.makers(image.Id, image.tags) - {uid}
        return bool(others) or any(self._owners.tag_owner(tag) != uid for tag in image.tags)

    async def _remove(self, text: str, query: Mapping[str, tuple[str, ...]], uid: Uid) -> Report:
        answer = await self._engine.ask(Operation.IMAGE_DELETE, params={"image": text}, query=query, uid=uid)
        report = msgspec.json.decode(answer, type=Report)
        self._owners.forget(report)
        return report

    async def _keep_for_others(self, image: ImageFields, going: list[str], uid: Uid) -> None:
        """The last names are going, and dockerd would remove the image with them: another maker gets a name on it.

        Raises: EngineError.
        """
        others = self._owners.makers(image.Id) - {uid}
        if not others or set(image.tags) - set(going):
            return
        tag = f"{image.Id.removeprefix('sha256:')[:12]}-{secrets.token_hex(4)}"
        self._owners.set_tag(f"{_KEPT}:{tag}", min(others))
        await self._engine.ask(
            Operation.IMAGE_TAG, params={"image": image.Id}, query={"repo": (_KEPT,), "tag": (tag,)}
        )

    async def _noprune(self, image: ImageFields, uid: Uid) -> Mapping[str, tuple[str, ...]]:
        """What keeps dockerd from removing untagged parents with the image, where one of them is another's."""
        for _ in range(_PARENTS):
            if not image.Parent:
                return {}
            parent = await self._facts.find_image(image.Parent)
            if parent is None or parent.tags:
                return {}
            if self._owners.makers(parent.Id) - {uid}:
                return _NO_PRUNE
            image = parent
        return _NO_PRUNE

    def _refusal(self, transaction: Transaction, error: EngineError) -> Refusal:
        names = self._answers.names(transaction)
        shown = responses.error(error.body, self._answers.sees(transaction), names=names)
        return Refusal(status=error.status, message=msgspec.json.decode(shown)["message"], rules=("engine",))
