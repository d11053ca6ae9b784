"""Names are each user's own: whatever clients do, the names inside dockerd do not show, and nobody waits for a name."""

from __future__ import annotations

import itertools
import pwd
import re
import shutil
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import docker
import pytest
from docker.errors import APIError

from tests.fakes.tap import Tap, tapped
from tests.integration.conftest import DOCKER_PY, Lab, Result, eventually, needs_compose

pytestmark = [
    pytest.mark.dockerd,
    pytest.mark.timeout(600),
    *DOCKER_PY,
]


@pytest.fixture(scope="module")
def tap(lab: Lab) -> Iterator[Tap]:
    """Every byte between alice's clients and her socket."""
    with tapped(lab.root / "tap.sock", lab.root / "run" / "users" / lab.alice / "docker.sock") as running:
        yield running


@pytest.fixture(scope="module")
def prefix(lab: Lab) -> bytes:
    return f"u{pwd.getpwnam(lab.alice).pw_uid}.".encode()


@pytest.fixture
def things(clean_lab: Lab, tap: Tap) -> Lab:
    """A network, a volume, and containers that use both, by alice, through the tap."""
    lab = clean_lab
    for words in (
        "network create app",
        "network create spare",
        "volume create data",
        "run -d --name db --network app -v data:/data -p 18761:80 -l note=own busybox sleep 900",
        "run -d --name web --network app --link db:database --volumes-from db busybox sleep 900",
        "run -d --name lone busybox sleep 900",
        "run -d --name linked --link lone:other --mount type=volume,src=data,dst=/d busybox sleep 900",
        "create --name stopped busybox true",
        "create --name crowded -p 18761:80 busybox true",
    ):
        made = lab.docker(lab.alice, *words.split(), host=tap.address)
        assert made.status == 0, made.err
    return lab


def assert_nothing_shows(tap: Tap, prefix: bytes, what: str) -> bytes:
    """No name inside dockerd in what came back; gives all of it."""
    talks = tap.take()
    for sent, got in talks:
        at = got.find(prefix)
        assert at < 0, (
            f"{what}: {got[max(0, at - 200) : at + 80]!r} after {re.findall(rb'[A-Z]+ /[^ ]+', sent)[-3:]}"
        )
    return b"".join(got for _, got in talks)


READS = (
    "ps -a --no-trunc", "ps -a --size", "ps -aq --filter name=^web$", "ps --filter volume=data", "ps --filter network=app",
    "ps -a --filter since=db", "ps -n 2", "inspect db", "inspect web", "inspect linked", "inspect lone", "inspect app",
    "inspect data", "container inspect crowded", "network inspect app", "network inspect bridge", "network ls --no-trunc",
    "network ls --filter name=app", "volume inspect data", "volume ls", "volume ls --filter name=^da",
    "volume ls --filter dangling=true", "system df -v", "info", "stats --no-stream", "top web", "logs web", "port db",
    "diff web", "events --since 0 --until 0s", "events --since 0 --until 0s --filter container=web",
    "events --since 0 --until 0s --filter network=app --filter volume=data", "exec web env", "exec web cat /etc/hostname",
)  # fmt: skip

# Each is refused, by dockerd or by ds01, and says so with names.
REFUSED = (
    "create --name db busybox", "run --name web busybox true", "rename web db", "network create app", "network rm app",
    "volume rm data", "rm db", "start crowded", "cp db:/nowhere -", "cp web:/etc/passwd /nowhere/at/all/x", "cp nobody:/x -",
    "exec stopped true", "exec db nosuchprogram", "kill stopped", "unpause web", "network connect app web",
    "network disconnect spare web", "network disconnect app lone", "network inspect nothing", "volume inspect nothing",
    "inspect nothing", "volume rm nothing", "rm nothing", "rename nothing thing", "create --network nothing busybox",
    "create --volumes-from nothing busybox", "create --name x busybox", "volume create x", "create --name a/b busybox",
    "run --rm --network app --ip 10.1.2.3 busybox true", "create --name u1.web -v /etc:/x busybox", "attach stopped",
    "network connect bridge nothing", "create --link nothing:x busybox", "run --rm --network container:stopped busybox true",
)  # fmt: skip

