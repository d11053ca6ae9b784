"""Saving and pushing: a name without a tag means every tag of its repository, which here are the ones the user may see."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from http1.writer import forwardable
from policy import image_names
from policy.dockerapi import responses
from policy.dockerapi.model import Operation
from policy.model import Kind, Reference
from socket_proxy.answers import ERROR_BYTES, Answers
from socket_proxy.engine import Engine
from socket_proxy.facts import FactSource, ImageFields
from socket_proxy.image_owners import ImageOwners, normal_tag, repository
from socket_proxy.image_words import relay_words
from socket_proxy.refusals import Refusal
from socket_proxy.transaction import Handler, Transaction


class ImageTransfer:
    """Handlers by operation."""

    def __init__(self, *, engine: Engine, facts: FactSource, owners: ImageOwners, answers: Answers) -> None:
        self._engine = engine
        self._facts = facts
        self._owners = owners
        self._answers = answers
        self.by_operation: dict[Operation, Handler] = {
            Operation.IMAGE_GET: self.save,
            Operation.IMAGE_GET_ALL: self.save_all,
            Operation.IMAGE_PUSH: self.push,
        }

    async def save(self, transaction: Transaction) -> Refusal | None:
        name = transaction.asked.params["image"]
        names = await self._names(transaction, name, transaction.request.params["image"])
        if not names:
            return _absent(name)
        if names == (transaction.request.params["image"],):
            return await self._give(transaction)
        every = replace(
            transaction.request,
            operation=Operation.IMAGE_GET_ALL,
            params={},
            query={**transaction.request.query, "names": names},
        )
        return await self._give(replace(transaction, request=every, reading=None))

    async def save_all(self, transaction: Transaction) -> Refusal | None:
        every: list[str] = []
        asked, inside = (one.query.get("names", ()) for one in (transaction.asked, transaction.request))
        for name, real in zip(asked, inside, strict=True):
            names = await self._names(transaction, name, real)
            if not names:
                return _absent(name)
            every += names
        return await self._give(transaction.asking({"names": tuple(dict.fromkeys(every))}))

    async def _give(self, transaction: Transaction) -> Refusal | None:
        """Send the tar on, with plain names in it."""
        if transaction.everything:
            return await self._answers.relay(transaction)
        response = await self._answers.send(transaction)
        if response.head.status != 200:
            return await self._answers.relay_response(transaction, response)
        exchange, tar = transaction.exchange, responses.SavedTar(image_names.prefix(transaction.actor.uid))
        exchange.start_response(200, forwardable(response.head.headers))
        async for chunk in response.body():
            for piece in tar.feed(chunk):
                await exchange.write(piece)
        tar.close()
        await exchange.end()
        return None

    async def push(self, transaction: Transaction) -> Refusal | None:
        """One push for each tag: dockerd's own push of a repository takes everybody's tags."""
        name = transaction.request.params["image"]
        tag = next(iter(transaction.request.query.get("tag", ())), "")
        names = () if tag else await self._names(transaction, name, name)
        meant = [fact.name for fact in transaction.facts.objects.values() if fact is not None]
        if not transaction.everything and any(
            image_names.owner(each) is not None for each in (*meant, *names)
        ):
            return _local(name)
        if tag or names == (name,):
            return await self._answers.relay(transaction)
        if not any(":" in each.rpartition("/")[2] for each in names):
            message = f"An image does not exist locally with the tag: {name}"
            return Refusal(status=404, message=message, rules=("ownership",))
        for each in names:
            one = transaction.asking({"tag": (each.rpartition(":")[2],)})
            response = await self._answers.send(one)
            if response.head.status != 200:
                return await self._stop(transaction, response.head.status, await response.read(ERROR_BYTES))
            if (await relay_words(transaction, response)).failed:
                break
        await transaction.exchange.end()
        return None

    async def _stop(self, transaction: Transaction, status: int, body: bytes) -> Refusal | None:
        message = msgspec.json.decode(
            responses.error(body, self._answers.sees(transaction), names=self._answers.names(transaction))
        )["message"]
        if not transaction.exchange.responded:
            return Refusal(status=status, message=message, rules=("engine",))
        await transaction.exchange.write(responses.error_line(message))
        await transaction.exchange.end()
        return None

    async def _names(self, transaction: Transaction, name: str, inside: str) -> tuple[str, ...]:
        """What a name stands for: itself with a tag or digest; else every tag the user may see; else the image by its id.

        Args: inside: the name inside dockerd that it means with no tag said. Local names of one's own come before others'.

        SECURITY: what is an id to the user can be a repository of another's to dockerd, so it goes on in full.
        """
        last = name.rpartition("/")[2]
        if transaction.everything or ":" in last or "@" in last:
            return (inside,)
        uid = transaction.actor.uid
        wanted = dict.fromkeys(repository(normal_tag(each)) for each in (image_names.real(uid, name), name))
        filters = msgspec.json.encode({"reference": dict.fromkeys(wanted, True)}).decode()
        listed = await self._engine.ask(Operation.IMAGE_LIST, query={"filters": (filters,)})
        tags = [
            tag
            for image in msgspec.json.decode(listed, type=list[ImageFields])
            for tag in image.tags
            if repository(tag) in wanted
            and not self._owners.shadows(uid, tag)
            and await self._facts.find_readable(transaction.reader, tag) is not None
        ]
        fact = transaction.facts.objects.get(Reference(kind=Kind.IMAGE, text=name))
        by_id = (fact.id,) if fact is not None and fact.shared else ()
        return tuple(dict.fromkeys(tags)) or by_id


def _local(name: str) -> Refusal:
    return Refusal(
        status=403,
        message=f"ds01: image={name} is not permitted, limit is names with an account or a registry (rule image_tags): "
        f"a name of one part is your own on this server; docker tag {name} REGISTRY/ACCOUNT/{name}, and push that",
        rules=("image_tags",),
    )


def _absent(name: str) -> Refusal:
    status, message = responses.not_found(Kind.IMAGE, name)
    return Refusal(status=status, message=message, rules=("ownership",))
