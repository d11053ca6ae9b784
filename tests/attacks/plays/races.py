"""Both at once, or one object in another's place between check and use."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack

from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API
from tests.fakes.raw_socket import Answer, connected, read_answer, request

_ROUNDS = 15
_IMAGE = {"Image": "busybox", "Cmd": ["sleep", "600"]}


def at_once(*works: Callable[[], object]) -> list[object]:
    """Run each in a thread of its own, all released together; gives what they returned."""
    barrier = threading.Barrier(len(works))
    found: list[object] = [None] * len(works)

    def run(number: int, work: Callable[[], object]) -> None:
        barrier.wait()
        found[number] = work()

    threads = [threading.Thread(target=run, args=(number, work)) for number, work in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return found


def together(world: World, requests: Iterable[tuple[str, bytes]]) -> list[Answer]:
    """Send each request on a connection of its own, `(user, bytes)`, all before the first answer is read.

    Connections are opened by this thread alone: credentials are those of connect(2), and they are the process's.
    """
    with ExitStack() as open_ones:
        clients = [
            (open_ones.enter_context(connected(world.socket(user), world.account(user))), data)
            for user, data in requests
        ]
        for client, data in clients:
            client.sendall(data)
        return [read_answer(client) for client, _ in clients]


def _post(target: str, body: object = None) -> bytes:
    return request("POST", f"{API}{target}", body)


@play
def rename_and_recreate(world: World) -> Played:
    """Alice gives a name up and bob takes it, while she kills, stops and removes by that name."""
    played = Played(answers=[Answer(status=200)])
    for number in range(_ROUNDS):
        race, gone = f"race{number}", f"gone{number}"  # see `create_and_delete`
        world.must("alice", "POST", f"/containers/create?name={race}", _IMAGE)
        answers = together(
            world,
            [
                ("alice", _post(f"/containers/{race}/rename?name={gone}")),
                ("bob", _post(f"/containers/create?name={race}", _IMAGE)),
                ("alice", _post(f"/containers/{race}/kill")),
                ("bob", _post(f"/containers/{race}/start")),
                ("alice", _post(f"/containers/{race}/stop?t=0")),
                ("alice", request("DELETE", f"{API}/containers/{race}?force=1")),
                ("bob", _post(f"/containers/create?name={race}", _IMAGE)),
            ],
        )
        made = [answer.json["Id"] for answer in (answers[1], answers[6]) if answer.status == 201]
        for container in made:
            found = world.ask("GET", f"{API}/containers/{container}/json", user="root")
            played.unless(found.status == 200, f"round {number}: bob's container was removed by alice")
        for user in ("alice", "bob"):
            for name in (race, gone):
                world.ask("DELETE", f"{API}/containers/{name}?force=1", user=user)
    return played


@play
def create_and_delete(world: World) -> Played:
    """Alice's calls by name and by id on what is being removed, while bob makes his own under the name.

    Each round has names of its own: dockerd 26.1 and 28.5 keep a name for a removed container for ever if it is renamed while
    it is removed ("invalid output path", and the old name is taken back).
    """
    played = Played(answers=[Answer(status=200)])
    for number in range(_ROUNDS):
        race, other = f"made{number}", f"other{number}"
        mine = world.must("alice", "POST", f"/containers/create?name={race}", _IMAGE).json["Id"]
        answers = together(
            world,
            [
                ("alice", request("DELETE", f"{API}/containers/{race}?force=1")),
                ("bob", _post(f"/containers/create?name={race}", _IMAGE)),
                ("alice", _post(f"/containers/{mine}/rename?name={other}")),
                ("alice", _post(f"/containers/{race}/exec", {"Cmd": ["id"]})),
                ("alice", request("GET", f"{API}/containers/{race}/json")),
                ("alice", request("GET", f"{API}/containers/{mine}/json")),
            ],
        )
        bobs = answers[1].json["Id"] if answers[1].status == 201 else None
        for answer in answers[2:]:
            played.unless(
                not bobs or bobs.encode() not in answer.body, f"round {number}: alice was told bob's id"
            )
        for user in ("alice", "bob"):
            for name in (race, other, mine):
                world.ask("DELETE", f"{API}/containers/{name}?force=1", user=user)
    return played


@play
def volume_at_once(world: World) -> Played:
    """Both make one volume name, by a create of the volume and of a container: no container mounts the other's."""
    played = Played(answers=[Answer(status=200)])
    body = {**_IMAGE, "HostConfig": {"Binds": ["raced:/x"]}}
    for number in range(_ROUNDS):
        answers = together(
            world,
            [
                ("alice", _post("/containers/create?name=race-a", body)),
                ("bob", _post("/containers/create?name=race-b", body)),
                ("alice", _post("/volumes/create", {"Name": "raced"})),
                ("bob", _post("/volumes/create", {"Name": "raced"})),
            ],
        )
        _no_foreign_volume(world, played, number, answers[:2])
        for user, name in (("alice", "race-a"), ("bob", "race-b")):
            world.ask("DELETE", f"{API}/containers/{name}?force=1", user=user)
            world.ask("DELETE", f"{API}/volumes/raced", user=user)
    return played


