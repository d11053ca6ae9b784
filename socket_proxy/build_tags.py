"""The image names that BuildKit writes: asked for as for the classic builder, and one user's while a build writes them."""

from __future__ import annotations

from collections.abc import Callable

from policy import facts as policy_facts
from policy import image_names
from policy.compile import Policy
from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Actor, Decision, Effect, Reason
from socket_proxy.facts import FactSource
from socket_proxy.image_owners import ALL, ImageOwners, normal_tag
from socket_proxy.image_tags import Tags, Taken, Writing

_NEXT_STEP = "choose another name for the image"


class BuildTags:
    """A `buildkit.ports.Tags` for one user."""

    def __init__(
        self,
        *,
        actor: Actor,
        everything: bool,
        policy: Callable[[], Policy],
        facts: FactSource,
        owners: ImageOwners,
        tags: Tags,
    ) -> None:
        self._actor = actor
        self._everything = everything
        self._policy = policy
        self._facts = facts
        self._owners = owners
        self._tags = tags
        self._writing: dict[tuple[str, ...], list[Writing]] = {}

    async def reserve(self, tags: tuple[str, ...]) -> Reason | None:
        """Take the names, if the rules let this user write them and nobody else is doing so."""
        asked = Request(operation=Operation.IMAGE_BUILD, version=(1, 41), query={"t": tags} if tags else {})
        references = policy_facts.needed(asked)
        grants = self._policy().for_actor(self._actor)
        facts = await self._facts.gather(
            self._actor, references, everything=self._everything, groups=grants.groups
        )
        refusal = _refusal(evaluate(self._policy(), self._actor, asked, facts))
        if refusal is not None:
            return refusal
        names = self._inside(tags)
        writing = await self._tags.begin(self._actor, names, everything=self._everything)
        if isinstance(writing, Taken):
            return _not_yours(writing.tag)
        self._writing.setdefault(names, []).append(writing)
        return None

    def release(self, tags: tuple[str, ...]) -> None:
        self._tags.end(self._writing[self._inside(tags)].pop())

    def built(self, tags: tuple[str, ...], image_ids: tuple[str, ...]) -> None:
        """Record what was made; what an admin tags belongs to nobody, for everybody to use.

        No image of BuildKit's is one that was there: each carries its owner's label.
        """
        for image_id in image_ids:
            if self._everything:
                self._owners.publish(image_id)
            else:
                self._owners.claim(image_id, [], self._actor.uid)
        private = self._policy().for_actor(self._actor).images_private
        for name in self._inside(tags):
            if self._everything:
                self._owners.set_tag(name, None)
            elif not private:
                self._owners.share(name, ALL)
            self._owners.note_local(name)

    def _inside(self, tags: tuple[str, ...]) -> tuple[str, ...]:
        """The names inside dockerd, each once."""
        uid = self._actor.uid
        real = tags if self._everything else tuple(image_names.real(uid, tag) for tag in tags)
        return tuple(dict.fromkeys(map(normal_tag, real)))


def _refusal(decision: Decision) -> Reason | None:
    if decision.effect is Effect.ALLOW:
        return None
    if decision.missing is not None:
        return _not_yours(decision.missing.text)
    return decision.reasons[0]


def _not_yours(tag: str) -> Reason:
    return Reason(
        rule="ownership",
        field="image",
        asked=tag,
        limit="free names and tags of your own",
        next_step=_NEXT_STEP,
    )
