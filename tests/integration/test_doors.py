"""Who a client is, by the door it came through and the kernel's word on it: nothing a client sends changes that."""

from __future__ import annotations

import json
import pwd
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Lab, Result

pytestmark = pytest.mark.dockerd

_UNKNOWN_UID = 54321
_ASK = (
    "import http.client, socket, sys\n"
    "c = http.client.HTTPConnection('d'); c.sock = socket.socket(socket.AF_UNIX); c.sock.connect(sys.argv[1])\n"
    "c.request('GET', sys.argv[2]); print(c.getresponse().read().decode())\n"
)


def _door(lab: Lab, name: str) -> Path:
    return lab.root / "run" / name


def _own(lab: Lab, user: str) -> Path:
    return lab.root / "run" / "users" / user / "docker.sock"


def _ask(lab: Lab, path: Path, *, uid: int, target: str = "/ds01/v1/whoami") -> Result:
    """Ask as `uid`, which may have no account. The interpreter is the system's: accounts cannot reach the tests' own."""
    identity = ("setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--")
    return lab.run("root", *identity, "/usr/bin/python3", "-c", _ASK, str(path), target)


def _whoami(lab: Lab, path: Path, *, uid: int) -> dict[str, Any]:
    result = _ask(lab, path, uid=uid)
    assert result.status == 0, result.err
    answer: dict[str, Any] = json.loads(result.out)
    return answer


def _uid(name: str) -> int:
    return pwd.getpwnam(name).pw_uid


def _last_record(lab: Lab, **wanted: object) -> dict[str, Any]:
    """The newest audit line with these values."""
    for line in reversed((lab.root / "log" / "audit.jsonl").read_text().splitlines()):
        record: dict[str, Any] = json.loads(line)
        if wanted.items() <= record.items():
            return record
    raise AssertionError(f"no audit line with {wanted}")


@pytest.mark.parametrize("user", ["alice", "bob"])
def test_the_front_door_knows_its_peer(lab: Lab, user: str) -> None:
    """On the front door everybody is who the kernel says."""
    name = getattr(lab, user)
    found = _whoami(lab, _door(lab, "docker.sock"), uid=_uid(name))
    assert (found["name"], found["uid"], found["role"], found["door"]) == (name, _uid(name), "user", "front")


def test_root_at_the_front_door_is_the_admin(lab: Lab) -> None:
    """Host root needs no socket of its own."""
    found = _whoami(lab, _door(lab, "docker.sock"), uid=0)
    assert (found["uid"], found["role"]) == (0, "admin")


def test_service_accounts_get_nothing_through_the_front_door(lab: Lab) -> None:
    """nobody and daemon are no people: connected, and refused."""
    for name in ("nobody", "daemon"):
        listed = _ask(lab, _door(lab, "docker.sock"), uid=_uid(name), target="/containers/json")
        assert "message" in json.loads(listed.out), listed.out


def test_a_uid_without_account_is_refused(lab: Lab) -> None:
    """Who has no account here is nobody."""
    found = _whoami(lab, _door(lab, "docker.sock"), uid=_UNKNOWN_UID)
    assert found == {"message": f"ds01: uid {_UNKNOWN_UID} has no account on this server (rule identity)"}


def test_a_user_sees_only_their_own_through_the_front_door(clean_lab: Lab) -> None:
    """The front door and the own socket show the same containers."""
    container = clean_lab.ok(clean_lab.alice, "create", "busybox", "true")
    for user, seen in ((clean_lab.alice, [container]), (clean_lab.bob, [])):
        listed = clean_lab.docker(user, "ps", "-aq", "--no-trunc", host=clean_lab.front_door)
        assert listed.out.split() == seen


def test_another_users_socket_is_closed(lab: Lab) -> None:
    """The file's mode keeps others out; where it is opened by mistake, the peer's uid still does."""
    path = _own(lab, lab.alice)
    assert _ask(lab, path, uid=_uid(lab.bob)).status != 0
    path.chmod(0o666)
    try:
        assert _whoami(lab, path, uid=_uid(lab.bob)) == {
            "message": "ds01: this socket belongs to another user; use your own (rule identity)"
        }
        assert _whoami(lab, path, uid=_uid(lab.alice))["name"] == lab.alice
    finally:
        path.chmod(0o600)


