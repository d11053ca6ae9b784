"""Images that bring more than a file system: tars that name others' tags, builds and commits that carry labels."""

from __future__ import annotations

import gzip as compression
import io
import json
import socket
import tarfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from tests.attacks.matching import differences
from tests.attacks.plays.played import Played, World, play
from tests.attacks.world import API
from tests.fakes.raw_socket import Answer, connected, exchange, read_answer, request

_TAR = {"Content-Type": "application/x-tar"}


def _tar(*members: tuple[str, bytes], link: str = "") -> bytes:
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        if link:
            info = tarfile.TarInfo(link)
            info.type, info.linkname = tarfile.SYMTYPE, "x.json"
            archive.addfile(info)
    return spool.getvalue()


def _naming(name: str, tags: Sequence[str], key: str) -> bytes:
    """The member that names tags, in the form that its name asks for."""
    if name.endswith("repositories"):
        document: Any = {tag.partition(":")[0]: {tag.partition(":")[2]: "0" * 64} for tag in tags}
    elif name.endswith("index.json"):
        document = {"manifests": [{"annotations": {"io.containerd.image.name": tag}} for tag in tags]}
    else:
        document = [{"Config": "c.json", key: list(tags), "Layers": []}]
    return json.dumps(document).encode()


@play
def loaded(
    world: World,
    *,
    tags: Sequence[str],
    name: str = "manifest.json",
    key: str = "RepoTags",
    second: Sequence[str] = (),
    link: bool = False,
    gzip: bool = False,
) -> Played:
    """`docker load` of a tar whose member `name` names `tags`. second: the tags of one more such member behind it."""
    config = ("c.json", b'{"rootfs":{"type":"layers"}}')
    naming = "x.json" if link else name
    members = [config, (naming, _naming(name, tags, key))]
    if second:
        members.append((name, _naming(name, second, key)))
    data = _tar(*members, link=name if link else "")
    sent = request("POST", f"{API}/images/load", compression.compress(data) if gzip else data, headers=_TAR)
    return Played(answers=[exchange(world.socket("alice"), world.alice, sent)])


def build(world: World, dockerfile: str, query: str = "", *, user: str = "alice") -> Answer:
    """A classic build of `dockerfile` as the tag `forged`."""
    target = f"{API}/build?t=forged&rm=1&forcerm=1{'&' if query else ''}{query}"
    sent = request("POST", target, _tar(("Dockerfile", dockerfile.encode())), headers=_TAR)
    return exchange(world.socket(user), world.account(user), sent, seconds=60)


def _differs(world: World, answer: Answer, becomes: Mapping[str, Any]) -> list[str]:
    return differences(world.root("GET", f"/containers/{answer.json['Id']}/json"), becomes)


@play
def built(world: World, *, dockerfile: str, becomes: Mapping[str, Any], query: str = "") -> Played:
    """A container of an image built from `dockerfile` must be as `becomes` says."""
    answer = build(world, dockerfile, query)
    made = world.must("alice", "POST", "/containers/create", {"Image": "forged"})
    return Played(answers=[answer], harm=_differs(world, made, becomes))


@play
def inspected(world: World, *, container: str, becomes: Mapping[str, Any]) -> Played:
    """Root looks at a container that earlier steps have changed. `container` is an id, or a name of alice's."""
    found = world.must("alice", "GET", f"/containers/{container}/json")
    return Played(answers=[found], harm=_differs(world, found, becomes))


@play
def sealed_image(world: World) -> Played:
    """What a container of alice's is committed to must not hand its seal to whoever builds on it."""
    world.must("alice", "POST", "/commit?container=mine&repo=team/forged", {})
    image = world.root("GET", "/images/team/forged/json")
    labels = image["Config"]["Labels"] or {}
    played = Played(answers=[Answer(status=201)])
    played.unless(not labels.get("ds01.seal"), f"the image carries a seal: {labels}")
    return played


@play
def build_cgroup(world: World) -> Played:
    """A build that names a cgroup, and whose step prints the one it is in."""
    dockerfile = (
        "FROM busybox\nRUN cat /proc/self/cgroup && cat /sys/fs/cgroup/memory/memory.limit_in_bytes || true\n"
    )
    answer = build(world, dockerfile, "cgroupparent=/system.slice&memory=-1")
    played = Played(answers=[answer])
    text = answer.body.decode(errors="replace")
    played.unless("system.slice" not in text, f"the step is in the system's cgroup: {text}")
    return played


@play
def build_step_of_bob(world: World) -> Played:
    """While a step runs whose Dockerfile labels it as bob's, bob must not be shown it, nor be charged for it."""
    dockerfile = f"FROM busybox\nLABEL ds01.owner={world.bob} ds01.uid={world.words['bobuid']} ds01.managed=true\nRUN sleep 3\n"
    before = world.ask("GET", f"{API}/containers/json?all=1", user="bob").json
    of_all = len(world.root("GET", "/containers/json?all=1"))
    target = f"{API}/build?t=forged&rm=1&forcerm=1"
    sent = request("POST", target, _tar(("Dockerfile", dockerfile.encode())), headers=_TAR)
    shown: list[str] = []
    running = 0
    with connected(world.socket("alice"), world.alice) as client:
        client.sendall(sent)
        for _ in range(20):
            now = world.ask("GET", f"{API}/containers/json?all=1", user="bob").json
            shown += [item["Id"] for item in now if item["Id"] not in {old["Id"] for old in before}]
            running = max(running, len(world.root("GET", "/containers/json?all=1")))
            time.sleep(0.1)
        played = Played(answers=[read_answer(client)])
    played.unless(not shown, f"bob is shown alice's build step: {shown}")
    played.unless(running > of_all, "the step was never seen: this proves nothing")
    return played


@play
def endless_load(world: World) -> Played:
    """A tar that is announced with 900 TB: it must be refused before the disk under the spool is full."""
    head = (
        f"POST {API}/images/load HTTP/1.1\r\nHost: d\r\nContent-Type: application/x-tar\r\n"
        f"Content-Length: {900 * 10**12}\r\n\r\n"
    )
    return Played(
        answers=[exchange(world.socket("alice"), world.alice, head.encode() + b"\0" * 65536, seconds=5)]
    )


@play
def fetched(world: World, *, dockerfile: str) -> Played:
    """A build whose `{here}` is an address of this machine where somebody listens: the engine must not come there."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.2)
        played = Played(answers=[build(world, dockerfile.format(here=listening.getsockname()[1]))])
        with suppress(TimeoutError):
            listening.accept()[0].close()
            played.harm.append("the engine came to the address")
    return played
