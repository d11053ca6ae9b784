"""What happens when a part dies, hangs or lies: nothing is allowed that should not be, nothing running is harmed, nothing leaks.

One lab for all; every test waits until it serves again.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import Any

import pytest

from lab import simulate, unix_http
from lab.unix_http import Reply
from tests.integration.conftest import Lab, engine_opened, eventually, running_lab
from tests.integration.holders import Holders, devices_of

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(150)]

_BACK_SECONDS = 30
_ROUNDS = 4
_DAEMONS = ("proxy", "authz", "allocator")


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab to break. Both users may hold all its GPUs: they compete for them."""
    with running_lab("chaos-a", "chaos-b", "--gpus", "2xa100-40,a100-40:7x1g.5gb") as running:
        _policy(running, "limits: {gpus: 9, containers: 200}")
        yield running


@pytest.fixture
def whole(own: Lab) -> Iterator[Lab]:
    """The lab, serving, with nothing in it; made so again afterwards."""
    yield own
    simulate.heal(_nvml(own))
    assert eventually(lambda: own.docker(own.alice, "ps").status == 0, seconds=_BACK_SECONDS)
    own.clean()
    assert eventually(lambda: _serves(own), seconds=_BACK_SECONDS)


def _policy(lab: Lab, user: str) -> None:
    """Give both users this block, and wait until it is in force in proxy and plugin."""
    text = "version: 1\n" + f"groups:\n  all: {{members: [{lab.alice}, {lab.bob}], {user}}}\n"
    before = [lab.log(daemon).count("policy.loaded") for daemon in ("proxy", "authz")]
    (lab.root / "etc" / "policy.d").mkdir(exist_ok=True)
    path = lab.root / "etc" / "policy.d" / "chaos.yaml"
    path.write_text(text)
    path.chmod(0o644)
    assert eventually(
        lambda: all(
            lab.log(daemon).count("policy.loaded") > count
            for daemon, count in zip(("proxy", "authz"), before, strict=True)
        ),
        seconds=5,
    ), lab.log("proxy")[-600:]


def _nvml(lab: Lab) -> Path:
    return lab.root / "lib" / "nvml"


def _socket(lab: Lab, user: str) -> Path:
    return lab.root / "run" / "users" / user / "docker.sock"


def _serves(lab: Lab) -> bool:
    """A container with a GPU can be made and removed."""
    made = _create(lab, lab.alice, gpus=1)
    return made is not None and made.status == 201 and _remove(lab, lab.alice, _id(made)) == 204


def _call(
    lab: Lab, user: str, method: str, target: str, body: Any = None, seconds: float = 40
) -> Reply | None:
    """One request; None when the connection broke before the answer."""
    content = None if body is None else json.dumps(body).encode()
    try:
        return unix_http.call(_socket(lab, user), method, target, content, timeout_seconds=seconds)
    except (OSError, HTTPException):
        return None


def _create(lab: Lab, user: str, *, gpus: int = 0, name: str = "", **host_config: Any) -> Reply | None:
    if gpus:
        host_config["DeviceRequests"] = [{"Count": gpus, "Capabilities": [["gpu"]]}]
    body = {"Image": "busybox", "Cmd": ["sleep", "600"], "HostConfig": host_config}
    return _call(lab, user, "POST", f"/containers/create{f'?name={name}' if name else ''}", body)


def _id(reply: Reply) -> str:
    return str(json.loads(reply.body)["Id"])


def _remove(lab: Lab, user: str, container: str) -> int | None:
    reply = _call(lab, user, "DELETE", f"/containers/{container}?force=1")
    return None if reply is None else reply.status


def _leases(lab: Lab) -> list[dict[str, Any]]:
    """What the allocator holds now."""
    reply = unix_http.call(lab.root / "run" / "allocator.sock", "GET", "/v1/leases")
    return [lease for lease in json.loads(reply.body) if lease["state"] != "released"]


def _containers(lab: Lab) -> list[dict[str, Any]]:
    """All containers as the admin inspects them."""
    admin = lab.root / "run" / "admin.sock"
    listed = json.loads(unix_http.call(admin, "GET", "/containers/json?all=1").body)
    inspected = (unix_http.call(admin, "GET", f"/containers/{each['Id']}/json") for each in listed)
    return [json.loads(reply.body) for reply in inspected if reply.status == 200]