CHANGES = (
    "rename web api", "inspect api", "network connect spare api", "network inspect spare", "network disconnect app api",
    "inspect api", "network connect --alias more app api", "pause api", "unpause api", "update -m 64m api",
    "restart -t 0 api", "stop -t 0 api", "start api", "kill api", "wait api", "commit api ownimage", "rmi ownimage",
    "run --rm --name once --network app --volumes-from db busybox ping -c1 db", "run --rm -v data:/x busybox ls /x",
    "run -d --name copy --network container:db busybox sleep 9", "inspect copy", "rm -f copy", "volume create data",
    "volume create", "network create --internal lonely", "events --since 0 --until 0s", "rm -f api linked stopped crowded",
    "volume prune -f", "network prune -f", "container prune -f", "system prune -f --volumes", "rm -f db lone",
    "volume rm data", "network rm app", "system prune -af --volumes", "events --since 0 --until 0s",
)  # fmt: skip


def test_nothing_that_is_read_shows_a_name_inside_dockerd(things: Lab, tap: Tap, prefix: bytes) -> None:
    """Lists, inspect answers, statistics, events, disk usage."""
    assert_nothing_shows(tap, prefix, "making them")
    for words in READS:
        done = things.docker(things.alice, *words.split(), host=tap.address)
        assert done.status == 0, (words, done.err)
        got = assert_nothing_shows(tap, prefix, words)
        assert b"HTTP/1.1 200 OK" in got, "the tap records"


def test_no_refusal_shows_a_name_inside_dockerd(things: Lab, tap: Tap, prefix: bytes) -> None:
    """Conflicts, what is in use, what failed to start, what is not there."""
    for words in REFUSED:
        done = things.docker(things.alice, *words.split(), host=tap.address)
        assert done.status != 0, words
        assert_nothing_shows(tap, prefix, words)
    failed = things.docker(things.alice, "inspect", "crowded", host=tap.address)
    assert "endpoint crowded" in failed.out, (
        "dockerd's words on the failed start are kept, with the plain name"
    )
    assert_nothing_shows(tap, prefix, "inspect of a failed start")


def test_no_change_shows_a_name_inside_dockerd(things: Lab, tap: Tap, prefix: bytes) -> None:
    """Renames, joining and leaving networks, removals and prune reports, and the events of it all."""
    for words in CHANGES:
        done = things.docker(things.alice, *words.split(), host=tap.address)
        assert done.status == 0 or words.startswith(("wait", "network rm", "volume rm")), (words, done.err)
        assert_nothing_shows(tap, prefix, words)


def test_an_sdk_sees_no_name_inside_dockerd(things: Lab, tap: Tap, prefix: bytes) -> None:
    """docker-py, the streams of statistics and events and the raw answers included."""
    client = docker.DockerClient(base_url=tap.address, timeout=60)
    stream = client.events(decode=True, filters={"container": "web"})
    client.containers.get("web").restart(timeout=0)
    assert next(stream)["Actor"]["Attributes"]["name"] == "web"
    stream.close()
    statistics = client.containers.get("web").stats(stream=True, decode=True)
    assert [each["name"] for each in itertools.islice(statistics, 2)] == ["/web", "/web"]
    assert client.api.inspect_container("web")["HostConfig"]["NetworkMode"] == "app"
    assert client.df()["Volumes"][0]["Name"] == "data"
    assert [each.name for each in client.networks.list(names=["^app$"])] == ["app"]
    assert [each.name for each in client.containers.list(filters={"name": "^/web$"})] == ["web"]
    assert [
        each.name for each in client.containers.list(all=True, filters={"name": ["w.b$", "^lo"]}, limit=1)
    ] == ["lone"]
    with pytest.raises(APIError, match="already in use"):
        client.containers.create("busybox", name="web")
    with pytest.raises(APIError):
        client.containers.get("crowded").start()
    assert client.api.wait("crowded", timeout=5)["StatusCode"] in (0, 128)
    client.containers.get("web").remove(force=True)
    client.networks.prune()
    client.close()
    assert_nothing_shows(tap, prefix, "docker-py")


def test_the_tap_finds_what_shows(things: Lab, prefix: bytes) -> None:
    """Behind the admin's socket the same list holds the names inside dockerd."""
    with tapped(things.root / "admin-tap.sock", things.root / "run" / "admin.sock") as admin:
        shown = things.docker("root", "ps", "-a", "--format", "{{.Names}}", host=admin.address).out.split()
        assert f"{prefix.decode()}db" in shown
        with pytest.raises(AssertionError, match="ps"):
            assert_nothing_shows(admin, prefix, "ps")


