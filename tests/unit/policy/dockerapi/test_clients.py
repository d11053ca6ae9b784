"""Requests recorded from real clients are read, and written so that the plugin reads the same."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from policy.dockerapi.model import Incoming, Payload
from policy.dockerapi.read import read
from policy.dockerapi.routes import ROUTE_OF
from policy.dockerapi.write import write
from policy.model import CheckBind, Effect, Kind, LeaseGpus, ObjectFact, SetField
from tests.fakes.policy_world import decide, host_config

CLIENTS = Path(__file__).parents[3] / "corpus" / "clients"
RECORDED = sorted(CLIENTS.glob("*/*.json"))


def recorded(path: Path) -> Incoming:
    record: dict[str, Any] = json.loads(path.read_text())
    streamed = any(part in record["target"] for part in ("/archive?path=%2F", "/images/load", "/build?"))
    body = None if streamed or not record["body"] else record["body"].encode()
    headers = tuple((name, value) for name, value in record["headers"])
    return Incoming(method=record["method"], target=record["target"], headers=headers, body=body)


@pytest.mark.parametrize("path", RECORDED, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_real_clients_are_understood(path: Path) -> None:
    """No recorded request is refused, and what is written reads back as it was."""
    request = read(recorded(path), engine_max=(1, 41))
    outgoing = write(request)
    reread = Incoming(
        method=outgoing.method, target=outgoing.target, headers=outgoing.headers, body=outgoing.body
    )
    assert read(reread, engine_max=(1, 41)) == request
    assert (outgoing.body is not None) == (ROUTE_OF[request.operation].payload is Payload.JSON)


def test_docker_run_with_gpus_keeps_what_it_asks_for() -> None:
    """`docker run -it --gpus all -v /srv:/w -p 8080:80 -e A=b busybox sh` loses only its zeros."""
    request = read(recorded(CLIENTS / "docker-cli-28" / "container_create.json"), engine_max=(1, 41))
    body = dict(request.body or {})
    assert (body["Cmd"], body["Env"], body["Tty"], body["Image"]) == (["sh"], ["A=b"], True, "busybox")
    assert body["HostConfig"] == {
        "Binds": ["/srv:/w"],
        "ConsoleSize": [0, 0],
        "DeviceRequests": [{"Capabilities": [["gpu"]], "Count": -1}],
        "MemorySwappiness": -1,
        "NetworkMode": "default",
        "PidsLimit": 0,
        "PortBindings": {"80/tcp": [{"HostPort": "8080"}]},
        "RestartPolicy": {"Name": "no"},
    }


def test_a_dev_container_is_softened_and_not_refused() -> None:
    """What templates for debuggers ask for is left out with a word about it; folder, socket, volumes and a GPU stay."""
    request = read(recorded(CLIENTS / "devcontainer-cli-0.89" / "container_create.json"), engine_max=(1, 41))
    image = ObjectFact(kind=Kind.IMAGE, id="sha256:1", owner=None, shared=True)
    known: Any = {(request.body or {})["Image"]: image}
    decision = decide(request, **known)
    assert decision.effect is Effect.ALLOW, decision.reasons
    written = host_config(request, decision)
    assert (written.get("CapAdd"), written.get("SecurityOpt")) in ((None, None), ([], []))
    assert written["IpcMode"] == "private"
    notes = " ".join(each.note for each in decision.obligations if isinstance(each, SetField))
    assert all(word in notes for word in ("CapAdd CAP_SYS_PTRACE", "seccomp=unconfined", "--ipc=host"))
    assert [each.count for each in decision.obligations if isinstance(each, LeaseGpus)] == [1]
    sources = {each.target: each.source for each in decision.obligations if isinstance(each, CheckBind)}
    assert sources["/workspaces/project"] == "/home/alice/project"
    mounts = {each["Target"]: each["Source"] for each in written["Mounts"]}
    assert mounts["/var/run/docker.sock"] == "/run/ds01/users/alice/docker.sock"
    assert {"/cache", "/vscode"} <= set(mounts)