def _uid(lab: Lab, user: str) -> int:
    return int(lab.run(user, "id", "-u").out)


def _message(reply: Reply | None) -> str:
    assert reply is not None
    return str(json.loads(reply.body)["message"])


def _audited(lab: Lab) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (lab.root / "log" / "audit.jsonl").read_text().splitlines()]


def _running(lab: Lab, user: str) -> str:
    return lab.ok(user, "run", "-d", "busybox", "sleep", "600")


def _starts(lab: Lab, container: str) -> tuple[str, str]:
    """When and as what a container was started last: unchanged if nothing has stopped it."""
    state = lab.ok(
        lab.alice, "inspect", "-f", "{{.State.Pid}} {{.State.StartedAt}} {{.State.Running}}", container
    )
    return container, state


def _moments(*, seed: int) -> dict[int, str]:
    """At which of the two hundred creates which daemon dies: each of them some times, in an order given by a seed."""
    numbers = random.Random(seed).sample(range(10, 190), len(_DAEMONS) * _ROUNDS)
    return {number: _DAEMONS[place % len(_DAEMONS)] for place, number in enumerate(numbers)}


def test_kill_anything_during_two_hundred_creates(whole: Lab) -> None:
    """Proxy, plugin and allocator die at random under load: no device twice, no lease lost or leaked, no line missing."""
    kept = _starts(whole, _running(whole, whole.alice))
    answers: list[Reply] = []
    mark = len(_audited(whole))
    moments = _moments(seed=20)

    def work(number: int) -> None:
        if number in moments:
            whole.kill(moments[number])
        user = whole.alice if number % 2 else whole.bob
        gpus = 1 if number % 3 == 0 else 0
        for _ in range(8):  # as a person would: when the server is at fault, again
            made = _create(whole, user, gpus=gpus)
            if made is not None:
                answers.append(made)
            if made is not None and made.status < 500:
                break
            time.sleep(0.25)
        if made is not None and made.status == 201 and number % 4:
            _remove(whole, user, _id(made))

    with (
        engine_opened(whole, "who holds which GPU") as engine,
        Holders(engine, whole.root / "run" / "allocator.sock") as holders,
        ThreadPoolExecutor(max_workers=4) as pool,
    ):
        list(pool.map(work, range(200)))
    assert holders.doubles() == []
    assert holders.looked_at >= 50
    assert holders.most_at_once() > 3, "hardly anything was held at once"
    assert eventually(
        lambda: whole.docker(whole.alice, "run", "--rm", "busybox").status == 0, seconds=_BACK_SECONDS
    )
    _assert_answers(answers)
    _assert_one_holder_each(whole)
    assert _starts(whole, kept[0]) == kept
    recorded = sum(
        1
        for line in _audited(whole)[mark:]
        if line.get("operation") == "ContainerCreate" and line["decision"] == "allow"
    )
    assert recorded >= sum(1 for reply in answers if reply.status == 201)
    for container in _containers(whole):
        _remove(whole, whole.alice, container["Id"])
        _remove(whole, whole.bob, container["Id"])
    assert _containers(whole) == []
    assert eventually(lambda: _leases(whole) == [], seconds=60, pause_seconds=1), _leases(whole)


def _assert_answers(answers: list[Reply]) -> None:
    """Whoever got an answer got a container, or a reason of Docker's form: never a broken or an unknown one."""
    counted = Counter(reply.status for reply in answers)
    assert counted[201] >= 50, counted
    assert set(counted) <= {201, 403, 409, 500, 503}, counted
    for reply in answers:
        if reply.status != 201:
            message = _message(reply)
            assert "ds01: " in message or "plugin ds01-authz" in message, message


def _assert_one_holder_each(lab: Lab) -> None:
    """Containers' environment, containers' labels and the ledger say the same, and no device has two holders."""
    assert eventually(lambda: not _differences(lab), seconds=60, pause_seconds=2), _differences(lab)


