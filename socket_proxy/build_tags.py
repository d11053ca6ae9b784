"""The image names that BuildKit writes: asked for as for the classic builder, and one user's while a build writes them."""

from __future__ import annotations

from collections.abc import Callable

from policy import facts as policy_facts
from policy.compile import Policy
from policy.dockerapi.model import Operation, Request
from policy.evaluate import evaluate
from policy.model import Actor, Decision, Effect, Reason, Uid
from socket_proxy.facts import FactSource, normal_tag
from socket_proxy.records import Records

_NEXT_STEP = "choose another name for the image"


class Writing:
    """Names that builds are writing now, by who builds; one for the whole proxy."""

    def __init__(self) -> None:
        self._by_tag: dict[str, list[Uid]] = {}

    def take(self, tags: tuple[str, ...], uid: Uid) -> str | None:
        """Take all the names, or none: then the name that another user's build is writing."""
        for tag in tags:
            if any(other != uid for other in self._by_tag.get(tag, ())):
                return tag
        for tag in tags:
            self._by_tag.setdefault(tag, []).append(uid)
        return None

    def give(self, tags: tuple[str, ...], uid: Uid) -> None:
        """One build of the names is over."""
        for tag in tags:
            self._by_tag[tag].remove(uid)
            if not self._by_tag[tag]:
                del self._by_tag[tag]


class BuildTags:
    """A `buildkit.ports.Tags` for one user."""

    def __init__(
        self,
        *,
        actor: Actor,
        everything: bool,
        policy: Callable[[], Policy],
        facts: FactSource,
        records: Records,
        writing: Writing,
    ) -> None:
        self._actor = actor
        self._everything = everything
        self._policy = policy
        self._facts = facts
        self._records = records
        self._writing = writing

    async def reserve(self, tags: tuple[str, ...]) -> Reason | None:
        """Take the names, if the rules let this user write them and nobody else is doing so."""
        asked = Request(operation=Operation.IMAGE_BUILD, version=(1, 41), query={"t": tags} if tags else {})
        references = policy_facts.needed(asked)
        facts = await self._facts.gather(self._actor, references, everything=self._everything)
        refusal = _refusal(evaluate(self._policy(), self._actor, asked, facts))
        if refusal is not None:
            return refusal
        names = _normal(tags)
        # INVARIANT: not awaited between the look and the taking, so that of two builds of a free name one waits.
        taken = self._writing.take(names, self._actor.uid)
        if taken is not None:
            return _not_yours(taken)
        if not self._everything:
            # Before it is written: whoever leaves as the build ends would else lose the name to nobody.
            for name in names:
                self._records.set_tag(name, self._actor.uid)
        return None

    def release(self, tags: tuple[str, ...]) -> None:
        self._writing.give(_normal(tags), self._actor.uid)

    def built(self, tags: tuple[str, ...], image_ids: tuple[str, ...]) -> None:
        """Record what was made; what an admin tags belongs to nobody, for everybody to use."""
        for image_id in image_ids:
            self._records.claim_image(image_id, self._actor.uid)
        for name in _normal(tags):
            if self._everything:
                self._records.drop_tag(name)
            else:
                self._records.set_tag(name, self._actor.uid)


def _normal(tags: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(map(normal_tag, tags)))


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
