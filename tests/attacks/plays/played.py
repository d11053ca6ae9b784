"""The register of plays, and what a play gives back."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.attacks.world import World
from tests.fakes.raw_socket import Answer


@dataclass(slots=True, kw_only=True)
class Played:
    """`answers` must each end as the step says; `harm` is what the play itself found to show success."""

    answers: list[Answer] = field(default_factory=list)
    harm: list[str] = field(default_factory=list)

    def unless(self, held: object, harm: str) -> None:
        """Note `harm` if what must hold does not."""
        if not held:
            self.harm.append(harm)


Play = Callable[..., Played]
PLAYS: dict[str, Play] = {}


def play(function: Play) -> Play:
    """Register a play under its name. It is called with the world and the step's `with`."""
    PLAYS[function.__name__] = function
    return function


__all__ = ["PLAYS", "Play", "Played", "World", "play"]
