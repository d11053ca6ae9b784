"""The hostile user: each row tries to get out, and is judged by what the engine and the host say, not by a status alone."""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.fakes.raw_socket import Answer, ask, connected, exchange, read_answer, request

SECRET = "bobs-secret-9d1c"  # in bob's environment, label and home: alice must never read it


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """What is there to be stolen. `words` are the placeholders that rows use."""

    root: Path
    alice: str
    bob: str
    words: dict[str, str]

    def socket(self, user: str) -> Path:
        return self.root / "run" / "users" / user / "docker.sock"

    def fill(self, text: str) -> str:
        for word, value in self.words.items():
            text = text.replace(f"<{word}>", value)
        return text

    def ask(self, method: str, target: str, body: object = None) -> Answer:
        """As alice."""
        filled = json.loads(self.fill(json.dumps(body))) if body is not None else None
        return ask(self.socket(self.alice), self.alice, method, self.fill(target), filled)

    def engine(self, target: str, method: str = "GET", body: object = None) -> Answer:
        """As root, who sees all."""
        return ask(self.root / "run" / "admin.sock", "root", method, self.fill(target), body)

    def state(self) -> list[object]:
        """Everything the engine holds, as far as a refused request must not change it."""
        containers = self.engine("/v1.41/containers/json?all=1").json
        volumes = self.engine("/v1.41/volumes").json["Volumes"] or []
        images = self.engine("/v1.41/images/json?all=1").json
        return [
            sorted((item["Id"], item["State"], *item["Names"]) for item in containers),
            sorted(item["Name"] for item in volumes),
            sorted((item["Id"], item["Name"], *item["Containers"]) for item in self._networks()),
            sorted((item["Id"], *(item["RepoTags"] or ())) for item in images),
        ]

    def _networks(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.engine("/v1.41/networks").json
        return [self.engine(f"/v1.41/networks/{item['Id']}").json for item in found]


@pytest.fixture(scope="module")
def world(lab: object) -> Iterator[World]:
    """Bob's container, exec, volume, network, tag and home; alice's own running container."""
    root, alice, bob = lab.root, lab.alice, lab.bob  # type: ignore[attr-defined]  # the session's Lab
    lab.clean()  # type: ignore[attr-defined]  # as above
    bobs = root / "run" / "users" / bob / "docker.sock"

    def as_bob(method: str, target: str, body: object = None) -> Answer:
        answer = ask(bobs, bob, method, f"/v1.41{target}", body)
        assert answer.status < 300, answer.body
        return answer

    secret = Path(f"/home/{bob}/secret")
    secret.mkdir(mode=0o700)
    (secret / "file").write_text(SECRET)
    shutil.chown(secret, bob, bob)
    Path(f"/home/{bob}").chmod(0o711)
    body = {
        "Image": "busybox",
        "Cmd": ["sleep", "600"],
        "Env": [f"TOKEN={SECRET}"],
        "Labels": {"mark": SECRET},
        "HostConfig": {"Binds": ["bobv:/v"]},
    }
    made = as_bob("POST", "/containers/create?name=bobc", body).json["Id"]
    as_bob("POST", "/containers/bobc/start")
    executed = as_bob("POST", "/containers/bobc/exec", {"Cmd": ["sleep", "1"]}).json["Id"]
    network = as_bob("POST", "/networks/create", {"Name": "bobn"}).json["Id"]
    as_bob("POST", "/images/busybox:latest/tag?repo=bobimg")
    mine = {"Image": "busybox", "Cmd": ["sleep", "600"]}
    for target, sent in (("/containers/create?name=mine", mine), ("/containers/mine/start", None)):
        assert ask(root / "run" / "users" / alice / "docker.sock", alice, "POST", target, sent).status < 300
    world = World(root=root, alice=alice, bob=bob, words={})
    networks = {item["Name"]: item["Id"] for item in world.engine("/v1.41/networks").json}
    image = world.engine("/v1.41/images/busybox/json").json["Id"]
    world.words.update(
        bobc=made, short=made[:12], exec=executed, bobn=network, host=networks["host"], image=image
    )
    world.words["uid"] = str(pwd.getpwnam(alice).pw_uid)
    world.words.update(alice=f"/home/{alice}", bob=f"/home/{bob}", root=str(root))
    try:
        yield world
    finally:
        lab.docker(bob, "rmi", "bobimg")  # type: ignore[attr-defined]  # as above
        lab.clean()  # type: ignore[attr-defined]  # as above
        shutil.rmtree(secret, ignore_errors=True)


def filters(**given: str) -> str:
    return "filters=" + quote(json.dumps({key: {value: True} for key, value in given.items()}), safe="<>")


# --- creates ---------------------------------------------------------------------------------------------

HOST_CONFIGS: list[tuple[str, dict[str, object], str]] = [
    ("privileged", {"Privileged": True}, "privileged"),
    ("cap-all", {"CapAdd": ["ALL"]}, "capabilities"),
    ("cap-sys-admin", {"CapAdd": ["SYS_ADMIN"]}, "capabilities"),
    ("cap-lower-case", {"CapAdd": ["cap_sys_module"]}, "capabilities"),
    ("cap-dac-read-search", {"CapAdd": ["DAC_READ_SEARCH"]}, "capabilities"),
    ("pid-host", {"PidMode": "host"}, "namespaces"),
    ("pid-of-bob", {"PidMode": "container:bobc"}, "No such container"),
    ("pid-of-bob-by-id", {"PidMode": "container:<bobc>"}, "No such container"),
    ("ipc-of-bob", {"IpcMode": "container:<short>"}, "No such container"),
    ("uts-host", {"UTSMode": "host"}, "namespaces"),
    ("userns-host", {"UsernsMode": "host"}, "namespaces"),
    ("network-host", {"NetworkMode": "host"}, "network_mode"),
    ("network-host-by-id", {"NetworkMode": "<host>"}, "network_mode"),
    ("network-of-bob", {"NetworkMode": "bobn"}, "not found"),
    ("network-of-bob-by-id", {"NetworkMode": "<bobn>"}, "not found"),
    ("network-in-bobs-container", {"NetworkMode": "container:bobc"}, "No such container"),
    ("device-disk", {"Devices": [{"PathOnHost": "/dev/vda", "PathInContainer": "/d"}]}, "devices"),
    ("device-mem", {"Devices": [{"PathOnHost": "/dev/mem", "PathInContainer": "/d"}]}, "devices"),
    ("device-dots", {"Devices": [{"PathOnHost": "/dev/shm/../mem", "PathInContainer": "/d"}]}, "devices"),
    ("device-rules", {"DeviceCgroupRules": ["a *:* rwm"]}, "devices"),
    ("annotations-cdi", {"Annotations": {"cdi.k8s.io/gpu": "nvidia.com/gpu=all"}}, "rule"),
    ("runtime-shim", {"Runtime": "io.containerd.runc.v2"}, "runtime"),
    ("runtime-path", {"Runtime": "/usr/bin/runc"}, "runtime"),
    ("apparmor", {"SecurityOpt": ["label=disable", "writable-cgroups=true"]}, "security_opt"),
    ("sysctl-net", {"Sysctls": {"kernel.core_pattern": "|/x"}}, "sysctls"),
    ("log-syslog", {"LogConfig": {"Type": "syslog", "Config": {}}}, "log_config"),
    ("log-fluentd", {"LogConfig": {"Type": "fluentd", "Config": {}}}, "log_config"),
    ("group-disk", {"GroupAdd": ["6"]}, "groups"),
    ("volumes-from-bob", {"VolumesFrom": ["bobc"]}, "No such container"),
    ("volumes-from-bob-id", {"VolumesFrom": ["<bobc>:ro"]}, "No such container"),
    ("link-bob", {"Links": ["bobc:x"]}, "No such container"),
    ("bind-root", {"Binds": ["/:/x"]}, "mounts"),
    ("bind-etc", {"Binds": ["/etc:/x:ro"]}, "mounts"),
    ("bind-root-by-dots", {"Binds": ["<alice>/../../:/x"]}, "mounts"),
    ("bind-homes", {"Binds": ["/home:/x"]}, "mounts"),
    ("bind-bobs-home", {"Binds": ["<bob>:/x:ro"]}, "mounts"),
    ("bind-bobs-secret-by-dots", {"Binds": ["<alice>/..<bob>/secret:/x"]}, "mounts"),
    ("bind-proc-root", {"Binds": ["/proc/self/root:/x"]}, "mounts"),
    ("bind-proc-1-root", {"Binds": ["/proc/1/root/root:/x"]}, "mounts"),
    ("bind-var-lib-docker", {"Binds": ["/var/lib/docker:/x"]}, "mounts"),
    ("bind-lab", {"Binds": ["<root>/lib:/x"]}, "mounts"),
    ("bind-engine-socket", {"Binds": ["<root>/run/engine.sock:/x"]}, "mounts"),
    ("bind-front-door", {"Binds": ["<root>/run/docker.sock:/x"]}, "mounts"),
    ("bind-bobs-socket", {"Binds": ["<root>/run/users/bob/docker.sock:/x"]}, "mounts"),
    ("bind-link-to-bob", {"Binds": ["<alice>/to-bob:/x"]}, "mounts"),
    ("bind-link-to-etc", {"Binds": ["<alice>/to-etc:/x"]}, "mounts"),
    ("bind-link-to-proc", {"Binds": ["<alice>/to-proc:/x"]}, "mounts"),
    ("bind-socket-at-home", {"Binds": ["<alice>/a.sock:/x"]}, "mounts"),
    ("bind-fifo-at-home", {"Binds": ["<alice>/a.fifo:/x"]}, "mounts"),
    ("bind-unreadable-at-home", {"Binds": ["<alice>/of-root:/x"]}, "mounts"),
    ("bind-shared", {"Binds": ["<alice>:/x:rshared"]}, "mounts"),
    ("bind-relabel", {"Binds": ["<alice>:/x:Z"]}, "mounts"),
    ("bind-over-proc", {"Binds": ["<alice>:/proc/sys"]}, "mounts"),
    ("bind-gpu-by-mount", {"Binds": ["/dev/null:/var/run/nvidia-container-devices/all"]}, "mounts"),
    ("volume-of-bob", {"Binds": ["bobv:/x"]}, "not available"),
    ("mount-volume-of-bob", {"Mounts": [{"Type": "volume", "Source": "bobv", "Target": "/x"}]}, "not avail"),
    ("mount-etc", {"Mounts": [{"Type": "bind", "Source": "/etc", "Target": "/x"}]}, "mounts"),
    ("mount-link", {"Mounts": [{"Type": "bind", "Source": "<alice>/to-bob", "Target": "/x"}]}, "mounts"),
    (
        "mount-created-in-bobs-home",
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "<alice>/to-bob/new",
                    "Target": "/x",
                    "BindOptions": {"CreateMountpoint": True},
                }
            ]
        },
        "mounts",
    ),
    (
        "mount-shared",
        {
            "Mounts": [
                {
                    "Type": "bind",
                    "Source": "<alice>",
                    "Target": "/x",
                    "BindOptions": {"Propagation": "shared"},
                }
            ]
        },
        "mounts",
    ),
    (
        "mount-driver-bind",
        {
            "Mounts": [
                {
                    "Type": "volume",
                    "Target": "/x",
                    "VolumeOptions": {
                        "DriverConfig": {
                            "Name": "local",
                            "Options": {"type": "none", "o": "bind", "device": "/"},
                        }
                    },
                }
            ]
        },
        "mounts",
    ),
    (
        "mount-driver-plugin",
        {
            "Mounts": [
                {"Type": "volume", "Target": "/x", "VolumeOptions": {"DriverConfig": {"Name": "sshfs"}}}
            ]
        },
        "mounts",
    ),
    ("mount-npipe", {"Mounts": [{"Type": "npipe", "Source": "x", "Target": "/x"}]}, "mounts"),
    ("tmpfs-device", {"Tmpfs": {"/x": "dev,suid"}}, "mounts"),
    ("tmpfs-over-sys", {"Tmpfs": {"/sys": ""}}, "mounts"),
    ("volume-driver", {"VolumeDriver": "nfs", "Binds": ["x:/x"]}, "mounts"),
    ("gpus-too-many", {"DeviceRequests": [{"Count": 3, "Capabilities": [["gpu"]]}]}, "gpu"),
    ("ports-low", {"PortBindings": {"80/tcp": [{"HostPort": "22"}]}}, "ports"),
    ("realtime", {"CpuRealtimeRuntime": 950000}, "resources"),
    ("ulimit-rtprio", {"Ulimits": [{"Name": "rtprio", "Soft": 99, "Hard": 99}]}, "ulimits"),
]

