"""Which local images a user's build may read by which names, and which it must not: those the user would not be shown."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from policy import image_names
from policy.buildkit.model import Images
from policy.dockerapi.model import Operation
from policy.names import ViewerNames
from socket_proxy.engine import Engine
from socket_proxy.visibility import ActorVisibility


class _Listed(msgspec.Struct):
    Id: str
    RepoTags: list[str] | None = None
    RepoDigests: list[str] | None = None


class BuildImages:
    """A `buildkit.ports.Images` for one user."""

    def __init__(
        self, *, engine: Engine, sees: Callable[[], ActorVisibility], names: Callable[[], ViewerNames]
    ) -> None:
        """`sees` is asked for each build: what is shared and what is private may change."""
        self._engine = engine
        self._sees = sees
        self._names = names

    async def readable(self) -> Images:
        """Every tag and digest, sorted out for this user. Raises: EngineError, UpstreamUnavailable, UpstreamLost."""
        answer = await self._engine.ask(Operation.IMAGE_LIST)
        sees, names = self._sees(), self._names()
        local: dict[str, str] = {}
        shared: list[str] = []
        hidden: list[str] = []
        for image in msgspec.json.decode(answer, type=list[_Listed]):
            tags = [tag for tag in image.RepoTags or () if tag != "<none>:<none>"]
            digests = [digest for digest in image.RepoDigests or () if digest != "<none>@<none>"]
            seen = sees.sees_image(image.Id, tags)
            for tag in tags:
                if not (seen and sees.shows_reference(tag)):
                    hidden.append(tag)
                elif names.image(tag) != tag:
                    local[names.image(tag)] = tag
                elif image_names.owner(tag) is not None:
                    shared.append(tag)
            hidden += () if seen else digests
        return Images(local=local, shared=tuple(shared), hidden=tuple(hidden))