def test_plain_names_resolve_between_containers(things: Lab) -> None:
    """DNS on a user-defined network: at create, after joining, and for the links of the default bridge."""
    lab = things
    assert lab.docker(lab.alice, "exec", "web", "ping", "-c1", "db").status == 0
    assert lab.docker(lab.alice, "exec", "db", "ping", "-c1", "web").status == 0
    assert lab.docker(lab.alice, "exec", "web", "ping", "-c1", "database").status == 0
    # Containers of the default bridge do not reach each other here, but know the address.
    assert "PING other (" in lab.docker(lab.alice, "exec", "linked", "ping", "-c1", "-W1", "other").out
    lab.ok(lab.alice, "network", "connect", "spare", "web")
    lab.ok(lab.alice, "network", "connect", "spare", "lone")
    assert lab.docker(lab.alice, "exec", "lone", "ping", "-c1", "web").status == 0
    assert lab.docker(lab.alice, "exec", "web", "ping", "-c1", "lone").status == 0
    lab.ok(
        lab.alice,
        "create",
        "--name",
        "early",
        "--network",
        "app",
        "--network-alias",
        "kept",
        "busybox",
        "sleep",
        "900",
    )
    lab.ok(lab.alice, "rename", "early", "late")
    lab.ok(lab.alice, "start", "late")
    for name in ("late", "kept"):
        assert lab.docker(lab.alice, "exec", "web", "ping", "-c1", name).status == 0, name


def test_the_volume_vscode_is_one_for_each_user(clean_lab: Lab) -> None:
    """VS Code mounts it for everybody."""
    lab = clean_lab
    mount = ("--mount", "type=volume,source=vscode,target=/vscode")
    for user in (lab.alice, lab.bob):
        lab.ok(user, "run", "--rm", *mount, "busybox", "sh", "-c", f"echo {user} >> /vscode/who")
    for user in (lab.alice, lab.bob):
        assert lab.ok(user, "run", "--rm", *mount, "busybox", "cat", "/vscode/who") == user
        assert lab.ok(user, "volume", "ls", "-q", "--filter", "name=^vscode$") == "vscode"


def test_an_admin_goes_by_both_names(clean_lab: Lab) -> None:
    """Root names own things plainly, others' as they are inside dockerd, and renames within the owner's namespace."""
    lab, uid = clean_lab, pwd.getpwnam(clean_lab.alice).pw_uid
    admin = f"unix://{lab.root}/run/admin.sock"

    def root(*words: str) -> str:
        done = lab.docker("root", *words, host=admin)
        assert done.status == 0, (words, done.err)
        return done.out.strip()

    theirs = lab.ok(lab.alice, "create", "--name", "web", "busybox", "true")
    own = root("create", "--name", "web", "busybox", "true")
    try:
        assert root("inspect", "-f", "{{.Id}} {{.Name}}", "web") == f"{own} /web"
        assert root("inspect", "-f", "{{.Id}}", "u0.web") == own
        assert root("inspect", "-f", "{{.Id}} {{.Name}}", f"u{uid}.web") == f"{theirs} /u{uid}.web"
        assert set(root("ps", "-a", "--format", "{{.Names}}", "--filter", "name=web$").split()) == {
            "web",
            f"u{uid}.web",
        }
        root("rename", f"u{uid}.web", "api")
        assert lab.ok(lab.alice, "ps", "-a", "--format", "{{.Names}}") == "api"
        root("rename", f"u{uid}.api", f"u{uid}.web")
        assert lab.ok(lab.alice, "inspect", "-f", "{{.Name}}", "web") == "/web"
    finally:
        root("rm", "-f", own)


def test_a_name_that_dockerd_made_up_is_a_name(clean_lab: Lab) -> None:
    """It is shown, found, filtered by, and taken for whoever has it."""
    lab = clean_lab
    made = lab.ok(lab.alice, "create", "busybox", "true")
    name = lab.ok(lab.alice, "ps", "-a", "--format", "{{.Names}}")
    assert lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", name) == made
    assert lab.ok(lab.alice, "ps", "-aq", "--no-trunc", "--filter", f"name=^{name}$") == made
    again = lab.docker(lab.alice, "create", "--name", name, "busybox")
    assert f'The container name "/{name}" is already in use by container "{made}"' in again.err
    assert lab.docker(lab.bob, "create", "--name", name, "busybox").status == 0
    assert lab.docker(lab.bob, "inspect", made).status != 0
    lab.ok(lab.alice, "rename", name, "mine")
    assert lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", "mine") == made