BODIES: list[tuple[str, dict[str, object], str]] = [
    ("top-level-privileged", {"Privileged": True}, "Privileged"),
    ("top-level-binds", {"Binds": ["/:/x"]}, "Binds"),
    ("folded-host-config", {"hostconfig": {"Privileged": True}}, "spells"),
    ("long-s-host-config", {"Ho\u017ftConfig": {"Privileged": True}}, "spells"),
    ("kelvin-network-mode", {"HostConfig": {"Networ\u212aMode": "host"}}, "spells"),
    ("unknown-field", {"HostConfig": {"Superuser": True}}, "Superuser"),
    ("endpoint-host", {"NetworkingConfig": {"EndpointsConfig": {"host": {}}}}, "network_mode"),
    ("endpoint-host-by-id", {"NetworkingConfig": {"EndpointsConfig": {"<host>": {}}}}, "network_mode"),
    ("endpoint-of-bob", {"NetworkingConfig": {"EndpointsConfig": {"bobn": {}}}}, "not found"),
    (
        "endpoint-id-of-bob",
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"NetworkID": "<bobn>"}}}},
        "not found",
    ),
    (
        "endpoint-link-to-bob",
        {"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Links": ["bobc:x"]}}}},
        "No such container",
    ),
    ("mac", {"MacAddress": "02:42:ac:11:00:02"}, "network_mode"),
    ("volume-over-proc", {"Volumes": {"/proc": {}}}, "mounts"),
]


