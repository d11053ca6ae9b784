"""docker-compose and `docker compose`: a project with a build, volumes, networks, profiles, health checks and a GPU."""

from __future__ import annotations

import contextlib
from dataclasses import replace

import pytest

from tests.integration.clients.workflow import (
    Workflow,
    client,
    major,
    needs_buildkit,
    plugin,
    side_by_side,
    step,
)
from tests.integration.conftest import Lab

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(600)]

PROJECT = """
services:
  db:
    image: busybox
    command: sh -c 'echo db of %tag%; touch /data/ready; sleep 600'
    stop_grace_period: 0s
    healthcheck: {test: [CMD, test, -e, /data/ready], interval: 1s, retries: 30}
    volumes: ["data:/data"]
    networks: [back]
  web:
    build: {context: ., args: {WHO: "%tag%"}}
    depends_on: {db: {condition: service_healthy}}
    environment: {GREETING: "hello %tag%"}
    stop_grace_period: 0s
    volumes: ["./site:/srv:ro", "data:/data:ro"]
    ports: ["%port%:80"]
    networks: [front, back]
  train:
    image: busybox
    profiles: [gpu]
    command: sh -c 'cat /run/ds01-sim/visible; ls /dev'
    network_mode: none
    deploy: {resources: {reservations: {devices: [{driver: nvidia, count: 1, capabilities: [gpu]}]}}}
volumes: {data: {}}
networks: {front: {}, back: {internal: true}}
"""
DOCKERFILE = """
FROM busybox
ARG WHO
RUN echo made for $WHO > /made
CMD ["httpd", "-f", "-h", "/srv"]
"""

COMPOSE_2 = """
include: [extra.yaml]
services:
  app:
    image: busybox
    command: sh -c 'cat /etc/app.conf /run/secrets/word; stat -c "%u owns it with %a" /etc/app.conf; sleep 600'
    init: true
    stop_grace_period: 0s
    healthcheck: {test: [CMD, test, -e, /etc/app.conf], interval: 1s, start_period: 5s}
    configs: [{source: conf, target: /etc/app.conf, uid: "7", mode: 0440}]
    secrets: [word]
    volumes: [{type: tmpfs, target: /scratch}, {type: bind, source: ./made-by-compose, target: /made}]
    depends_on: {first: {condition: service_completed_successfully}}
  first: {extends: {file: base.yaml, service: base}, command: echo first of %tag%}
  train: {extends: {file: base.yaml, service: base}, profiles: [gpu], command: cat /run/ds01-sim/visible, gpus: all}
configs: {conf: {content: "config of %tag%"}}
secrets: {word: {environment: HOME}}
"""
BASE = "services: {base: {image: busybox, network_mode: none}}\n"
EXTRA = """
services:
  beside: {image: busybox, command: sleep 600, stop_grace_period: 0s, scale: 2}
"""


# What is up need not listen yet.
SERVED = "timeout 20 sh -c 'until busybox wget -qO- http://%address%:%port%/; do sleep 0.2; done'"
# docker-compose 1.29 cannot recreate a container on newer engines, with ds01 or without: it reads a field of images that
# they no longer have (ContainerConfig).
COMPOSE_1_RECREATES_BEFORE = 25


def project(compose: str, name: str, *, recreate: bool = True) -> Workflow:
    """The same steps for each compose; `name` is the project's."""
    lines = (
        step("config", "service_healthy"),
        step("build"),
        step("up -d"),
        step("ps", "db", "web"),
        step("exec -T web sh -c 'echo $GREETING; cat /made'", "hello %tag%", "made for %tag%"),
        step("exec -T web ping -c1 db", "1 packets received"),
        step("exec -T web cat /data/ready"),
        step("logs --no-color db", "db of %tag%"),
        step("port web 80", "%port%"),
        step("run --rm -T web cat /srv/index.html", "page of %tag%"),
        step("top", "httpd"),
        step("images", "busybox"),
        step("up -d", hides=("Recreat",)),
        step("restart -t 0 web"),
        step("pause"),
        step("unpause"),
        step("stop -t 0"),
        step("start"),
        step("--profile gpu run --rm -T train", "-", "nvidiactl"),
        step("up -d --force-recreate -t 0 web" if recreate else "up -d web"),
        step("rm -f -s web"),
        step("down -v --rmi local -t 0"),
    )
    return Workflow(
        files={"compose.yaml": PROJECT, "Dockerfile": DOCKERFILE, "site/index.html": "page of %tag%\n"},
        steps=(
            *(replace(one, line=f"{compose} -p {name} {one.line}") for one in lines[:3]),
            step(SERVED, "page of %tag%"),
            *(replace(one, line=f"{compose} -p {name} {one.line}") for one in lines[3:]),
            step("docker ps -aq", hides=("0", "1", "2", "3")),
            step("docker volume ls -q", hides=("data",)),
        ),
    )


