"""docker-compose 1.29, as Debian ships it, through a user's own socket."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.compatibility import ALIKE
from tests.integration.conftest import Lab, Result, bare_engine, eventually

pytestmark = [
    pytest.mark.dockerd,
    pytest.mark.skipif(shutil.which("docker-compose") is None, reason="needs docker-compose"),
]

PROJECT = """
version: "2.4"
services:
  web:
    image: busybox
    command: sh -c 'echo web is up; mkdir -p /srv; echo served > /srv/index.html; httpd -f -p 80 -h /srv'
    volumes: ["state:/state", "./site:/site:ro"]
    ports: ["18431:80"]
    environment: {GREETING: hello}
  worker:
    build: .
    command: sh -c 'cat /built; sleep 600'
    depends_on: [web]
volumes: {state: {}}
"""


@pytest.fixture
def project(clean_lab: Lab) -> Iterator[Path]:
    """A project in alice's home, owned by her."""
    directory = Path("/home", clean_lab.alice, "shop")
    (directory / "site").mkdir(parents=True)
    (directory / "site" / "note").write_text("from home\n")
    (directory / "docker-compose.yml").write_text(PROJECT)
    (directory / "Dockerfile").write_text("FROM busybox\nRUN echo made by compose > /built\n")
    for path in (directory, directory / "site"):
        shutil.chown(path, clean_lab.alice, clean_lab.alice)
    yield directory
    compose(clean_lab, directory, "down", "-v", "--rmi", "local")
    shutil.rmtree(directory)


def compose(lab: Lab, directory: Path, *words: str) -> Result:
    return lab.run(lab.alice, "docker-compose", *words, cwd=directory, seconds=120)


def test_a_project_goes_up_and_down_unchanged(clean_lab: Lab, project: Path) -> None:
    """Build, network, named volume, bind from home, published port, logs, exec, restart, down: with no ds01 setting."""
    lab = clean_lab
    up = compose(lab, project, "up", "-d")
    assert up.status == 0, up.out + up.err

    listed = compose(lab, project, "ps")
    assert listed.out.count("Up") == 2, listed.out
    assert compose(lab, project, "exec", "-T", "web", "sh", "-c", "echo $GREETING").out == "hello\n"
    assert compose(lab, project, "exec", "-T", "web", "cat", "/site/note").out == "from home\n"
    # The service's name answers in the project's network.
    assert compose(lab, project, "exec", "-T", "worker", "ping", "-c1", "web").status == 0
    logs = compose(lab, project, "logs", "--no-color").out
    assert "web is up" in logs
    assert "made by compose" in logs
    fetched = lab.run("root", "busybox", "wget", "-qO-", f"http://{lab.address}:18431/")
    assert fetched.out == "served\n", fetched.err

    assert compose(lab, project, "restart", "-t", "0", "web").status == 0
    again = compose(lab, project, "up", "-d")
    assert again.status == 0
    assert "Recreating" not in again.err, "what ds01 rewrites must not look like a changed service"
    assert "has changed" not in again.err, "nor its labels like a changed network or volume"

    assert lab.docker(lab.bob, "ps", "-aq").out == ""
    assert "shop" not in lab.docker(lab.bob, "network", "ls").out + lab.docker(lab.bob, "volume", "ls").out

    assert compose(lab, project, "down", "-v").status == 0
    assert eventually(lambda: lab.docker(lab.alice, "ps", "-aq").out == "", seconds=10)
    assert (
        "shop" not in lab.docker(lab.alice, "network", "ls").out + lab.docker(lab.alice, "volume", "ls").out
    )


def test_recreating_ends_as_it_does_without_ds01(
    clean_lab: Lab, project: Path, record_property: Callable[[str, object], None]
) -> None:
    """`up --force-recreate` works, and keeps what is mounted; on engines from 25 on it fails alike on dockerd itself, by a field that images lost."""
    lab = clean_lab

    def binds() -> list[str]:
        box = compose(lab, project, "ps", "-q", "web").out.strip()
        return sorted(json.loads(lab.ok(lab.alice, "inspect", "-f", "{{json .HostConfig.Binds}}", box)))

    first = compose(lab, project, "up", "-d", "web")
    before = binds()
    assert f"{project}/site:/site:ro" in before
    through = (first, compose(lab, project, "up", "-d", "--force-recreate", "web"))
    if not through[1].status:
        assert binds() == before
        assert compose(lab, project, "exec", "-T", "web", "cat", "/site/note").out == "from home\n"
    compose(lab, project, "down", "-v", "-t", "0")
    with bare_engine() as bare:
        host = f"unix://{bare}/run/engine.sock"

        def directly(*words: str) -> Result:
            return lab.run("root", "docker-compose", *words, host=host, cwd=project, seconds=120)

        direct = (directly("up", "-d", "web"), directly("up", "-d", "--force-recreate", "web"))
        directly("down", "-v", "-t", "0")
    assert through[0].status == direct[0].status == 0, (through, direct)
    ends = [(one.status, one.err.splitlines()[-1:]) for one in (through[1], direct[1])]
    assert ends[0] == ends[1], (through, direct)
    if direct[1].status:
        assert "ContainerConfig" in direct[1].err, direct
        record_property(ALIKE, f"docker-compose 1.29: `up --force-recreate`: {ends[0][1][0]}")