PROJECT = """
version: "2.4"
services:
  web:
    image: busybox
    container_name: web
    command: sh -c 'hostname -i > /state/address; httpd -f -p 80 -h /state'
    volumes: ["state:/state", "/scratch"]
    labels: {who: "WHO"}
  worker:
    image: busybox
    command: sleep 600
    depends_on: [web]
    links: ["web:front"]
    volumes: [shared:/shared]
volumes: {state: {}, shared: {name: shared}}
networks: {default: {name: office}}
"""


def compose(lab: Lab, user: str, *words: str, host: str | None = None) -> Result:
    return lab.run(user, "docker-compose", *words, cwd=Path("/home", user, "shop"), seconds=110, host=host)


@pytest.fixture
def projects(clean_lab: Lab) -> Iterator[Lab]:
    """The same project in both homes."""
    lab = clean_lab
    for user in (lab.alice, lab.bob):
        directory = Path("/home", user, "shop")
        directory.mkdir()
        (directory / "docker-compose.yml").write_text(PROJECT.replace("WHO", user))
        shutil.chown(directory, user, user)
    yield lab
    for user in (lab.alice, lab.bob):
        compose(lab, user, "down", "-v")
        shutil.rmtree(Path("/home", user, "shop"))


@needs_compose
def test_two_users_run_the_same_project_at_once(projects: Lab, tap: Tap, prefix: bytes) -> None:
    """Same project, container_name, network name and volume names; each has the own, and neither sees the other's."""
    lab = projects
    doors = {lab.alice: tap.address, lab.bob: None}
    tap.take()

    def both(*words: str) -> dict[str, Result]:
        with ThreadPoolExecutor(2) as workers:
            results = workers.map(lambda user: compose(lab, user, *words, host=doors[user]), doors)
        done = dict(zip(doors, results, strict=True))
        for user, result in done.items():
            assert result.status == 0, (user, words, result.out + result.err)
        return done

    both("up", "-d")
    assert b"shop_worker_1" in assert_nothing_shows(tap, prefix, "compose up")
    for user in doors:
        names = lab.ok(user, "ps", "--format", "{{.Names}}").split()
        assert sorted(names) == ["shop_worker_1", "web"]
        assert lab.ok(user, "inspect", "-f", "{{.Config.Labels.who}}", "web") == user
        assert lab.ok(user, "volume", "ls", "-q", "--filter", "name=s[ht]a").split() == [
            "shared",
            "shop_state",
        ]
        assert "office" in lab.ok(user, "network", "ls", "--format", "{{.Name}}").split()
    for alias in ("web", "front"):
        for user, answer in both("exec", "-T", "worker", "wget", "-qO-", f"http://{alias}/address").items():
            address = "{{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
            assert answer.out.strip() == lab.ok(user, "inspect", "-f", address, "web")
    for user, again in both("up", "-d").items():
        assert "ecreating" not in again.err, (user, "what ds01 writes must not look like a change")
    if "ContainerConfig" in lab.ok(
        lab.alice, "image", "inspect", "busybox"
    ):  # compose 1 cannot recreate without
        both("up", "-d", "--force-recreate", "-t", "0")
    both("restart", "-t", "0")
    both("ps")
    both("logs", "--no-color")
    assert_nothing_shows(tap, prefix, "compose at work")
    assert compose(lab, lab.alice, "down", "-v", "-t", "0", host=tap.address).status == 0
    assert_nothing_shows(tap, prefix, "compose down")
    assert eventually(lambda: not lab.ok(lab.alice, "ps", "-aq"), seconds=10)
    left = lab.ok(lab.alice, "volume", "ls", "-q").split()
    assert not {"shop_state", "shared"} & {*left}, "but for the unnamed one, which its second container names"
    assert len(lab.ok(lab.bob, "ps", "-q").split()) == 2, "alice's down took nothing of bob's"
    assert compose(lab, lab.bob, "down", "-v", "-t", "0").status == 0


def test_a_costly_name_filter_stops_nobody(clean_lab: Lab) -> None:
    """It is refused or answered, and quickly."""
    lab = clean_lab
    for number in range(20):
        lab.ok(lab.alice, "volume", "create", "a" * 200 + str(number))
    began = time.monotonic()
    for expression in ("(a+)+$b", "(a|aa)+b", "(a?){500}b", r"(\pL?){900}", "(" * 900):
        lab.docker(lab.alice, "volume", "ls", "--filter", f"name={expression}")
    assert time.monotonic() - began < 5