def test_docker_compose_1_works_unchanged(clean_lab: Lab) -> None:
    """docker-compose 1.29, by two users at the same time."""
    recreate = major(clean_lab) < COMPOSE_1_RECREATES_BEFORE
    side_by_side(clean_lab, project("docker-compose", "%tag%", recreate=recreate))


@pytest.mark.parametrize("buildx", [False, True], ids=["without buildx", "buildx"])
def test_docker_compose_2_works_unchanged(clean_lab: Lab, *, buildx: bool) -> None:
    """`docker compose` 2.40, a plugin of the docker CLI, by two users at the same time."""
    compose, builder = client("compose-2", "docker-compose"), client("buildx", "docker-buildx")
    if buildx:
        needs_buildkit(clean_lab)
    with contextlib.ExitStack() as plugins:
        plugins.enter_context(plugin(clean_lab, compose / "docker-compose"))
        if buildx:
            plugins.enter_context(plugin(clean_lab, builder / "docker-buildx"))
        side_by_side(clean_lab, project("docker compose", "%tag%"))


def test_what_only_compose_2_has_works_unchanged(clean_lab: Lab) -> None:
    """include, extends, scale, --wait, inline configs and secrets, `gpus:`, cp and more, by two users at the same time."""
    compose = client("compose-2", "docker-compose") / "docker-compose"
    lines = (
        step("config --services", "beside", "app"),
        step("up -d --wait", "Healthy"),
        step("ps --format {{.Name}}", "%tag%-app-1", "%tag%-beside-2"),
        # compose uploads both as a tar before the start, with the owner and the mode that the file asks for.
        step("logs --no-log-prefix app", "config of %tag%", "/home/%user%", "7 owns it with 440"),
        step("logs first", "first of %tag%"),
        step("exec -T app sh -c 'touch /made/inside /scratch/x; ls -d /made/inside'", "/made/inside"),
        step("cp app:/etc/app.conf copied"),
        step("stats --no-stream app", "%tag%-app-1"),
        step("up -d --scale beside=1", hides=("Recreate",)),
        step("ps -q beside"),
        step("--profile gpu run --rm -T train", "-"),
        step("kill -s KILL beside"),
        step("ls -a", "%tag%"),
        step("images", "busybox"),
        step("volumes"),
        step("down -v -t 0 --remove-orphans"),
    )
    workflow = Workflow(
        files={
            "compose.yaml": COMPOSE_2,
            "extra.yaml": EXTRA,
            "base.yaml": BASE,
            "made-by-compose/.keep": "",
        },
        steps=(
            *(replace(one, line=f"docker compose -p %tag% {one.line}") for one in lines),
            step("cat copied", "config of %tag%"),
            step("stat -c %U made-by-compose", "%user%"),
            step("docker ps -aq", hides=("0", "1", "2", "3")),
        ),
    )
    with plugin(clean_lab, compose):
        side_by_side(clean_lab, workflow)


def test_the_same_project_of_two_users_works_unchanged(clean_lab: Lab) -> None:
    """Both call their project, its services, volumes and networks the same, and neither notices.

    Nothing is built in it: names of images are one space for all, and the second `shop_web` would be refused.
    """
    recreate = major(clean_lab) < COMPOSE_1_RECREATES_BEFORE
    shop = project("docker-compose", "shop", recreate=recreate)
    built = '    build: {context: ., args: {WHO: "%tag%"}}\n'
    assert built in PROJECT
    ready = PROJECT.replace(built, "    image: busybox\n    command: httpd -f -h /srv\n")
    steps = tuple(
        replace(one, line=one.line.replace("; cat /made", ""), says=one.says[:1])
        for one in shop.steps
        if not one.line.endswith(" build")
    )
    side_by_side(clean_lab, Workflow(files={**shop.files, "compose.yaml": ready}, steps=steps))
