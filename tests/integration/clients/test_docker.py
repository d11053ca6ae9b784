"""The docker CLI: build, run, networks, volumes, GPUs, images, all of a container's life."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.integration.clients.workflow import (
    BUILDKIT_SINCE,
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

DOCKERFILE = """
FROM busybox
ARG WHO=nobody
RUN echo made for $WHO > /made
COPY site /srv
HEALTHCHECK --interval=1s CMD test -e /made
CMD ["sh", "-c", "echo serving for $HOSTNAME; exec httpd -f -h /srv"]
"""
DOCKER = Workflow(
    files={"Dockerfile": DOCKERFILE, "site/index.html": "page of %tag%\n", "env": "FROM_FILE=%tag%\n"},
    steps=(
        step("docker version", "Server:"),
        step("docker info --format {{.OSType}}", "linux"),
        step("docker build --build-arg WHO=%tag% -t %tag%-image ."),
        step("docker image ls %tag%-image", "%tag%-image"),
        step("docker network create %tag%-net"),
        step("docker volume create %tag%-data", "%tag%-data"),
        step("docker run -d --name %tag%-web --hostname %tag% --network %tag%-net -v %tag%-data:/data "
             "-v %home%/site:/live:ro -p %port%:80 --label of=%tag% --env-file env --memory 64m "
             "--restart unless-stopped %tag%-image"),
        step("docker run --rm --network %tag%-net busybox wget -qO- http://%tag%-web/", "page of %tag%"),
        step("busybox wget -qO- http://%address%:%port%/", "page of %tag%"),
        step("docker exec %tag%-web sh -c 'cat /made; echo $FROM_FILE'", "made for %tag%\n%tag%\n"),
        step("docker exec -i %tag%-web sh -c 'cat > /data/note'", stdin="a note of %tag%"),
        step("docker run --rm -i -v %tag%-data:/d busybox sh -c 'cat /d/note -'", "a note of %tag%|typed", stdin="|typed"),
        step("docker run --rm -v %home%/site:/live busybox sh -c 'cp /live/index.html /live/copy && cat /live/copy'",
             "page of %tag%"),
        step("docker logs %tag%-web", "serving for %tag%"),
        step("docker top %tag%-web", "httpd"),
        step("docker stats --no-stream %tag%-web", "%tag%-web"),
        step("docker port %tag%-web", "%port%"),
        step("docker diff %tag%-web"),
        step("docker ps --filter label=of=%tag% --format {{.Names}}", "%tag%-web"),
        step("docker inspect -f {{.State.Status}} %tag%-web", "running"),
        step("docker cp %tag%-web:/made made"),
        step("cat made", "made for %tag%"),
        step("docker cp made %tag%-web:/tmp/back"),
        step("docker exec %tag%-web cat /tmp/back", "made for %tag%"),
        step("docker commit %tag%-web %tag%-kept"),
        step("docker save -o kept.tar %tag%-kept"),
        step("docker rmi %tag%-kept"),
        step("docker load -i kept.tar", "%tag%-kept"),
        step("docker run --rm %tag%-kept cat /tmp/back", "made for %tag%"),
        step("docker tag %tag%-kept %tag%-kept:again"),
        step("docker history %tag%-kept:again"),
        step("docker run --rm --gpus 1 busybox sh -c 'cat /run/ds01-sim/visible; ls /dev'", "-", "nvidiactl"),
        step("docker run --rm --gpus all busybox cat /run/ds01-sim/visible", "-"),
        step("docker run --rm busybox ls /dev", hides=("nvidia",)),
        step("docker pause %tag%-web"),
        step("docker unpause %tag%-web"),
        step("docker update --memory 96m --memory-swap 96m %tag%-web"),
        step("docker rename %tag%-web %tag%-renamed"),
        step("docker restart -t 0 %tag%-renamed"),
        step("docker network connect bridge %tag%-renamed"),
        step("docker network disconnect bridge %tag%-renamed"),
        step("docker events --since 10m --until 0s --filter type=volume", "%tag%-data"),
        step("docker system df", "Images"),
        step("docker stop -t 0 %tag%-renamed"),
        step("docker wait %tag%-renamed", "137"),
        step("docker rm %tag%-renamed"),
        step("docker run --rm busybox sh -c 'exit 7'", fails=True),
        step("docker rmi %tag%-kept %tag%-kept:again %tag%-image"),
        step("docker network rm %tag%-net"),
        step("docker volume rm %tag%-data"),
        step("docker ps -aq", hides=("0", "1", "2", "3")),
    ),
)  # fmt: skip


BUILDX = Workflow(
    files={
        "Dockerfile": "FROM busybox AS base\nARG WHO\nRUN --mount=type=cache,target=/c echo $WHO | tee -a /c/list > /made\n"
        "FROM base AS other\nRUN --mount=type=secret,id=word cat /run/secrets/word > /word\nCOPY --from=extra . /extra\n"
        "FROM other\nRUN echo last >> /made\n",
        "extra/file": "beside %tag%\n",
        "word": "secret of %tag%\n",
        "docker-bake.json": '{"target": {"default": {"target": "base", "args": {"WHO": "%tag%"}, "tags": ["%tag%-baked"]}}}',
    },
    steps=(
        step("docker buildx version", "buildx"),
        step("docker buildx ls", "default"),
        step("docker buildx build --build-arg WHO=%tag% --build-context extra=extra --secret id=word,src=word -t %tag%-x ."),
        step("docker run --rm %tag%-x cat /made /word /extra/file", "%tag%\nlast", "secret of %tag%", "beside %tag%"),
        step("docker build --build-arg WHO=%tag% --target base -t %tag%-base ."),
        step("docker run --rm %tag%-base cat /made", "%tag%", hides=("last",)),
        step("docker buildx build --build-arg WHO=%tag% --build-context extra=extra --secret id=word,src=word --load "
             "-t %tag%-y --label of=%tag% --iidfile id .", "CACHED"),
        step("sh -c 'docker run --rm $(cat id) cat /made'", "%tag%"),
        step("docker inspect -f {{.Config.Labels.of}} %tag%-y", "%tag%"),
        step("docker buildx build --build-arg WHO=%tag% --target base -o type=local,dest=out ."),
        step("cat out/made", "%tag%"),
        step("docker buildx bake"),
        step("docker run --rm %tag%-baked cat /made", "%tag%"),
        step("docker buildx du"),
        step("docker buildx prune -f"),
        step("docker rmi %tag%-x %tag%-y %tag%-base %tag%-baked"),
    ),
)  # fmt: skip


@pytest.mark.parametrize("version", ["20.10", "28"])
def test_the_docker_cli_works_unchanged(clean_lab: Lab, version: str) -> None:
    """Images, containers, volumes, networks, GPUs and files, by two users at the same time."""
    side_by_side(clean_lab, DOCKER, programs=None if version == "28" else client("docker-20.10", "docker"))


def test_the_docker_cli_works_unchanged_beside_buildx(clean_lab: Lab) -> None:
    """The same with the plugin buildx: BuildKit is the builder from engine 24 on, the classic one before."""
    program = client("buildx", "docker-buildx") / "docker-buildx"
    confined = major(clean_lab) >= BUILDKIT_SINCE
    first = () if confined else (step("docker buildx build .", fails=True),)
    with plugin(clean_lab, program):
        side_by_side(clean_lab, replace(DOCKER, steps=(*first, *DOCKER.steps)))


def test_buildx_works_unchanged(clean_lab: Lab) -> None:
    """All that buildx can do beside: named contexts, secrets, cache mounts, bake, files as output, by two users at the same time."""
    program = client("buildx", "docker-buildx") / "docker-buildx"
    needs_buildkit(clean_lab)
    with plugin(clean_lab, program):
        side_by_side(clean_lab, BUILDX)