def _differences(lab: Lab) -> list[str]:
    containers = [each for each in _containers(lab) if devices_of(each)]
    leases = {lease["id"]: lease for lease in _leases(lab)}
    found = [
        f"{device} is in {count} containers"
        for device, count in Counter(device for each in containers for device in devices_of(each)).items()
        if count > 1
    ]
    twice = Counter(device for lease in leases.values() for device in lease["devices"])
    found += [f"{device} is leased {count} times" for device, count in twice.items() if count > 1]
    carried = set()
    for each in containers:
        labels = each["Config"]["Labels"]
        lease = leases.get(labels["ds01.lease"])
        carried.add(labels["ds01.lease"])
        if lease is None or sorted(lease["devices"]) != sorted(devices_of(each)):
            found.append(f"{each['Id'][:12]} holds {devices_of(each)} without a lease of it")
        elif (lease["container_id"], lease["owner_uid"]) != (each["Id"], int(labels["ds01.uid"])):
            found.append(
                f"lease {lease['id']} is for {lease['container_id']}, and {each['Id'][:12]} carries it"
            )
    return found + [f"lease {each} has no container" for each in leases.keys() - carried]


def test_clients_wait_for_a_killed_proxy(whole: Lab) -> None:
    """The sockets stay open while the proxy restarts: new calls wait and work, and what runs is not touched."""
    kept = _starts(whole, _running(whole, whole.alice))
    for _ in range(3):
        whole.kill("proxy")
        shown = whole.docker(whole.alice, "ps", "-q")
        assert shown.status == 0, shown
    assert _starts(whole, kept[0]) == kept


def test_whoever_waited_for_the_proxy_is_served(whole: Lab) -> None:
    """What lay in the backlog is answered like everything after it: docker's first question is not lost to a refusal."""
    for _ in range(3):
        whole.kill("proxy")
        with ThreadPoolExecutor(max_workers=20) as pool:
            asked = [pool.submit(_call, whole, whole.alice, "HEAD", "/_ping") for _ in range(20)]
        answers = [each.result() for each in asked]
        # A call on its way while the old one dies ends with it.
        assert {reply.status for reply in answers if reply is not None} == {200}, answers


def test_a_mounted_socket_outlives_the_proxy(whole: Lab) -> None:
    """A container that has its owner's socket mounted still reaches the new proxy through it."""
    path = _socket(whole, whole.alice)
    container = whole.ok(whole.alice, "run", "-d", "-v", f"{path}:/docker.sock", "busybox", "sleep", "600")
    inode = whole.ok(whole.alice, "exec", container, "stat", "-c", "%i", "/docker.sock")
    whole.kill("proxy")
    assert eventually(lambda: whole.docker(whole.alice, "ps").status == 0, seconds=10)
    assert path.stat().st_ino == int(inode)
    assert whole.ok(whole.alice, "exec", container, "stat", "-c", "%i", "/docker.sock") == inode


def test_nothing_is_allowed_while_the_plugin_is_dead(whole: Lab) -> None:
    """Held down, the plugin lets nothing through: calls wait or are refused, and are served once it is back."""
    kept = _starts(whole, _running(whole, whole.alice))
    plugin = whole.pid("authz")
    os.kill(plugin, signal.SIGSTOP)
    try:
        made = _call(whole, whole.alice, "POST", "/volumes/create", {"Name": "while-dead"}, seconds=3)
        assert made is None or made.status in (403, 500, 503), made
    finally:
        os.kill(plugin, signal.SIGKILL)
    assert eventually(lambda: _serves(whole), seconds=_BACK_SECONDS)
    assert _starts(whole, kept[0]) == kept


def test_a_killed_plugin_is_back_before_anybody_is_refused(whole: Lab) -> None:
    """Its socket stays open: dockerd's question waits for the new one."""
    for _ in range(3):
        whole.kill("authz")
        assert whole.docker(whole.alice, "ps", "-q").status == 0


def test_without_allocator_only_gpus_are_missing(whole: Lab) -> None:
    """Creates with a GPU are answered 503 with the reason; everything else works; leases are as they were."""
    made = _create(whole, whole.alice, gpus=1)
    assert made is not None
    assert made.status == 201, made
    before = _leases(whole)
    allocator = whole.pid("allocator")
    os.kill(allocator, signal.SIGSTOP)
    try:
        began = time.monotonic()
        assert whole.docker(whole.bob, "ps").status == 0
        assert whole.docker(whole.bob, "run", "--rm", "busybox", "true").status == 0
        assert time.monotonic() - began < 8
        refused = _create(whole, whole.bob, gpus=1)
        assert refused is not None
        assert refused.status == 503
        assert "no GPU can be leased" in _message(refused)
    finally:
        os.kill(allocator, signal.SIGKILL)
    assert eventually(lambda: _serves(whole), seconds=_BACK_SECONDS)
    assert [lease for lease in _leases(whole) if lease in before] == before


