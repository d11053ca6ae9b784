"""docker-py and testcontainers: programs that two users run at the same time, the reaper of what a crash leaves included."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from testcontainers.core.config import testcontainers_config

from tests.integration.clients.workflow import Workflow, side_by_side, step
from tests.integration.conftest import Lab, eventually

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(600)]

PYTHON = sys.executable
DOCKER_PY = """
import io, tarfile, docker

client = docker.from_env(timeout=120)
print("version", client.version()["ApiVersion"])
image, words = client.images.build(
    fileobj=io.BytesIO(b"FROM busybox\\nRUN echo %tag% > /made\\nCMD cat"), tag="%tag%-py", rm=True)
print("built", image.tags)
print("ran", client.containers.run("%tag%-py", "cat /made", remove=True).decode())
network = client.networks.create("%tag%-py")
volume = client.volumes.create("%tag%-py")
box = client.containers.run(
    "%tag%-py", "sh -c 'echo up; sleep 600'", detach=True, name="%tag%-py", network=network.name,
    volumes={volume.name: {"bind": "/data"}, "%home%": {"bind": "/live", "mode": "ro"}},
    labels={"of": "%tag%"}, environment={"WHO": "%tag%"}, ports={"80/tcp": %port%}, mem_limit="64m")
print("listed", [each.name for each in client.containers.list(filters={"label": "of=%tag%"})])
print("exec", box.exec_run("sh -c 'echo $WHO; ls /live'").output.decode())
print("log", next(box.logs(stream=True, follow=True)))
packed = io.BytesIO()
with tarfile.open(fileobj=packed, mode="w") as archive:
    member = tarfile.TarInfo("note"); member.size = 4
    archive.addfile(member, io.BytesIO(b"text"))
print("put", box.put_archive("/data", packed.getvalue()))
print("got", box.get_archive("/data/note")[1]["size"])
print("stats", box.stats(stream=False)["name"])
print("top", len(box.top()["Processes"]))
gpu = client.containers.run("busybox", "cat /run/ds01-sim/visible", remove=True,
    device_requests=[docker.types.DeviceRequest(count=1, capabilities=[["gpu"]])])
print("gpu", gpu.decode())
attached = client.containers.create("%tag%-py", stdin_open=True)
wire = attached.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
attached.start()
wire._sock.sendall(b"through %tag%"); wire._sock.shutdown(1)
received = b""
while piece := wire._sock.recv(4096):
    received += piece
print("attached", received[8:].decode(), attached.wait()["StatusCode"])
attached.remove()
box.restart(timeout=0)
box.reload()
print("state", box.status)
box.remove(force=True)
network.remove(); volume.remove(); client.images.remove("%tag%-py")
print("left", client.containers.list(all=True))
"""
SDK = Workflow(
    files={"program.py": DOCKER_PY, "seen-inside": ""},
    steps=(
        step(
            f"{PYTHON} program.py", "version 1.", "built ['%tag%-py:latest']", "ran %tag%", "listed ['%tag%-py']",
            "exec %tag%\nprogram.py\nseen-inside", "log b'up\\n'", "put True", "got 4", "stats /%tag%-py", "top 1",
            "gpu ", "-", "attached through %tag% 0", "state running", "left []",
        ),
    ),
)  # fmt: skip

TESTCONTAINERS = """
import os, sys
from testcontainers.core.container import DockerContainer
from testcontainers.core.image import DockerImage
from testcontainers.core.network import Network
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

with Network() as network, DockerImage(path=".", tag="%tag%-tc") as image:
    print("image", str(image))
    box = DockerContainer(str(image)).with_network(network).with_network_aliases("box")
    box.with_env("WHO", "%tag%").with_exposed_ports(80).with_volume_mapping("%home%", "/live")
    with box:
        box.waiting_for(LogMessageWaitStrategy("ready"))
        print("port", int(box.get_exposed_port(80)) > 0)
        print("exec", box.exec(["sh", "-c", "echo $WHO; ls /live"]).output.decode())
        print("logs", box.get_logs()[0].decode())
        with DockerContainer("busybox").with_network(network).with_command("ping -c1 box") as other:
            other.waiting_for(LogMessageWaitStrategy("1 packets received"))
            print("heard")
left = DockerContainer("busybox").with_command("sleep 600").with_name("%tag%-left").start()
print("left", left.get_wrapped_container().name, flush=True)
os._exit(9)
"""
DOCKERFILE = 'FROM busybox\nCMD ["sh", "-c", "echo ready for $WHO; sleep 600"]\n'
IN_TESTS = Workflow(
    files={"program.py": TESTCONTAINERS, "Dockerfile": DOCKERFILE},
    steps=(
        step(
            f"env TESTCONTAINERS_HOST_OVERRIDE=%address% {PYTHON} program.py", "image %tag%-tc", "port True", "exec %tag%",
            "logs ready for %tag%", "heard", "left %tag%-left", "program.py", "Dockerfile", fails=True,
        ),
        step("docker ps --format {{.Image}}", "ryuk", "busybox"),
    ),
)  # fmt: skip

# Speaks the protocol of testcontainers' reaper: a filter per line, an ACK for each, and what they name is removed once
# the connection has ended. It works through the socket mounted into it.
REAPER = """#!/bin/sh
echo "reaper: Started!"
nc -l -p 8080 -e /bin/reaper-session
sleep 1
while read -r filter; do
    for id in $(docker ps -aq --filter "$filter"); do docker rm -f -v "$id"; done
    for id in $(docker network ls -q --filter "$filter"); do docker network rm "$id"; done
    for id in $(docker volume ls -q --filter "$filter"); do docker volume rm "$id"; done
done < /filters
"""
SESSION = """#!/bin/sh
while read -r filter; do
    echo "$filter" | tr -d '\\r' >> /filters
    echo ACK
done
"""


def test_docker_py_works_unchanged(clean_lab: Lab) -> None:
    """Build, run, exec, attach, archives, statistics and a GPU, by two users at the same time."""
    side_by_side(clean_lab, SDK)


@pytest.fixture
def reaper(clean_lab: Lab) -> Iterator[Lab]:
    """The image the library starts beside every test, from files of this machine instead of a registry."""
    home = Path("/home", clean_lab.alice, "reaper")
    home.mkdir()
    for name, content in {"reaper": REAPER, "reaper-session": SESSION}.items():
        (home / name).write_text(content)
        (home / name).chmod(0o755)
    shutil.copy(shutil.which("docker") or "docker", home / "docker")
    (home / "Dockerfile").write_text(
        'FROM busybox\nCOPY docker reaper reaper-session /bin/\nCMD ["/bin/reaper"]\n'
    )
    admin = f"unix://{clean_lab.root}/run/admin.sock"
    name = testcontainers_config.ryuk_image
    built = clean_lab.docker("root", "build", "-q", "-t", name, str(home), host=admin)
    assert built.status == 0, built.err
    yield clean_lab
    clean_lab.docker("root", "rmi", "-f", name, host=admin)
    shutil.rmtree(home)


def test_testcontainers_and_their_reaper_work_unchanged(reaper: Lab) -> None:
    """Networks, images and containers come and go; what a crashed program left is reaped, each user's by their own reaper."""
    lab = reaper
    side_by_side(lab, IN_TESTS)

    def reaped() -> bool:
        return not any(lab.docker(user, "ps", "-aq").out for user in (lab.alice, lab.bob))

    assert eventually(reaped, seconds=30), "the reaper left something"