@pytest.fixture
def traps(world: World) -> Iterator[None]:
    """Links, a socket and what root left, in alice's home."""
    home = Path(world.words["alice"])
    links = {"to-bob": f"{world.words['bob']}/secret", "to-etc": "/etc", "to-proc": "/proc/self/root"}
    for name, target in links.items():
        (home / name).symlink_to(target)
    os.mkfifo(home / "a.fifo")
    os.mknod(home / "a.sock", 0o140777)
    (home / "of-root").mkdir(mode=0o700)
    yield
    for name in (*links, "a.fifo", "a.sock"):
        (home / name).unlink()
    (home / "of-root").rmdir()


@pytest.mark.parametrize(
    ("body", "says"),
    [pytest.param({"HostConfig": host}, says, id=name) for name, host, says in HOST_CONFIGS]
    + [pytest.param(body, says, id=name) for name, body, says in BODIES],
)
@pytest.mark.usefixtures("traps")
def test_a_create_that_reaches_out_is_refused_and_makes_nothing(
    world: World, body: dict[str, object], says: str
) -> None:
    """The refusal names its rule or speaks dockerd's words for what is absent, and the engine holds what it held."""
    before = world.state()
    answer = world.ask("POST", "/v1.41/containers/create", {"Image": "busybox", "Cmd": ["true"], **body})
    assert answer.status in (400, 403, 404, 409), answer.body
    assert says in answer.message
    assert world.state() == before


