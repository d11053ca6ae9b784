"""Which local images a user's build must not read: those that the user would not be shown."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from policy.dockerapi.model import Operation
from socket_proxy.engine import Engine
from socket_proxy.visibility import ActorVisibility


class _Listed(msgspec.Struct):
    Id: str
    RepoTags: list[str] | None = None
    RepoDigests: list[str] | None = None


class BuildImages:
    """A `buildkit.ports.Images` for one user."""

    def __init__(self, *, engine: Engine, sees: Callable[[], ActorVisibility]) -> None:
        """`sees` is asked for each build: what is shared and what is private may change."""
        self._engine = engine
        self._sees = sees

    async def hidden(self) -> tuple[str, ...]:
        """Every tag and digest that this user is not shown. Raises: EngineError, UpstreamUnavailable, UpstreamLost."""
        answer = await self._engine.ask(Operation.IMAGE_LIST)
        sees = self._sees()
        found: list[str] = []
        for image in msgspec.json.decode(answer, type=list[_Listed]):
            tags = [tag for tag in image.RepoTags or () if tag != "<none>:<none>"]
            digests = [digest for digest in image.RepoDigests or () if digest != "<none>@<none>"]
            if sees.sees_image(image.Id, tags):
                found += [tag for tag in tags if not sees.sees_reference(tag)]
            else:
                found += [*tags, *digests]
        return tuple(found)
