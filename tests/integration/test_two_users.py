"""Two users at the same time: neither sees, touches or becomes the other."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Iterator

import pytest

from tests.integration.conftest import Lab

pytestmark = pytest.mark.dockerd
SECRET = "alice-only-4711"


@pytest.fixture(scope="module")
def victim(lab: Lab) -> Iterator[dict[str, str]]:
    """Alice's things, each marked with SECRET; gives what bob may try, by placeholder."""
    lab.clean()
    lab.ok(lab.alice, "network", "create", f"{SECRET}-net")
    lab.ok(lab.alice, "volume", "create", f"{SECRET}-volume")
    container = lab.ok(
        lab.alice, "run", "-d", "--name", f"{SECRET}-box", "-e", f"TOKEN={SECRET}", "-l", f"note={SECRET}",
        "-v", f"{SECRET}-volume:/data", "--network", f"{SECRET}-net",
        "busybox", "sh", "-c", f"echo {SECRET} | tee /data/note; sleep 600",
    )  # fmt: skip
    network = lab.ok(lab.alice, "network", "inspect", "-f", "{{.Id}}", f"{SECRET}-net")
    yield {"name": f"{SECRET}-box", "id": container, "short": container[:12], "prefix": container[:5],
           "volume": f"{SECRET}-volume", "net": f"{SECRET}-net", "netid": network}  # fmt: skip
    lab.clean()


ON_A_CONTAINER = (
    "inspect {}", "logs {}", "top {}", "stats --no-stream {}", "port {}", "diff {}", "export {}",
    "start {}", "stop {}", "restart {}", "kill {}", "pause {}", "unpause {}", "rename {} mine", "update -m 64m {}",
    "wait {}", "attach {}", "rm {}", "exec {} env", "cp {}:/etc/passwd -", "commit {} stolen",
    "create --pull never --volumes-from {} busybox", "create --pull never --network container:{} busybox", "create --pull never --pid container:{} busybox",
    "create --pull never --ipc container:{} busybox", "create --pull never --link {}:x busybox", "network connect bridge {}",
)  # fmt: skip


@pytest.mark.parametrize("spelling", ["name", "id", "short", "prefix"])
def test_nothing_can_be_done_to_another_users_container(
    lab: Lab, victim: dict[str, str], spelling: str
) -> None:
    """Every call that names it says what it says of a container that does not exist, whatever the spelling."""
    lab.ok(lab.bob, "run", "--rm", "busybox", "true")  # so that there is the network that is bob's "bridge"
    for template in ON_A_CONTAINER:
        foreign = lab.docker(lab.bob, *template.format(victim[spelling]).split())
        absent = lab.docker(
            lab.bob, *template.format("f" * 64 if spelling == "id" else "nosuchthing").split()
        )
        assert foreign.status != 0, template
        assert foreign.status == absent.status, template
        assert "No such" in foreign.err or "no such" in foreign.err, (template, foreign.err)
        shown = (foreign.out + foreign.err).replace(victim[spelling], "X")
        assert SECRET not in shown, (template, shown)
    assert (
        lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}} {{.State.Paused}}", victim["name"])
        == "true false"
    )


@pytest.mark.parametrize(
    "words",
    [
        "volume inspect {volume}", "volume rm {volume}", "volume rm -f {volume}",
        "network inspect {net}", "network inspect {netid}", "network rm {net}", "network rm {netid}",
        "create --pull never --network {net} busybox", "create --pull never --network {netid} busybox",
    ],
)  # fmt: skip
def test_volumes_and_networks_of_others_do_not_exist(lab: Lab, victim: dict[str, str], words: str) -> None:
    """They answer like names that are absent."""
    result = lab.docker(lab.bob, *words.format(**victim).split())
    if words.startswith("volume rm -f"):  # the CLI takes a 404 for success with -f
        assert lab.ok(lab.alice, "volume", "inspect", victim["volume"])
        return
    assert result.status != 0
    assert any(text in result.err for text in ("o such", "not found", "not available")), result.err


@pytest.mark.parametrize(
    "words",
    ["ps -a --no-trunc", "ps -a --filter name=alice", "volume ls", "network ls --no-trunc", "network inspect bridge",
     "system df -v", "info", "stats --no-stream", "events --since 0 --until 0s", "container prune -f",
     "volume prune -f", "network prune -f", "ps -a --filter ancestor=busybox", "ps -a --filter volume={volume}",
     "ps -a --filter network={net}"],
)  # fmt: skip
def test_lists_show_nothing_of_others(lab: Lab, victim: dict[str, str], words: str) -> None:
    """No list, count, history or prune tells of alice's things."""
    result = lab.docker(lab.bob, *words.format(**victim).split())
    shown = result.out + result.err
    for text in (SECRET, victim["id"], victim["short"], victim["netid"][:12]):
        assert text not in shown, shown
    assert lab.ok(lab.alice, "ps", "-q"), "and what alice has is still there"


def test_both_work_at_the_same_time(lab: Lab, victim: dict[str, str]) -> None:
    """Forty runs of two users side by side each give their own output."""
    del victim

    def run(number: int) -> str:
        user = lab.alice if number % 2 else lab.bob
        return lab.ok(user, "run", "--rm", "busybox", "echo", f"{user}-{number}")

    with concurrent.futures.ThreadPoolExecutor(4) as workers:
        outputs = list(workers.map(run, range(40)))
    assert outputs == [f"{lab.alice if number % 2 else lab.bob}-{number}" for number in range(40)]


@pytest.mark.parametrize("flags", ["-v {volume}:/x", "--mount type=volume,src={volume},dst=/x"])
def test_anothers_volume_name_is_a_volume_of_ones_own(lab: Lab, victim: dict[str, str], flags: str) -> None:
    """What alice wrote into hers is not in the one that bob gets, and his goes without hers."""
    words = ["run", "--rm", "--pull", "never", *flags.format(**victim).split(), "busybox", "ls", "-A", "/x"]
    assert lab.ok(lab.bob, *words) == ""
    assert lab.ok(lab.alice, "exec", victim["name"], "cat", "/data/note") == SECRET
    lab.ok(lab.bob, "volume", "rm", victim["volume"])
    assert lab.ok(lab.alice, "volume", "inspect", victim["volume"])


def test_a_name_another_uses_is_free(lab: Lab, victim: dict[str, str]) -> None:
    """Containers, networks and volumes of both carry it, and each means the own one by it."""
    made = lab.ok(lab.bob, "create", "--name", victim["name"], "busybox")
    lab.ok(lab.bob, "network", "create", victim["net"])
    lab.ok(lab.bob, "volume", "create", victim["volume"])
    assert (
        lab.ok(lab.bob, "inspect", "-f", "{{.Id}} {{.Name}}", victim["name"]) == f"{made} /{victim['name']}"
    )
    assert lab.ok(lab.alice, "inspect", "-f", "{{.Id}}", victim["name"]) == victim["id"]
    assert lab.ok(lab.bob, "network", "inspect", "-f", "{{.Id}}", victim["net"]) != victim["netid"]
    lab.ok(lab.bob, "rm", victim["name"])
    lab.ok(lab.bob, "network", "rm", victim["net"])
    lab.ok(lab.bob, "volume", "rm", victim["volume"])
    assert lab.ok(lab.alice, "inspect", "-f", "{{.State.Running}}", victim["name"]) == "true"
    assert lab.ok(lab.alice, "network", "inspect", victim["net"])
    assert lab.ok(lab.alice, "volume", "inspect", victim["volume"])