# --- calls on what is bob's ------------------------------------------------------------------------------

CONTAINER_CALLS = [
    ("GET", "json"),
    ("GET", "logs?stdout=1"),
    ("GET", "top"),
    ("GET", "stats?stream=0"),
    ("GET", "changes"),
    ("GET", "export"),
    ("GET", "archive?path=/"),
    ("PUT", "archive?path=/"),
    ("POST", "start"),
    ("POST", "stop?t=0"),
    ("POST", "restart?t=0"),
    ("POST", "kill"),
    ("POST", "pause"),
    ("POST", "unpause"),
    ("POST", "wait"),
    ("POST", "rename?name=x"),
    ("POST", "resize?h=1&w=1"),
    ("POST", "update"),
    ("POST", "exec"),
    ("POST", "attach?stream=1&stdout=1"),
    ("GET", "attach/ws?stream=1&stdout=1"),
    ("DELETE", "?force=1"),
]
OTHERS: list[tuple[str, str, object, str]] = [
    ("GET", "/exec/<exec>/json", None, "No such exec"),
    ("POST", "/exec/<exec>/start", {"Detach": True}, "No such exec"),
    ("POST", "/exec/<exec>/resize?h=1&w=1", None, "No such exec"),
    ("GET", "/volumes/bobv", None, "no such volume"),
    ("DELETE", "/volumes/bobv?force=1", None, "no such volume"),
    ("POST", "/volumes/create", {"Name": "bobv"}, "not available"),
    (
        "POST",
        "/volumes/create",
        {"Name": "v", "DriverOpts": {"type": "none", "o": "bind", "device": "/"}},
        "volume_options",
    ),
    ("POST", "/volumes/create", {"Name": "v", "Driver": "sshfs"}, "volume_options"),
    ("GET", "/networks/bobn", None, "not found"),
    ("GET", "/networks/<bobn>", None, "not found"),
    ("DELETE", "/networks/bobn", None, "not found"),
    ("DELETE", "/networks/bridge", None, "rule"),
    ("POST", "/networks/bobn/connect", {"Container": "mine"}, "not found"),
    ("POST", "/networks/bridge/connect", {"Container": "bobc"}, "No such container"),
    ("POST", "/networks/bridge/disconnect", {"Container": "bobc", "Force": True}, "No such container"),
    ("POST", "/networks/<host>/connect", {"Container": "mine"}, "network_mode"),
    ("POST", "/networks/create", {"Name": "bobn"}, "exists"),
    ("POST", "/networks/create", {"Name": "n", "Driver": "macvlan"}, "network_options"),
    (
        "POST",
        "/networks/create",
        {"Name": "n", "Options": {"com.docker.network.bridge.name": "eth0"}},
        "network_options",
    ),
    ("POST", "/networks/create", {"Name": "n", "ConfigFrom": {"Network": "bobn"}}, "n"),
    (
        "POST",
        "/networks/create",
        {"Name": "n", "IPAM": {"Config": [{"Subnet": "0.0.0.0/1"}]}},
        "network_options",
    ),
    ("POST", "/containers/mine/rename?name=bobc", None, "in use"),
    ("POST", "/containers/mine/rename?name=<short>", None, "names"),
    ("POST", "/containers/create?name=bobc", {"Image": "busybox"}, "in use"),
    ("POST", "/containers/mine/exec", {"Cmd": ["id"], "Privileged": True}, "privileged"),
    ("GET", "/containers/mine/top?ps_args=e", None, "top"),
    ("GET", "/containers/mine/top?ps_args=-C+x+--pid+1", None, "top"),
    ("POST", "/containers/mine/start", {"Privileged": True}, "no body"),
    ("POST", "/v1.23/containers/mine/start", {"Privileged": True}, "too old"),
    ("DELETE", "/containers/mine?link=1", None, "names"),
    ("POST", "/commit?container=bobc&repo=x", {}, "No such container"),
    ("POST", "/commit?container=mine&repo=bobimg", {}, "ownership"),
    ("POST", "/commit?container=mine&repo=library/bobimg", {}, "ownership"),
    ("POST", "/images/busybox/tag?repo=bobimg", None, "ownership"),
    ("POST", "/images/busybox/tag?repo=docker.io/library/bobimg&tag=latest", None, "ownership"),
    ("POST", "/images/create?fromImage=bobimg&tag=latest", None, "ownership"),
    ("POST", "/images/create?fromSrc=-&repo=bobimg", None, "ownership"),
    ("POST", "/images/create?fromSrc=http://127.0.0.1/x&repo=x", None, "registry"),
    ("POST", "/images/create?fromImage=127.0.0.1:5000/x", None, "registry"),
    ("POST", "/images/create?fromImage=0.0.0.0:5000/x", None, "registry"),
    ("GET", "/images/search?term=localhost:5000/x", None, "registry"),
    ("GET", "/distribution/127.0.0.1:5000/x/json", None, "registry"),
    ("POST", "/auth", {"serveraddress": "http://x@127.0.0.1:5000/"}, "registry"),
    ("POST", "/auth", {"serveraddress": "https://[::]:5000/"}, "registry"),
    ("DELETE", "/images/bobimg", None, "No such image"),
    ("DELETE", "/images/<image>?force=1", None, "ownership"),
    ("DELETE", "/images/busybox?force=1", None, "ownership"),
    ("GET", "/images/get", None, "ownership"),
    ("POST", "/build?t=bobimg", None, "ownership"),
    ("POST", "/build?networkmode=host", None, "build"),
    ("POST", "/build?networkmode=<host>", None, "rule"),
    ("POST", "/build?networkmode=container:bobc", None, "rule"),
    ("POST", "/build?remote=http://127.0.0.1/x", None, "build"),
    ("POST", "/build?securityopt=seccomp%3Dunconfined", None, "build"),
    ("POST", "/build?version=2", None, "build"),
    ("GET", f"/containers/json?all=1&{filters(before='bobc')}", None, "No such container"),
    ("GET", f"/containers/json?all=1&{filters(since='<short>')}", None, "No such container"),
    ("POST", "/session", None, "operation"),
    ("POST", "/grpc", None, "operation"),
    ("GET", "/swarm", None, "swarm manager"),
    ("POST", "/swarm/init", {}, "swarm"),
    ("POST", "/services/create", {}, "swarm"),
    ("GET", "/plugins/x/json", None, "not found"),
    ("POST", "/plugins/pull?remote=x", None, "operation"),
    ("POST", "/plugins/x/disable", None, "operation"),
    ("GET", "/debug/pprof/heap", None, "operation"),
    ("POST", "/containers/mine/checkpoints", {"CheckpointDir": "/root"}, "operation"),
    ("POST", "/containers/mine/copy", {"Resource": "/"}, "operation"),
]