@play
def volume_given_up(world: World) -> Played:
    """Alice gives a volume up and bob makes it, while a create of alice's that names it is on its way."""
    played = Played(answers=[Answer(status=200)])
    body = {**_IMAGE, "HostConfig": {"Binds": ["raced:/x"]}}
    for number in range(_ROUNDS):
        world.ask("POST", f"{API}/volumes/create", {"Name": "raced"})
        answers = together(
            world,
            [
                ("alice", request("DELETE", f"{API}/volumes/raced")),
                ("alice", _post("/containers/create?name=race-a", body)),
                ("bob", _post("/volumes/create", {"Name": "raced"})),
            ],
        )
        _no_foreign_volume(world, played, number, answers[1:2])
        world.ask("DELETE", f"{API}/containers/race-a?force=1")
        for user in ("alice", "bob"):
            world.ask("DELETE", f"{API}/volumes/raced", user=user)
    return played


def _no_foreign_volume(world: World, played: Played, number: int, answers: list[Answer]) -> None:
    """Root compares the owner of each container with those of the volumes that are in it."""
    for answer in answers:
        if answer.status != 201:
            continue
        found = world.root("GET", f"/containers/{answer.json['Id']}/json")
        owner = found["Config"]["Labels"]["ds01.owner"]
        for mount in found["Mounts"]:
            volume = world.ask("GET", f"{API}/volumes/{mount.get('Name')}", user="root")
            labels = (volume.json.get("Labels") if volume.status == 200 else None) or {}
            played.unless(
                labels.get("ds01.owner") in (None, owner),
                f"round {number}: {owner} mounts a volume of {labels}",
            )


@play
def tag_at_once(world: World) -> Played:
    """Both make one tag: whoever was told it is theirs must have it, and the other must not move it."""
    played = Played(answers=[Answer(status=200)])
    for number in range(_ROUNDS):
        tag = "/images/busybox/tag?repo=team/raced"  # names of one part are each user's own
        answers = together(world, [("alice", _post(tag)), ("bob", _post(tag)), ("alice", _post(tag))])
        winners = {user for user, answer in zip("aba", answers, strict=True) if answer.status == 201}
        played.unless(len(winners) == 1, f"round {number}: {winners or 'nobody'} got the tag")
        for user in ("alice", "bob"):
            world.ask("DELETE", f"{API}/images/team/raced", user=user)
    return played