def test_a_hung_driver_holds_up_nothing_but_gpus(whole: Lab) -> None:
    """NVML that never answers costs creates with a GPU a reason, and nobody else anything."""
    simulate.hang(_nvml(whole), "*", milliseconds=60_000)
    assert eventually(lambda: _refuses_gpus(whole), seconds=30), "the hang was not noticed"
    began = time.monotonic()
    assert whole.docker(whole.alice, "ps").status == 0
    assert whole.docker(whole.alice, "run", "--rm", "busybox", "true").status == 0
    assert time.monotonic() - began < 8


def _refuses_gpus(lab: Lab) -> bool:
    reply = _create(lab, lab.alice, gpus=1)
    if reply is not None and reply.status == 201:
        _remove(lab, lab.alice, _id(reply))
    return reply is not None and reply.status == 503 and "NVIDIA driver" in _message(reply)


def test_a_lost_gpu_is_leased_again_when_a_person_says_so(whole: Lab) -> None:
    """Its lease is marked lost and keeps it; nobody gets the device, not even when it answers again by itself."""
    made = _create(whole, whole.alice, gpus=1)
    assert made is not None
    (lease,) = _leases(whole)
    (device,) = lease["devices"]
    simulate.lose_gpu(_nvml(whole), device)
    assert eventually(lambda: [each["state"] for each in _leases(whole)] == ["lost"], seconds=20)
    asked: dict[str, Any] = {"DeviceRequests": [{"DeviceIDs": [device], "Capabilities": [["gpu"]]}]}
    refused = _create(whole, whole.bob, **asked)
    assert refused is not None
    assert refused.status in (409, 503), refused
    assert _remove(whole, whole.alice, _id(made)) == 204
    again = _create(whole, whole.bob, **asked)
    assert again is not None
    assert again.status in (409, 503), again
    simulate.heal(_nvml(whole))
    time.sleep(6)  # a look or two
    still = _create(whole, whole.bob, **asked)
    assert still is not None
    assert (still.status, "quarantined" in _message(still)) == (409, True), still
    put_back = whole.run("root", "ds01", "gpu", "unquarantine", device, "--reason", "looked at")
    assert put_back.status == 0, put_back
    assert eventually(lambda: _gets(whole, whole.bob, asked), seconds=30, pause_seconds=1)


def _gets(lab: Lab, user: str, asked: dict[str, Any]) -> bool:
    reply = _create(lab, user, **asked)
    return reply is not None and reply.status == 201 and _remove(lab, user, _id(reply)) == 204


def test_a_killed_engine_comes_back_with_its_owners(whole: Lab) -> None:
    """While dockerd is away the answer says so; afterwards everybody has their own again, and only their own."""
    names = {
        user: whole.ok(user, "create", "--name", f"kept-{secrets.token_hex(3)}", "busybox")
        for user in (whole.alice, whole.bob)
    }
    gpu = _create(whole, whole.alice, gpus=1)
    assert gpu is not None
    engine = whole.pid("dockerd")
    os.kill(engine, signal.SIGKILL)
    messages = []
    while (reply := _call(whole, whole.alice, "GET", "/version")) is None or reply.status != 200:
        assert reply is None or reply.status == 503, reply
        messages += [] if reply is None else [_message(reply)]
        assert len(messages) < 400
        time.sleep(0.1)
    assert all("engine" in message for message in messages), set(messages)
    assert eventually(lambda: whole.docker(whole.alice, "ps").status == 0, seconds=_BACK_SECONDS)
    seen = {user: whole.ok(user, "ps", "-aq", "--no-trunc").split() for user in names}
    assert sorted(seen[whole.alice]) == sorted([names[whole.alice], _id(gpu)])
    assert seen[whole.bob] == [names[whole.bob]]
    assert whole.docker(whole.bob, "rm", names[whole.alice]).status != 0
    _assert_one_holder_each(whole)