@pytest.mark.parametrize("reference", ["bobc", "<bobc>", "<short>"])
@pytest.mark.parametrize(("method", "call"), CONTAINER_CALLS, ids=[f"{m}-{c}" for m, c in CONTAINER_CALLS])
def test_a_call_on_anothers_container_is_answered_like_one_on_none(
    world: World, method: str, call: str, reference: str
) -> None:
    """By name, id and short id: the words are dockerd's for what is absent, and the container does not notice."""
    bodies: dict[str, object] = {"exec": {"Cmd": ["id"]}, "update": {"Memory": 2**28}}
    suffix = call if call.startswith("?") else f"/{call}"
    target = f"/v1.41/containers/{reference}{suffix}"
    before = world.state()
    answer = world.ask(method, target, bodies.get(call))
    assert (answer.status, answer.message) == (404, world.fill(f"No such container: {reference}"))
    absent = world.ask(method, target.replace(reference, "nobody"), bodies.get(call))
    assert absent.message == "No such container: nobody"
    assert {*absent.headers} == {*answer.headers}
    assert world.state() == before


@pytest.mark.parametrize(
    ("method", "target", "body", "says"),
    OTHERS,
    ids=[f"{method}-{target[:50]}-{number}" for number, (method, target, _, _) in enumerate(OTHERS)],
)
def test_a_call_that_reaches_for_more_is_refused_and_changes_nothing(
    world: World, method: str, target: str, body: object, says: str
) -> None:
    """Neither bob's things nor the engine's state change, and no answer holds what only bob may know."""
    before = world.state()
    answer = world.ask(method, target if target.startswith("/v1.") else f"/v1.41{target}", body)
    assert answer.status in (400, 403, 404, 409, 503), answer.body
    assert says in answer.message
    told = world.fill(target + json.dumps(body))
    assert SECRET not in answer.body.decode()
    for own in ("bobc", "short", "bobn", "exec"):
        assert world.words[own] in told or world.words[own] not in answer.body.decode()
    assert world.state() == before


