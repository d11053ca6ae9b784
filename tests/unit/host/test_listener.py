"""Sockets have their owner and mode before anybody can reach them."""

from __future__ import annotations

import fcntl
import os
import socket
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from host.listener import AddressTaken, inherited, listen, remove


def test_a_socket_has_its_mode_and_answers(tmp_path: Path) -> None:
    """Listening, 0600 unless said otherwise, and nothing left beside it."""
    path = tmp_path / "docker.sock"
    with listen(path, mode=0o660), socket.socket(socket.AF_UNIX) as client:
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        assert [entry.name for entry in tmp_path.iterdir()] == ["docker.sock"]
        client.connect(str(path))


@pytest.mark.skipif(os.geteuid() != 0, reason="chown needs root")
def test_a_socket_has_its_owner(tmp_path: Path) -> None:
    """A user's socket is the user's."""
    with listen(tmp_path / "s", owner=(61234, 61235)):
        status = (tmp_path / "s").stat()
    assert (status.st_uid, status.st_gid) == (61234, 61235)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    """What a crash left does not stop the next start."""
    path = tmp_path / "s"
    listen(path).close()
    assert path.exists()
    with listen(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))


def test_a_live_socket_is_left_alone(tmp_path: Path) -> None:
    """Two daemons do not steal each other's clients."""
    path = tmp_path / "s"
    with listen(path), pytest.raises(AddressTaken, match="another process"):
        listen(path)


def test_a_file_is_left_alone(tmp_path: Path) -> None:
    """A mistake in the settings destroys nothing."""
    path = tmp_path / "s"
    path.write_text("mine")
    with pytest.raises(AddressTaken, match="not a socket"):
        listen(path)
    remove(path)
    assert path.read_text() == "mine"


def test_long_paths_work(tmp_path: Path) -> None:
    """An address has room for 107 bytes; a lab below somebody's home needs more."""
    directory = tmp_path / ("d" * 120)
    directory.mkdir()
    with listen(directory / "docker.sock"):
        assert (directory / "docker.sock").is_socket()
    with pytest.raises(FileNotFoundError):
        listen(tmp_path / "missing" / "s")


def test_removing_is_repeatable(tmp_path: Path) -> None:
    """Gone is gone."""
    listen(tmp_path / "s").close()
    remove(tmp_path / "s")
    remove(tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_nothing_is_inherited_unless_meant_for_us() -> None:
    """LISTEN_PID of another process is not ours to take."""
    assert inherited({}) == ()
    assert inherited({"LISTEN_FDS": "1"}) == ()
    assert inherited({"LISTEN_FDS": "1", "LISTEN_PID": "1"}) == ()


def test_sockets_from_systemd_are_taken(tmp_path: Path) -> None:
    """Descriptor 3 and on, in order, not passed on to programs we start."""
    program = (
        "import os, sys\n"
        "os.environ['LISTEN_PID'] = str(os.getpid())\n"
        "from host.listener import inherited\n"
        "found = inherited()\n"
        "print(len(found), os.path.basename(found[0].getsockname()), found[0].get_inheritable())\n"
    )
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        done = subprocess.run(
            ["bash", "-c", f'exec 3<&{listener.fileno()}; exec {sys.executable} -c "$PROGRAM"'],
            pass_fds=[listener.fileno()],
            env={**os.environ, "LISTEN_FDS": "1", "PROGRAM": program, "PYTHONPATH": str(Path.cwd())},
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout == "1 s False\n"


def _told(tmp_path: Path, names: str) -> subprocess.CompletedProcess[str]:
    """What a process that inherits two sockets under `names` knows of them."""
    script = (
        "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4);"
        "from host.listener import inherited_by_name;"
        "e = {'LISTEN_PID': str(os.getpid()), 'LISTEN_FDS': '2', 'LISTEN_FDNAMES': sys.argv[3]};"
        "print({name: each.fileno() for name, each in inherited_by_name(e).items()})"
    )
    with listen(tmp_path / "f") as front, listen(tmp_path / "a") as admin:
        copies = [fcntl.fcntl(each.fileno(), fcntl.F_DUPFD, 50) for each in (front, admin)]
        command = [sys.executable, "-c", script, *map(str, copies), names]
        try:
            return subprocess.run(command, pass_fds=copies, capture_output=True, text=True, check=False)
        finally:
            for number in copies:
                os.close(number)


def test_sockets_are_known_by_their_names(tmp_path: Path) -> None:
    """LISTEN_FDNAMES tells a daemon with many sockets which is which."""
    done = _told(tmp_path, "front:admin")
    assert done.stdout == "{'front': 3, 'admin': 4}\n", done.stderr


@pytest.mark.parametrize("names", ["", "front", "front:front", "front:admin:more"])
def test_names_that_do_not_fit_are_an_error(tmp_path: Path, names: str) -> None:
    """Sockets that cannot be told apart are not guessed at."""
    assert "LISTEN_FDNAMES" in _told(tmp_path, names).stderr