def test_the_admin_socket_is_roots(lab: Lab) -> None:
    """The admin socket is closed to users by its mode, and by the peer's uid where the mode is lost."""
    path = _door(lab, "admin.sock")
    assert _ask(lab, path, uid=_uid(lab.alice)).status != 0
    path.chmod(0o666)
    try:
        assert _whoami(lab, path, uid=_uid(lab.alice)) == {
            "message": "ds01: the admin socket is for root; use your own socket (rule identity)"
        }
    finally:
        path.chmod(0o600)
    assert _whoami(lab, path, uid=0)["role"] == "admin"


def test_the_engines_socket_is_closed_to_users(lab: Lab) -> None:
    """dockerd's own socket can be opened by root alone, and the daemons' sockets do not give more."""
    for name in ("engine.sock", "authz.sock"):
        assert _ask(lab, _door(lab, name), uid=_uid(lab.alice), target="/version").status != 0
    leases = _ask(lab, _door(lab, "allocator.sock"), uid=_uid(lab.alice), target="/v1/leases?owner_uid=0")
    assert "message" in json.loads(leases.out)


def test_root_on_a_users_socket_acts_as_that_user(clean_lab: Lab) -> None:
    """What root makes on alice's socket is alice's."""
    container = clean_lab.run(
        "root", "docker", "create", "busybox", host=clean_lab.socket(clean_lab.alice)
    ).out.strip()
    assert clean_lab.ok(clean_lab.alice, "ps", "-aq", "--no-trunc") == container
    assert clean_lab.ok(clean_lab.bob, "ps", "-aq") == ""
    record = _last_record(clean_lab, operation="ContainerCreate")
    assert (record["actor"], record["uid"], record["door"]) == (
        clean_lab.alice,
        _uid(clean_lab.alice),
        "user",
    )


def test_sudo_has_a_name_in_the_audit(clean_lab: Lab) -> None:
    """Bob, become root and on alice's socket, is on record by the uid he logged in with."""
    create = f"echo {_uid(clean_lab.bob)} > /proc/self/loginuid && exec docker create busybox"
    made = clean_lab.run("root", "sh", "-c", create, host=clean_lab.socket(clean_lab.alice))
    if "loginuid" in made.err:
        pytest.skip("this kernel keeps no login uids, or ours cannot be changed")
    assert made.status == 0, made.err
    record = _last_record(clean_lab, operation="ContainerCreate")
    assert (record["uid"], record["login_uid"]) == (_uid(clean_lab.alice), _uid(clean_lab.bob))


_CLIENT = r"""
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
static const char ask[] = "GET /ds01/v1/whoami HTTP/1.1\r\nHost: d\r\nConnection: close\r\n\r\n";
int main(int count, char **words) {
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int door = socket(AF_UNIX, SOCK_STREAM, 0);
    char text[4096];
    if (count != 2 || strlen(words[1]) >= sizeof to.sun_path) return 2;
    strcpy(to.sun_path, words[1]);
    if (connect(door, (struct sockaddr *)&to, sizeof to)) return 3;
    if (write(door, ask, sizeof ask - 1) < 0) return 4;
    for (ssize_t got; (got = read(door, text, sizeof text)) > 0;)
        if (write(1, text, got) != got) return 5;
    return 0;
}
"""


@pytest.fixture(scope="module")
def client(lab: Lab) -> Path:
    """A program that needs nothing of its container, in alice's home: it asks a socket who it is taken for."""
    program = Path("/home", lab.alice, "whoami")
    built = subprocess.run(
        ["gcc", "-static", "-Os", "-o", program, "-x", "c", "-"],
        input=_CLIENT,
        text=True,
        check=False,
        capture_output=True,
    )
    assert built.returncode == 0, built.stderr
    program.chmod(0o755)
    return program


def _whoami_inside(lab: Lab, client: Path, door: str, *options: str, host: str | None = None) -> Result:
    binds = ("-v", f"{client}:/whoami:ro", "-v", f"{door}:/docker.sock")
    user = "root" if host else lab.alice
    return lab.docker(user, "run", "--rm", *binds, *options, "busybox", "/whoami", "/docker.sock", host=host)


