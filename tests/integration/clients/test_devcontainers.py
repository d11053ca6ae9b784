"""The Dev Containers CLI, which VS Code uses too: image with a feature, socket, GPU, and what debuggers like to ask for."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.clients.workflow import (
    BUILDKIT_SINCE,
    Workflow,
    client,
    major,
    plugin,
    side_by_side,
    step,
)
from tests.integration.conftest import Lab

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(900)]

CONFIGURATION = """
{
  "name": "%tag%",
  "build": {"dockerfile": "Dockerfile"},
  %features%
  "remoteUser": "dev",
  "hostRequirements": {"gpu": "optional"},
  "updateRemoteUserUID": true,
  "containerEnv": {"WORKING_ON": "%tag%"},
  "runArgs": ["--cap-add=SYS_PTRACE", "--security-opt", "seccomp=unconfined", "--ipc=host", "--name", "%tag%-dev"],
  "mounts": [
    "source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind",
    "source=%tag%-cache,target=/cache,type=volume"
  ],
  "onCreateCommand": "echo created > /tmp/created",
  "postCreateCommand": {"one": "echo 1 > /tmp/one", "two": ["sh", "-c", "echo 2 > /tmp/two"]},
  "postStartCommand": "echo started >> /tmp/started"
}
"""
SOCKET = '"source=/var/run/docker.sock,target=/var/run/docker.sock,type=bind",'
assert SOCKET in CONFIGURATION
DOCKERFILE = """
FROM debian:12
RUN useradd --create-home --shell /bin/bash --uid 4321 dev
COPY docker /usr/local/bin/docker
"""
FEATURE = '{"id": "hello", "version": "1.0.0", "options": {"to": {"type": "string", "default": "nobody"}}}'
INSTALL = '#!/bin/sh\nset -e\nprintf "#!/bin/sh\\necho hello $TO\\n" > /usr/local/bin/hello\nchmod 0755 /usr/local/bin/hello\n'
# What docker-outside-of-docker asks for, and what it does with the socket. SOURCE: github.com/devcontainers/features 1.10.0.
OUTSIDE = """{
  "id": "outside", "version": "1.0.0", "entrypoint": "/usr/local/share/docker-init.sh", "securityOpt": ["label=disable"],
  "mounts": [{"source": "/var/run/docker.sock", "target": "/var/run/docker-host.sock", "type": "bind"}]
}"""
INSTALL_OUTSIDE = """#!/bin/sh
set -e
printf '#!/bin/sh\\nln -sf /var/run/docker-host.sock /var/run/docker.sock\\nexec "$@"\\n' > /usr/local/share/docker-init.sh
chmod 0755 /usr/local/share/docker-init.sh
"""
FEATURES = '"features": {"./hello": {"to": "%tag%"}, "./outside": {}},'
AT = "devcontainer exec --workspace-folder ."
DEVCONTAINERS = Workflow(
    files={
        ".devcontainer/devcontainer.json": CONFIGURATION.replace("%features%", ""),
        ".devcontainer/Dockerfile": DOCKERFILE,
        "main.py": "of %tag%\n",
    },
    steps=(
        step("cp %docker% .devcontainer/docker"),
        step("devcontainer read-configuration --workspace-folder .", '"name":"%tag%"'),
        step("devcontainer build --workspace-folder . --image-name %tag%-built", '"outcome":"success"'),
        step("docker run --rm %tag%-built id dev", "4321"),
        step("devcontainer up --workspace-folder .", '"outcome":"success"', '"remoteUser":"dev"'),
        step(f"{AT} id -un", "dev"),
        step(f"{AT} cat main.py /tmp/created /tmp/one /tmp/two /tmp/started", "of %tag%", "created", "1", "2", "started"),
        step(f"{AT} sh -c 'echo $WORKING_ON'", "%tag%"),
        step(f"{AT} sh -c 'echo by dev > made-inside'"),
        step("stat -c %U made-inside", "%user%"),
        step(f"{AT} cat /run/ds01-sim/visible", "-"),
        step(f"{AT} docker ps --format {{{{.Names}}}}", "%tag%-dev"),
        step(f"{AT} docker run --rm busybox echo beside %tag%", "beside %tag%"),
        step(f"{AT} sh -c 'exit 3'", fails=True),
        step("devcontainer up --workspace-folder .", '"outcome":"success"'),
        step("docker ps -a --filter label=devcontainer.local_folder=%home% --format {{.Names}}", "%tag%-dev"),
        step("docker stop -t 0 %tag%-dev"),
        step("devcontainer up --workspace-folder .", '"outcome":"success"'),
        step(f"{AT} wc -l /tmp/started", "2 /tmp/started"),
        step("devcontainer run-user-commands --workspace-folder .", '"result":"done"'),
        step("devcontainer up --workspace-folder . --gpu-availability none --remove-existing-container",
             '"outcome":"success"'),
        step(f"{AT} ls /dev", hides=("nvidia",)),
        step(f"{AT} wc -l /tmp/started", "1 /tmp/started"),
        step("docker rm -f %tag%-dev"),
        step("docker volume rm %tag%-cache"),
    ),
)  # fmt: skip
WITH_FEATURE = Workflow(
    files={
        **DEVCONTAINERS.files,
        ".devcontainer/devcontainer.json": CONFIGURATION.replace(SOCKET, "").replace("%features%", FEATURES),
        ".devcontainer/hello/devcontainer-feature.json": FEATURE,
        ".devcontainer/hello/install.sh": INSTALL,
        ".devcontainer/outside/devcontainer-feature.json": OUTSIDE,
        ".devcontainer/outside/install.sh": INSTALL_OUTSIDE,
    },
    steps=(
        *DEVCONTAINERS.steps[:3],
        step("docker run --rm %tag%-built hello", "hello %tag%"),
        *DEVCONTAINERS.steps[4:8],
        step(f"{AT} hello", "hello %tag%"),
        step(f"{AT} stat -c %F /run/docker-host.sock", "socket"),
        step(f"{AT} docker ps --format {{{{.Names}}}}", "%tag%-dev"),
        *DEVCONTAINERS.steps[-2:],
    ),
)


IN_A_PROJECT = """{
  "name": "%tag%", "dockerComposeFile": "compose.yaml", "service": "app", "workspaceFolder": "/work",
  "remoteUser": "dev", "updateRemoteUserUID": true, "postCreateCommand": "echo created > /tmp/created"
}"""
COMPOSE = """
services:
  app:
    build: {context: .}
    command: sleep infinity
    init: true
    volumes: ["..:/work", "cache:/cache"]
    environment: {WORKING_ON: "%tag%"}
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
  db:
    image: busybox
    command: sh -c 'echo page of %tag% > /index.html; exec httpd -f'
    stop_grace_period: 0s