READS = [
    "/containers/json?all=1&size=1",
    f"/containers/json?all=1&{filters(ancestor='busybox')}",
    f"/containers/json?all=1&{filters(volume='bobv')}",
    f"/containers/json?all=1&{filters(network='<bobn>')}",
    f"/containers/json?all=1&{filters(id='<short>')}",
    f"/containers/json?all=1&{filters(label=f'mark={SECRET}')}".replace(SECRET, "x"),
    "/containers/json?all=1&limit=1",
    "/networks",
    "/networks/bridge?verbose=1",
    "/volumes",
    f"/volumes?{filters(name='bobv')}",
    f"/volumes?{filters(dangling='false')}",
    "/system/df",
    "/info",
    "/events?since=0&until=1",
    "/events?since=0&until=<now>",
    f"/events?since=0&until=<now>&{filters(container='<bobc>')}".replace("%3Cbobc%3E", "<bobc>"),
    f"/events?since=0&until=<now>&{filters(type='network')}",
]


@pytest.mark.parametrize("target", READS)
def test_no_list_shows_anything_of_bobs(world: World, target: str) -> None:
    """Lists, usage and the history of events hold neither his ids nor his names, labels or volumes."""
    now = subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout.strip()
    answer = world.ask("GET", f"/v1.41{target.replace('<now>', now)}")
    assert answer.status == 200, answer.body
    for word in (SECRET, world.words["bobc"], world.words["short"], world.words["bobn"], "bobv", '"/bobc"'):
        assert word not in answer.body.decode()


@pytest.mark.parametrize(
    ("name", "tag"),
    [
        ("manifest.json", "bobimg:latest"),
        ("manifest.json", "library/bobimg:latest"),
        ("manifest.json", "docker.io/library/bobimg:latest"),
        ("x/../manifest.json", "bobimg:latest"),
    ],
)
def test_a_loaded_tar_does_not_move_bobs_tag(world: World, name: str, tag: str) -> None:
    """However the tar spells its manifest and the tag, bob's tag stays where it is."""
    before = world.state()
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        content = json.dumps([{"Config": "c.json", "RepoTags": [tag], "Layers": []}]).encode()
        for each, bytes_ in (("c.json", b'{"rootfs":{"type":"layers"}}'), (name, content)):
            info = tarfile.TarInfo(each)
            info.size = len(bytes_)
            archive.addfile(info, io.BytesIO(bytes_))
    sent = request(
        "POST", "/v1.41/images/load", spool.getvalue(), headers={"Content-Type": "application/x-tar"}
    )
    answer = exchange(world.socket(world.alice), world.alice, sent)
    assert (answer.status, "image_tags" in answer.message) == (403, True)
    assert world.state() == before


def test_creates_at_once_do_not_pass_the_limit(world: World) -> None:
    """Forty creates sent together leave no more containers than the policy's twenty."""
    sent = request("POST", "/v1.41/containers/create", {"Image": "busybox", "Cmd": ["true"]})
    with ExitStack() as open_ones:
        clients = [
            open_ones.enter_context(connected(world.socket(world.alice), world.alice)) for _ in range(40)
        ]
        for client in clients:
            client.sendall(sent)
        made = [answer.json["Id"] for client in clients if (answer := read_answer(client)).status == 201]
    listed = world.ask("GET", "/v1.41/containers/json?all=1").json
    for container in made:
        assert world.ask("DELETE", f"/v1.41/containers/{container}").status == 204
    assert len(made) == 19  # beside `mine`
    assert len(listed) == 20


def test_history_does_not_bring_back_what_is_gone(world: World) -> None:
    """Reading old events leaves a name that was used before unambiguous for its owner."""
    bobs = world.socket(world.bob)
    for _ in range(2):
        made = ask(bobs, world.bob, "POST", "/containers/create?name=again", {"Image": "busybox"})
        assert made.status == 201
        now = subprocess.run(["date", "+%s"], capture_output=True, text=True, check=True).stdout.strip()
        world.ask("GET", f"/v1.41/events?since=0&until={now}")
        assert ask(bobs, world.bob, "DELETE", "/containers/again").status == 204


def test_prune_leaves_bobs_things(world: World) -> None:
    """Whatever alice prunes, bob's stopped container, network and volume stay."""
    bobs = world.socket(world.bob)
    assert ask(bobs, world.bob, "POST", "/containers/create?name=stopped", {"Image": "busybox"}).status == 201
    before = world.state()
    for kind in ("containers", "networks", "volumes", "images"):
        assert world.ask("POST", f"/v1.41/{kind}/prune").status == 200
    assert world.state() == before
    assert ask(bobs, world.bob, "DELETE", "/containers/stopped").status == 204


# --- creates that are changed rather than refused --------------------------------------------------------