def _said(result: Result) -> dict[str, Any]:
    assert result.status == 0, result.err
    answer: dict[str, Any] = json.loads(result.out.rpartition("\n\n")[2])
    return answer


def test_a_mounted_socket_makes_a_container_its_owner(clean_lab: Lab, client: Path) -> None:
    """Root inside alice's container is alice outside, not root."""
    found = _said(_whoami_inside(clean_lab, client, str(_own(clean_lab, clean_lab.alice))))
    assert (found["name"], found["role"], found["door"]) == (clean_lab.alice, "user", "user")
    assert len(found["container"]) == 64


def test_another_account_inside_cannot_open_the_owners_socket(clean_lab: Lab, client: Path) -> None:
    """The mounted socket keeps its owner and mode: a service user in the container is not its owner."""
    refused = _whoami_inside(clean_lab, client, str(_own(clean_lab, clean_lab.alice)), "-u", "12345:12345")
    assert (refused.status, refused.out) == (3, "")


def test_dockers_own_socket_is_the_users_inside(clean_lab: Lab, client: Path) -> None:
    """The usual `-v /var/run/docker.sock:...` gives a container its owner's socket, never the engine's."""
    found = _said(_whoami_inside(clean_lab, client, "/var/run/docker.sock"))
    assert (found["name"], found["role"], found["door"]) == (clean_lab.alice, "user", "user")


@pytest.mark.parametrize("name", ["engine.sock", "admin.sock", "authz.sock", "users"])
def test_no_other_door_can_be_mounted(clean_lab: Lab, client: Path, name: str) -> None:
    """A user cannot have the engine's, the admin's or anybody's socket mounted."""
    refused = _whoami_inside(clean_lab, client, str(_door(clean_lab, name)))
    assert refused.status == 125
    assert "ds01: " in refused.err


def _groups(pid: str) -> list[Path]:
    """The control groups of a process, as files one joins them by."""
    found = []
    for line in Path("/proc", pid, "cgroup").read_text().splitlines():
        _, hierarchy, group = line.split(":", 2)
        name = hierarchy.removeprefix("name=") or (
            "unified" if Path("/sys/fs/cgroup/unified").exists() else ""
        )
        found.append(Path("/sys/fs/cgroup", name, group[1:], "cgroup.procs"))
    return [path for path in found if path.exists()]


@pytest.fixture
def inside(clean_lab: Lab) -> tuple[str, ...]:
    """A command line that asks from inside alice's container, as host root and with the host's files."""
    container = clean_lab.ok(clean_lab.alice, "run", "-d", "busybox", "sleep", "60")
    first = clean_lab.ok(clean_lab.alice, "inspect", "-f", "{{.State.Pid}}", container)
    groups = [str(path) for path in _groups(first) if container in str(path)]
    assert groups
    join = "".join(f"echo $$ > {path} && " for path in groups)
    enter = f'exec nsenter --target {first} --pid --net --ipc --uts -- "$@"'
    return ("sh", "-c", join + enter, "sh", "/usr/bin/python3", "-c", _ASK)


def test_the_front_door_inside_a_container_knows_its_owner(clean_lab: Lab, inside: tuple[str, ...]) -> None:
    """However the front door got there, root inside alice's container is alice."""
    result = clean_lab.run("root", *inside, str(_door(clean_lab, "docker.sock")), "/ds01/v1/whoami")
    assert result.status == 0, result.err
    found = json.loads(result.out)
    assert (found["name"], found["uid"], found["role"]) == (clean_lab.alice, _uid(clean_lab.alice), "user")


def test_a_container_is_nobody_elsewhere(clean_lab: Lab, inside: tuple[str, ...]) -> None:
    """From alice's container, with host root's uid, bob's socket and the admin's refuse."""
    for path in (_own(clean_lab, clean_lab.bob), _door(clean_lab, "admin.sock")):
        result = clean_lab.run("root", *inside, str(path), "/ds01/v1/whoami")
        assert "(rule identity)" in json.loads(result.out)["message"], result.out