volumes: {cache: {}}
"""
FETCH = "exec 3<>/dev/tcp/db/80; printf 'GET /index.html HTTP/1.0\\r\\n\\r\\n' >&3; cat <&3\n"
OF_PROJECT = "docker compose -p %tag%work_devcontainer"
WITH_COMPOSE = Workflow(
    files={
        ".devcontainer/devcontainer.json": IN_A_PROJECT,
        ".devcontainer/compose.yaml": COMPOSE,
        "fetch": FETCH,
        ".devcontainer/Dockerfile": DOCKERFILE,
        "main.py": "of %tag%\n",
    },
    steps=(
        step("cp %docker% .devcontainer/docker"),
        step("devcontainer read-configuration --workspace-folder .", '"name":"%tag%"'),
        step("devcontainer build --workspace-folder .", '"outcome":"success"'),
        step("devcontainer up --workspace-folder .", '"outcome":"success"', '"composeProjectName":"%tag%work_devcontainer"'),
        step(f"{AT} id -un", "dev"),
        step(f"{AT} cat main.py /tmp/created /run/ds01-sim/visible", "of %tag%", "created", "-"),
        step(f"{AT} sh -c 'echo by dev > made-inside; echo $WORKING_ON'", "%tag%"),
        step("stat -c %U made-inside", "%user%"),
        step(f"{AT} bash fetch", "page of %tag%"),
        step(f"{OF_PROJECT} ps --format {{{{.Service}}}}", "app", "db"),
        step(f"{OF_PROJECT} stop -t 0"),
        step("devcontainer up --workspace-folder .", '"outcome":"success"'),
        step(f"{AT} cat /tmp/created", "created"),
        step("devcontainer up --workspace-folder . --remove-existing-container", '"outcome":"success"'),
        step(f"{OF_PROJECT} down -v -t 0 --rmi local"),
        step("docker ps -aq", hides=("0", "1", "2", "3")),
    ),
)  # fmt: skip


@pytest.fixture
def machine(debian: Lab) -> Iterator[Lab]:
    """The lab with a base image, and no files of the client's from accounts that had these names before."""

    def clear() -> None:
        for user in (debian.alice, debian.bob):
            shutil.rmtree(Path(tempfile.gettempdir(), f"devcontainercli-{user}"), ignore_errors=True)

    clear()
    yield debian
    clear()


def test_dev_containers_work_unchanged(machine: Lab) -> None:
    """devcontainer build, up, exec, features, user ids, socket and GPU, by two users at the same time."""
    side_by_side(machine, DEVCONTAINERS, programs=client("devcontainer"))


def test_features_of_dev_containers_work_unchanged(machine: Lab) -> None:
    """A feature is installed into the image and configured, by two users at the same time."""
    programs = client("devcontainer")
    if major(machine) < BUILDKIT_SINCE:
        side_by_side(machine, WITH_FEATURE, programs=programs)
        return
    with plugin(machine, client("buildx", "docker-buildx") / "docker-buildx"):
        side_by_side(machine, WITH_FEATURE, programs=programs)


def test_dev_containers_in_a_compose_project_work_unchanged(machine: Lab) -> None:
    """A service of a compose project as the development container, by two users at the same time."""
    compose = client("compose-2", "docker-compose") / "docker-compose"
    with plugin(machine, compose):
        side_by_side(machine, WITH_COMPOSE, programs=client("devcontainer"))