def create(world: World, body: dict[str, object], name: str) -> dict[str, dict[str, object]]:
    """What the engine holds after alice's create."""
    made = world.ask(
        "POST", f"/v1.41/containers/create?name={name}", {"Image": "busybox", "Cmd": ["sleep", "60"], **body}
    )
    assert made.status == 201, made.body
    found: dict[str, dict[str, object]] = world.engine(f"/v1.41/containers/{made.json['Id']}/json").json
    return found


@pytest.fixture
def gone(world: World) -> Iterator[None]:
    """Alice's containers `x` of a test are removed after it."""
    yield
    world.ask("DELETE", "/v1.41/containers/box?force=1&v=1")


SOFTENED: list[tuple[str, dict[str, object], str, object]] = [
    ("unmasked", {"MaskedPaths": []}, "MaskedPaths", "/proc/kcore"),
    ("writable-proc", {"ReadonlyPaths": []}, "ReadonlyPaths", "/proc/sys"),
    ("seccomp", {"SecurityOpt": ["seccomp=unconfined", "apparmor:unconfined"]}, "SecurityOpt", None),
    ("ipc-host", {"IpcMode": "host"}, "IpcMode", "private"),
    ("cgroup-of-system", {"CgroupParent": "/system.slice"}, "CgroupParent", "ds01"),
    ("cgroup-of-bob", {"CgroupParent": "/ds01/0"}, "CgroupParent", "<uid>"),
    ("runtime-nvidia", {"Runtime": "nvidia"}, "Runtime", "ds01"),
    ("oom", {"OomKillDisable": True, "OomScoreAdj": -1000}, "OomScoreAdj", 0),
    ("restart-for-ever", {"RestartPolicy": {"Name": "always"}}, "RestartPolicy", "on-failure"),
    ("shm", {"ShmSize": 2**50}, "ShmSize", 8 * 2**30),
    ("gpu-node", {"Devices": [{"PathOnHost": "/dev/nvidia0", "PathInContainer": "/d"}]}, "Devices", None),
    ("publish-all", {"PublishAllPorts": True}, "Privileged", False),
    (
        "cdi-all",
        {"DeviceRequests": [{"Driver": "cdi", "DeviceIDs": ["nvidia.com/gpu=all"]}]},
        "Devices",
        None,
    ),
]


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(("host", "field", "kept"), [pytest.param(*row[1:], id=row[0]) for row in SOFTENED])
def test_a_wish_that_is_changed_is_changed_in_the_engine(
    world: World, host: dict[str, object], field: str, kept: object
) -> None:
    """What templates often ask for and nobody gets: the create goes through without it, or is refused whole."""
    sent = {"Image": "busybox", "Cmd": ["true"], "HostConfig": host}
    made = world.ask("POST", "/v1.41/containers/create?name=box", sent)
    if made.status != 201:
        assert (made.status, "rule" in made.message) in {(403, True), (409, True)}
        return
    found = world.engine(f"/v1.41/containers/{made.json['Id']}/json").json["HostConfig"][field]
    if isinstance(kept, str):
        assert world.fill(kept) in str(found)
    else:
        assert (found or None) == (kept or None)


@pytest.mark.usefixtures("gone")
def test_labels_are_sealed_whatever_alice_writes(world: World) -> None:
    """Labels of ds01 in any case are dropped and written anew, and labels that shadow event fields stay hers alone."""
    labels = {
        "ds01.owner": world.bob,
        "DS01.uid": "0",
        "d\u017f01.group": "admins",
        "name": "bobc",
        "id": "x",
    }
    body = create(world, {"Labels": labels}, "box")
    kept = body["Config"]["Labels"]
    assert isinstance(kept, dict)
    assert kept["ds01.owner"] == world.alice
    assert not {"DS01.uid", "d\u017f01.group"} & kept.keys()
    assert kept["ds01.seal"]


@pytest.mark.usefixtures("gone")
def test_a_container_stays_in_its_owners_cgroup_and_within_limits(world: World) -> None:
    """The cgroup parent is the user's, memory and processes have a bound, and update does not lift them."""
    host = {
        "CgroupParent": "/../../escaped",
        "Memory": 2**50,
        "PidsLimit": -1,
        "MemorySwap": -1,
        "CgroupnsMode": "host",
    }
    body = create(world, {"HostConfig": host}, "box")["HostConfig"]
    assert str(body["CgroupParent"]).startswith(("/ds01/", "ds01-"))
    assert ".." not in str(body["CgroupParent"])
    assert body["CgroupnsMode"] != "host"
    for change in (
        {"PidsLimit": 0},
        {"PidsLimit": -1},
        {"MemorySwap": -1},
        {"Memory": 2**50, "MemorySwap": -1},
    ):
        world.ask("POST", "/v1.41/containers/box/update", change)
        now = world.engine(f"/v1.41/containers/{body_id(world)}/json").json["HostConfig"]
        assert 0 < int(now["PidsLimit"]) <= 4096
        assert 0 < int(now["Memory"]) <= 16 * 2**30
        assert 0 < int(now["MemorySwap"]) <= 32 * 2**30


