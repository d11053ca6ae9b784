"""Whose steps a classic build may take over: its user's own.

dockerd looks for an equal step among all images of the engine, whoever made them. What a step of another's has left (a package
fetched through a proxy of that other's, say) would come along, and its "Using cache" tells that somebody ran it. With `cachefrom`
dockerd takes only what the images named there are made of.
SOURCE: moby 20.10 to 28, image/cache and daemon/images/cache.go: a name that is not there counts, so one is always given.
"""

from __future__ import annotations

import msgspec

from policy.dockerapi.model import Operation
from socket_proxy.engine import Engine
from socket_proxy.image_owners import ImageOwners
from socket_proxy.transaction import Transaction

MOST = 200  # the newest; each is looked up for each build
NOTHING = f"sha256:{'0' * 64}"


class _Listed(msgspec.Struct):
    Id: str
    Created: int = 0
    RepoTags: list[str] | None = None


async def cache_sources(engine: Engine, owners: ImageOwners, transaction: Transaction) -> tuple[str, ...]:
    """Ids for `cachefrom`, never none: then all images would count. Admins' images are everybody's, so they have no cache.

    The list names images that nothing is built on, so all steps of the actor's are among what those are made of.
    Raises: EngineError, UpstreamUnavailable, UpstreamLost.
    """
    if transaction.everything:
        return (NOTHING,)
    listed = msgspec.json.decode(await engine.ask(Operation.IMAGE_LIST), type=list[_Listed])
    own = [
        image for image in listed if transaction.actor.uid in owners.makers(image.Id, image.RepoTags or ())
    ]
    own.sort(key=lambda image: image.Created, reverse=True)
    return tuple(image.Id for image in own[:MOST]) or (NOTHING,)
