"""`docker context` over ssh: the CLI on another machine, `docker system dial-stdio` on this one."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.integration.clients.workflow import Workflow, side_by_side, step
from tests.integration.conftest import Lab, eventually

pytestmark = [pytest.mark.dockerd, pytest.mark.timeout(600)]

SERVER = """
ListenAddress 127.0.0.1
Port {port}
HostKey {directory}/host_key
PidFile none
AuthorizedKeysFile {directory}/keys-%u
StrictModes no
UsePAM yes
PasswordAuthentication no
SetEnv DOCKER_HOST={front_door}
"""
CLIENT = """
Host server
  HostName 127.0.0.1
  Port {port}
  IdentityFile {key}
  UserKnownHostsFile {known}
"""
OVER_SSH = (
    step("docker context create server --docker host=ssh://server", "Successfully created"),
    step("docker context use server"),
    step("docker version", "Server:"),
    step("docker run -d --name %tag%-far busybox sh -c 'echo up; sleep 600'"),
    step("docker ps --format {{.Names}}", "%tag%-far"),
    step("docker logs %tag%-far", "up"),
    step("docker exec -i %tag%-far cat", "typed by %tag%", stdin="typed by %tag%"),
    step("docker run --rm -i busybox sh -c 'cat; echo end'", "streamed %tag%\nend", stdin="streamed %tag%\n"),
    step("docker build -t %tag%-far .", "tagged %tag%-far"),
    step("docker run --rm %tag%-far cat /made", "by %tag%"),
    step("docker cp %tag%-far:/etc/hostname hostname"),
    step("docker rm -f %tag%-far"),
    step("docker rmi %tag%-far"),
    step("docker context use default"),
    step("docker context rm server"),
)
WORKFLOW = Workflow(
    files={"Dockerfile": "FROM busybox\nRUN echo by %tag% > /made\n"},
    # The client's machine is not the server: it has no DOCKER_HOST.
    steps=tuple(replace(one, line=f"env -u DOCKER_HOST {one.line}") for one in OVER_SSH),
)


@pytest.fixture
def ssh_server(clean_lab: Lab, only_with_clients: None) -> Iterator[Lab]:
    """An sshd on loopback that lets both users in with throw-away keys, and whose sessions find the front door."""
    del only_with_clients
    sshd = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
    if sshd is None:
        pytest.skip("needs sshd")
    directory = Path(tempfile.mkdtemp(prefix="ds01-ssh-"))
    directory.chmod(0o755)
    Path("/run/sshd").mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    make_key(directory / "host_key")
    for user in (clean_lab.alice, clean_lab.bob):
        let_in(clean_lab, user, directory, port)
    settings = SERVER.format(port=port, directory=directory, front_door=clean_lab.front_door)
    (directory / "sshd_config").write_text(settings)
    server = subprocess.Popen(
        [sshd, "-D", "-e", "-f", str(directory / "sshd_config")], stderr=subprocess.PIPE
    )
    try:
        assert eventually(lambda: answers(port), seconds=10), server.stderr
        yield clean_lab
    finally:
        server.terminate()
        server.communicate()
        for user in (clean_lab.alice, clean_lab.bob):
            shutil.rmtree(f"/home/{user}/.ssh", ignore_errors=True)
        shutil.rmtree(directory)


def make_key(path: Path) -> str:
    """A new key without passphrase. Returns: its public half."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True)
    return path.with_suffix(".pub").read_text()


def let_in(lab: Lab, user: str, directory: Path, port: int) -> None:
    """A key of the user's in their home, and the server told of it."""
    home = Path("/home", user, ".ssh")
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(mode=0o700)
    (directory / f"keys-{user}").write_text(make_key(home / "key"))
    host_key = (directory / "host_key.pub").read_text()
    (home / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}")
    (home / "config").write_text(CLIENT.format(port=port, key=home / "key", known=home / "known_hosts"))
    for path in (home, *home.iterdir()):
        shutil.chown(path, user, user)
    assert lab.run(user, "ssh-keygen", "-l", "-f", str(home / "key")).status == 0


def answers(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as tried:
        return tried.connect_ex(("127.0.0.1", port)) == 0


def test_docker_over_ssh_works_unchanged(ssh_server: Lab) -> None:
    """A context with ssh://, for streams, builds and files, by two users at the same time."""
    side_by_side(ssh_server, WORKFLOW)