def body_id(world: World) -> str:
    found: str = world.ask("GET", "/v1.41/containers/box/json").json["Id"]
    return found


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize(
    "body",
    [
        {"Env": ["NVIDIA_VISIBLE_DEVICES=all"]},
        {"Env": ["NVIDIA_VISIBLE_DEVICES=void", "NVIDIA_VISIBLE_DEVICES=all"]},
        {"Env": ["nvidia_visible_devices=all", "NVIDIA_MIG_CONFIG_DEVICES=all", "NVIDIA_IMEX_CHANNELS=0"]},
        {"Image": "forged"},
    ],
    ids=["env", "env-twice", "env-others", "image"],
)
def test_no_gpu_without_a_lease(world: World, body: dict[str, object]) -> None:
    """Neither the request's nor the image's environment gives a device: what was not leased is void."""
    if body.get("Image"):
        changes = "&".join(
            "changes=" + quote(text) for text in ("ENV NVIDIA_VISIBLE_DEVICES=all", "LABEL ds01.owner=root")
        )
        assert world.ask("POST", f"/v1.41/commit?container=mine&repo=forged&{changes}").status == 201
    made = create(world, body, "box")
    granted = made["Config"]["Labels"]
    assert isinstance(granted, dict)
    lease = granted.get("ds01.lease")
    environment = made["Config"]["Env"]
    assert isinstance(environment, list)
    shown = [text for text in environment if text.startswith("NVIDIA_VISIBLE_DEVICES")]
    assert len(shown) == 1
    assert lease or shown == ["NVIDIA_VISIBLE_DEVICES=void"]
    assert "all" not in shown[0].partition("=")[2]
    assert granted["ds01.owner"] == world.alice
    world.ask("DELETE", "/v1.41/containers/box?force=1")
    world.ask("DELETE", "/v1.41/images/forged")


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize("call", ["start", "archive", "restart", "put"])
def test_a_bind_swapped_for_a_link_is_not_followed(world: World, call: str) -> None:
    """The source was alice's directory at the create; later it leads to bob's: neither start nor docker cp goes there."""
    home, bobs = Path(world.words["alice"]), Path(world.words["bob"], "secret")
    swapped = home / "swapped"
    swapped.mkdir()
    shutil.chown(swapped, world.alice, world.alice)
    try:
        create(world, {"HostConfig": {"Binds": [f"{swapped}:/m"]}, "Cmd": ["cat", "/m/file"]}, "box")
        swapped.rmdir()
        swapped.symlink_to(bobs)
        method, target = {
            "start": ("POST", "start"),
            "restart": ("POST", "restart"),
            "archive": ("GET", "archive?path=/m/file"),
            "put": ("PUT", "archive?path=/m"),
        }[call]
        answer = world.ask(method, f"/v1.41/containers/box/{target}")
        assert answer.status == 403
        assert "bind_mounts" in answer.message
        assert SECRET not in world.ask("GET", "/v1.41/containers/box/logs?stdout=1").body.decode()
        assert [item.name for item in bobs.iterdir()] == ["file"]
    finally:
        swapped.unlink(missing_ok=True)


@pytest.mark.usefixtures("gone")
def test_dockers_socket_in_a_container_is_alices_own(world: World) -> None:
    """A bind of /var/run/docker.sock mounts alice's socket and nobody else's."""
    made = create(world, {"HostConfig": {"Binds": ["/var/run/docker.sock:/var/run/docker.sock"]}}, "box")
    assert made["HostConfig"]["Binds"] == [f"{world.socket(world.alice)}:/var/run/docker.sock"]


def test_anothers_socket_does_not_open(world: World) -> None:
    """Bob's socket is bob's: the kernel refuses alice, and the front door knows her by her credentials."""
    with pytest.raises(PermissionError):
        exchange(world.socket(world.bob), world.alice, request("GET", "/_ping"))
    for private in ("engine.sock", "admin.sock"):
        with pytest.raises(PermissionError):
            exchange(world.root / "run" / private, world.alice, request("GET", "/_ping"))
    front = world.root / "run" / "docker.sock"
    listed = ask(front, world.alice, "GET", "/v1.41/containers/json?all=1")
    assert [item["Names"] for item in listed.json] == [["/mine"]]


def test_a_forged_stamp_and_headers_count_for_nothing(world: World) -> None:
    """Headers that claim to be ds01's, a proxy's or another's are dropped."""
    claims = {
        "X-Ds01-Stamp": "x",
        "X-Ds01-Actor": "root",
        "X-Forwarded-User": "root",
        "Authorization": "Basic eDp5",
    }
    sent = request("GET", "/v1.41/containers/json?all=1", headers=claims)
    answer = exchange(world.socket(world.alice), world.alice, sent)
    assert [item["Names"] for item in answer.json] == [["/mine"]]
