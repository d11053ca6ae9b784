"""Past every call: the files and sockets of ds01 and dockerd, and the allocator's own API."""

from __future__ import annotations

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import run_as
from tests.fakes.raw_socket import Answer, ask

# Sockets that everybody may open by design: both look at the peer's credentials.
_OPEN_DOORS = frozenset({"run/docker.sock", "run/allocator.sock"})
_CLOSED = (
    "key",
    "ledger",
    "records",
    "audit",
    "engine.sock",
    "admin.sock",
    "authz.sock",
    "containerd",
    "break-glass",
)


@play
def files_of_root(world: World) -> Played:
    """Alice, with her own rights, walks the whole tree of ds01 and dockerd: what she can write, and what she can open."""
    root = world.lab.root
    played = Played(answers=[Answer(status=200)])
    writable = _found(world, "-writable")
    for path in writable:
        name = str(path.removeprefix(f"{root}/"))
        own = name == f"run/users/{world.alice}/docker.sock"
        played.unless(own or name in _OPEN_DOORS, f"alice can write {name}")
    for path in _found(world, "-readable"):
        name = path.removeprefix(f"{root}/")
        played.unless(
            name in _OPEN_DOORS or not any(word in name for word in _CLOSED), f"alice can open {name}"
        )
    played.unless(
        f"{root}/run/docker.sock" in writable, "not even the front door was found: this proves nothing"
    )
    return played


def _found(world: World, test: str) -> list[str]:
    """Files, directories and sockets below the lab's root that pass `test` for alice; the code itself is not the lab's."""
    walked = run_as(
        world.alice,
        "find",
        str(world.lab.root),
        "-path",
        "*/code",
        "-prune",
        "-o",
        "!",
        "-type",
        "l",
        test,
        "-print",
    )
    return walked.stdout.splitlines()


@play
def allocator(world: World, *, method: str, target: str, body: object = None) -> Played:
    """Alice asks the allocator itself, past the proxy."""
    path = world.lab.root / "run" / "allocator.sock"
    return Played(answers=[ask(path, world.alice, method, target, body)])