@play
def network_at_once(world: World) -> Played:
    """Both make one network name: what each is given is their own."""
    played = Played(answers=[Answer(status=200)])
    for number in range(5):
        body = {"Name": "raced"}
        answers = together(
            world, [("alice", _post("/networks/create", body)), ("bob", _post("/networks/create", body))]
        )
        made = [answer.json["Id"] for answer in answers if answer.status == 201]
        played.unless(len(set(made)) == len(made), f"round {number}: both were given one network")
        for user in ("alice", "bob"):
            world.ask("DELETE", f"{API}/networks/raced", user=user)
    return played


@play
def container_name_at_once(world: World) -> Played:
    """Both make one container name at once: no answer holds the other's id."""
    played = Played(answers=[Answer(status=200)])
    for number in range(_ROUNDS):
        create = _post("/containers/create?name=raced", _IMAGE)
        answers = together(world, [("alice", create), ("bob", create)])
        made = [answer.json["Id"] for answer in answers if answer.status == 201]
        for answer in answers:
            if answer.status != 201:
                played.unless(
                    not any(container.encode() in answer.body for container in made),
                    f"round {number}: the loser was told the winner's id",
                )
        for user in ("alice", "bob"):
            world.ask("DELETE", f"{API}/containers/raced?force=1", user=user)
    return played


@play
def creates_at_once(world: World) -> Played:
    """Forty creates sent together leave no more containers than the policy's twenty."""
    answers = together(world, [("alice", _post("/containers/create", _IMAGE))] * 40)
    listed = world.ask("GET", f"{API}/containers/json?all=1").json
    played = Played(answers=[Answer(status=200)])
    made = sum(answer.status == 201 for answer in answers)
    played.unless(len(listed) <= 20, f"{len(listed)} containers, the limit is 20")
    played.unless(made == 19, f"{made} were made beside `mine`: the limit is 20")
    return played


@play
def gpus_at_once(world: World) -> Played:
    """Ten creates with one GPU each, sent together by one user who may have one: one lease, and one container with it."""
    body = {**_IMAGE, "HostConfig": {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]}}
    answers = together(world, [("alice", _post("/containers/create", body))] * 10)
    played = Played(answers=[Answer(status=200)])
    made = [answer.json["Id"] for answer in answers if answer.status == 201]
    played.unless(len(made) == 1, f"{len(made)} containers with a GPU, the limit is 1")
    held = world.ask("GET", "/ds01/v1/whoami").json["usage"]["gpus"]
    played.unless(held == len(made), f"{held} GPUs are held by {len(made)} containers")
    return played


@play
def lease_leak(world: World) -> Played:
    """Clients that leave at any byte of a create with a GPU: afterwards as many GPUs are held as containers hold them."""
    body = {**_IMAGE, "HostConfig": {"DeviceRequests": [{"Count": 1, "Capabilities": [["gpu"]]}]}}
    data = _post("/containers/create", body)
    for number in range(30):
        with connected(world.socket("alice"), world.alice) as client:
            client.sendall(data[: len(data) * (number + 1) // 25] if number < 20 else data)
    played = Played(answers=[Answer(status=200)])
    _settled(world)
    played.unless(eventually(lambda: _held_is_carried(world)), "GPUs are held that no container has")
    return played


def _settled(world: World) -> None:
    """Wait until no more containers come: what was sent is carried out though its client has left."""
    seen = -1
    while seen != (seen := len(world.root("GET", "/containers/json?all=1"))):
        time.sleep(1)


def _held_is_carried(world: World) -> bool:
    held = world.ask("GET", "/ds01/v1/whoami").json["usage"]["gpus"]
    listed = world.ask("GET", f"{API}/containers/json?all=1", user="root").json
    carried = [item for item in listed if item["Labels"].get("ds01.lease")]
    return bool(held == len(carried) <= 1)


def eventually(check: Callable[[], bool], seconds: float = 15) -> bool:
    """Whether `check` becomes true in time."""
    ended = threading.Event()
    for _ in range(int(seconds * 10)):
        if check():
            return True
        ended.wait(0.1)
    return False
