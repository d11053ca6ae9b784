"""Docker SDKs through a user's own socket: docker-py and testcontainers, unmodified."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

import docker
import pytest
from docker.errors import APIError, NotFound
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import LogMessageWaitStrategy

from tests.integration.conftest import DOCKER_PY, Lab

pytestmark = [
    pytest.mark.dockerd,
    *DOCKER_PY,
]


@pytest.fixture
def client(clean_lab: Lab) -> Iterator[docker.DockerClient]:
    """docker-py on alice's socket; host root passes there as alice."""
    made = docker.DockerClient(base_url=clean_lab.socket(clean_lab.alice), timeout=60)
    yield made
    made.close()


def test_run_gives_output_and_exit_code(client: docker.DockerClient) -> None:
    """`containers.run` returns the output, and raises with the exit code of a failure."""
    assert client.containers.run("busybox", "echo hi", remove=True) == b"hi\n"
    with pytest.raises(docker.errors.ContainerError) as failed:
        client.containers.run("busybox", "sh -c 'exit 3'", remove=True)
    assert failed.value.exit_status == 3


def test_exec_logs_stats_and_top(client: docker.DockerClient) -> None:
    """Calls on a running container, the raw-stream exec without Upgrade included."""
    container = client.containers.run("busybox", "sh -c 'echo started; sleep 300'", detach=True, name="sdk")
    assert container.exec_run("sh -c 'echo out; echo err >&2; exit 4'", demux=True) == (
        4,
        (b"out\n", b"err\n"),
    )
    assert next(container.logs(stream=True, follow=True)) == b"started\n"
    assert container.stats(stream=False)["name"] == "/sdk"
    assert "sleep 300" in container.top()["Processes"][0][-1]
    assert client.containers.get("sdk").id == container.id
    container.remove(force=True)
    with pytest.raises(NotFound):
        client.containers.get("sdk")


def test_attach_socket_carries_both_ways(client: docker.DockerClient) -> None:
    """An attached socket takes input, its half-close ends it, and the output comes back."""
    container = client.containers.create("busybox", "cat", stdin_open=True)
    attached = container.attach_socket(params={"stdin": 1, "stdout": 1, "stream": 1})
    container.start()
    raw = attached._sock
    raw.sendall(b"through the hijack\n")
    raw.shutdown(1)
    received = b""
    while piece := raw.recv(4096):
        received += piece
    assert received.endswith(b"through the hijack\n")
    assert container.wait()["StatusCode"] == 0
    container.remove()


def test_archive_goes_in_and_out(client: docker.DockerClient) -> None:
    """A tar put into a container comes out again."""
    container = client.containers.create("busybox", "true")
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as archive:
        member = tarfile.TarInfo("note")
        member.size = 4
        archive.addfile(member, io.BytesIO(b"text"))
    assert container.put_archive("/tmp", packed.getvalue())
    chunks, stat = container.get_archive("/tmp/note")
    with tarfile.open(fileobj=io.BytesIO(b"".join(chunks))) as archive:
        content = archive.extractfile("note")
        assert content is not None
        assert content.read() == b"text"
    assert stat["size"] == 4
    container.remove()


def test_build_tag_and_remove(client: docker.DockerClient, clean_lab: Lab) -> None:
    """An image built by the classic builder is its maker's to tag and to remove, and nobody else's."""
    image, _ = client.images.build(
        fileobj=io.BytesIO(b"FROM busybox\nRUN echo 1 > /one\n"), tag="sdkimage", rm=True
    )
    assert image.tag("sdkimage", "two")
    assert client.containers.run("sdkimage:two", "cat /one", remove=True) == b"1\n"
    bob = docker.DockerClient(base_url=clean_lab.socket(clean_lab.bob))
    with pytest.raises(APIError, match="No such image"):
        bob.images.remove("sdkimage:two")
    bob.close()
    client.images.remove("sdkimage:two")
    client.images.remove("sdkimage")


def test_volumes_networks_and_events(client: docker.DockerClient, clean_lab: Lab) -> None:
    """Objects are made, listed and removed; events tell their maker and nobody else."""
    bob = docker.DockerClient(base_url=clean_lab.socket(clean_lab.bob))
    stream, foreign = client.events(decode=True), bob.events(decode=True)
    volume = client.volumes.create("sdkdata")
    network = client.networks.create("sdknet")
    assert next(stream)["Actor"]["ID"] == "sdkdata"
    assert next(stream)["Actor"]["Attributes"]["name"] == "sdknet"
    assert [each.name for each in client.volumes.list()] == ["sdkdata"]
    assert bob.volumes.list() == []
    assert "sdknet" not in [each.name for each in bob.networks.list()]
    mine = bob.volumes.create("bobdata")
    assert next(foreign)["Actor"]["ID"] == "bobdata", "the first event bob sees is his own"
    for stream_of in (stream, foreign):
        stream_of.close()
    for made in (volume, network, mine):
        made.remove()
    bob.close()


def test_testcontainers_work(clean_lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    """A container of the library starts, logs, maps a port and goes away."""
    monkeypatch.setenv("DOCKER_HOST", clean_lab.socket(clean_lab.alice))
    # Its reaper image cannot be pulled here.
    monkeypatch.setattr("testcontainers.core.config.testcontainers_config.ryuk_disabled", True)
    with (
        DockerContainer("busybox")
        .with_command("sh -c 'echo ready; sleep 60'")
        .with_exposed_ports(80) as container
    ):
        container.waiting_for(LogMessageWaitStrategy("ready"))
        assert int(container.get_exposed_port(80)) > 0
        code, output = container.exec("echo inside")
        assert (code, output) == (0, b"inside\n")
    assert clean_lab.docker(clean_lab.alice, "ps", "-aq").out == ""
