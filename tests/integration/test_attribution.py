"""Attribution beside a real dockerd: in a container of ds01's, in one made past it, on the host, and just ended."""

from __future__ import annotations

import json
import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from allocator.adoption import Evidence, HostFacts, Person, paths_to_ask, read_inspect, whose
from allocator.attribution import Kind, Seen
from allocator.attributor import Attributed, Attributor, Running
from allocator.held_devices import Held, held
from allocator.model import Moment
from allocator.processes import Processes
from host.clock import boot_id, boottime_ms
from policy.model import ContainerId, DeviceUuid, Uid
from tests.fakes.waiting import running
from tests.integration.conftest import PREFIX, Lab, engine_opened, running_lab

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(300)]
PIDS_CGROUP = Path("/sys/fs/cgroup/pids")
GPU = DeviceUuid("GPU-0")


class Engine:
    """dockerd's own word on what runs, as the proxy would pass it on."""

    def __init__(self, lab: Lab, socket: Path) -> None:
        self.lab = lab
        self.host = f"unix://{socket}"

    def docker(self, *words: str) -> str:
        done = self.lab.run("root", "docker", *words, host=self.host)
        assert done.status == 0, done.err
        return done.out.strip()

    def inspect(self, name: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.docker("inspect", name))
        return found[0]

    async def running(self) -> tuple[Running, ...] | None:
        found = [self.inspect(container) for container in self.docker("ps", "-q").split()]
        return tuple(
            Running(id=ContainerId(one["Id"]), pid=one["State"]["Pid"], owner=self.owner(one))
            for one in found
        )

    @staticmethod
    def owner(inspect: dict[str, Any]) -> Uid | None:
        uid = inspect["Config"]["Labels"].get("ds01.uid")
        return Uid(int(uid)) if uid else None

    def processes(self, name: str) -> list[int]:
        """Host pids of a container's processes."""
        return [int(line.split()[1]) for line in self.docker("top", name).splitlines()[1:]]


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose break-glass these tests use."""
    with running_lab(f"{PREFIX}-ata", f"{PREFIX}-atb") as running_one:
        yield running_one


@pytest.fixture
def engine(clean: Lab) -> Iterator[Engine]:
    with engine_opened(clean, "tests of attribution") as socket:
        made = Engine(clean, socket)
        yield made
        for name in made.docker("ps", "-aq", "--filter", "name=foreign").split():
            made.docker("rm", "-f", name)


@pytest.fixture
def attributor(engine: Engine) -> Iterator[Attributor]:
    processes = Processes(boot_id=boot_id())
    now = lambda: Moment(utc="", boottime_ms=boottime_ms(), boot_id=boot_id())  # noqa: E731  one line says it
    yield Attributor(processes=processes, containers=engine, now=now)
    processes.close()


def by_pid(told: tuple[Attributed, ...]) -> dict[int, Attributed]:
    return {one.seen.pid: one for one in told}


async def test_each_process_is_told(clean: Lab, engine: Engine, attributor: Attributor) -> None:
    """All four of them, execs too, and what has ended under the name it had."""
    lab, alice = clean, Uid(pwd.getpwnam(clean.alice).pw_uid)
    lab.ok(lab.alice, "run", "-d", "--name", "train", "busybox", "sleep", "300")
    lab.ok(lab.alice, "exec", "-d", "train", "sleep", "301")
    own = lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", "train")
    engine.docker(
        "run", "-d", "--runtime", "runc", "--name", "foreign", "--network", "none", "busybox", "sleep", "302"
    )
    first, executed = sorted(engine.processes(own))
    (foreign,) = engine.processes("foreign")
    with running() as host, running(*lab.command(lab.alice, "sleep", "60")) as person:
        pids = (first, executed, foreign, host.pid, person.pid)
        told = by_pid(await attributor.attribute([Seen(pid=pid, device=GPU) for pid in pids]))
        for pid in (first, executed):
            found = told[pid].attribution
            assert (found.kind, found.owner, found.container) == (Kind.CONTAINER, alice, own)
        assert (told[foreign].attribution.kind, told[foreign].attribution.owner) == (Kind.CONTAINER, None)
        assert told[foreign].attribution.container == engine.inspect("foreign")["Id"]
        assert told[host.pid].attribution.kind is not Kind.CONTAINER
        assert told[person.pid].attribution.owner == alice
    lab.ok(lab.alice, "rm", "-f", "train")
    gone = by_pid(await attributor.attribute([]))
    assert (gone[first].attribution.owner, gone[first].attribution.container) == (alice, own)
    assert gone[first].ended is not None


@pytest.mark.skipif(not PIDS_CGROUP.is_dir(), reason="needs a cgroup v1 hierarchy of pids")
async def test_a_container_is_not_named_into_ones_own(
    clean: Lab, engine: Engine, attributor: Attributor
) -> None:
    """A cgroup that has a container's name, elsewhere, is not that container."""
    lab = clean
    lab.ok(lab.alice, "run", "-d", "--name", "train", "busybox", "sleep", "300")
    own = lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", "train")
    forged = PIDS_CGROUP / f"ds01-{os.getpid()}-{own}"
    forged.mkdir()
    try:
        with running() as forger:
            (forged / "cgroup.procs").write_text(str(forger.pid))
            (told,) = await attributor.attribute([Seen(pid=forger.pid, device=GPU)])
        assert (told.attribution.kind, told.attribution.owner) == (Kind.OTHER_CONTAINER, None)
    finally:
        forged.rmdir()


def test_a_foreign_container_shows_whose_it_is_and_what_it_has(clean: Lab, engine: Engine) -> None:
    """From dockerd's own inspect: the name, then the home that is mounted; no GPU, or all of them."""
    account = pwd.getpwnam(clean.alice)
    alice = Person(uid=Uid(account.pw_uid), name=account.pw_name, home=account.pw_dir)
    engine.docker("create", "--name", f"foreign._.{alice.uid}", "busybox")
    engine.docker(
        "create",
        "--name",
        "foreign-home",
        "-v",
        f"{alice.home}:/work",
        "--device-cgroup-rule",
        "c 195:* rwm",
        "busybox",
    )
    for name, evidence, has in (
        (f"foreign._.{alice.uid}", Evidence.NAME, Held()),
        ("foreign-home", Evidence.HOME_MOUNT, Held(everything=True)),
    ):
        inspect = engine.inspect(name)
        container = read_inspect(inspect)
        owners = {path: Uid(Path(path).lstat().st_uid) for path in paths_to_ask(container)}
        found = whose(container, HostFacts(people=[alice], path_owners=owners), sealed=None)
        assert (found.owner, found.evidence) == (alice.uid, evidence)
        assert held(inspect) == has
