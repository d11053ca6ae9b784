"""The audit trail on the real system: a change that cannot be recorded does not happen, a read goes on."""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lab import unix_http
from tests.integration.conftest import Lab, require_dockerd, running_lab

pytestmark = pytest.mark.dockerd

_DISK = "768k"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose log directory is a small disk of its own."""
    require_dockerd()
    root = Path(tempfile.mkdtemp(prefix="ds01-"))
    log = root / "log"
    log.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"mode=0700,size={_DISK}", "ds01-test", log], check=True)
    try:
        with running_lab("chaos-audit-a", "chaos-audit-b", root=root) as running:
            yield running
            # Before the lab removes its directory: a mount in it would stay.
            subprocess.run(["umount", "--lazy", log], check=True)
    finally:
        subprocess.run(["umount", "--lazy", log], check=False, capture_output=True)


@pytest.fixture
def full(own: Lab) -> Iterator[Path]:
    """The disk is full; deleting the file makes room again."""
    fill = own.root / "log" / "fill"
    with fill.open("wb", buffering=0) as file:
        try:
            while file.write(b"\0" * 4096):
                pass
        except OSError:
            pass
    # The audit file's last block may have room for some lines: use it up.
    for _ in range(100):
        if own.docker(own.bob, "volume", "create", "fill").status != 0:
            break
    yield fill
    fill.unlink(missing_ok=True)
    own.clean()


def _lines(lab: Lab) -> list[str]:
    return (lab.root / "log" / "audit.jsonl").read_text().splitlines()


def _records(lab: Lab) -> list[dict[str, Any]]:
    """Every line that is whole; a line that met a full disk is torn."""
    found = []
    for line in _lines(lab):
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return found


_CHANGES = {
    "create": ("create", "busybox"),
    "create with a GPU": ("create", "--gpus", "1", "busybox"),
    "volume": ("volume", "create", "vol"),
    "network": ("network", "create", "n"),
    "tag": ("tag", "busybox", "mine:1"),
}


def test_a_change_that_cannot_be_recorded_does_not_happen(own: Lab, full: Path) -> None:
    """With the audit's disk full every change is refused with the reason, and leaves nothing, not even a lease."""
    for words in _CHANGES.values():
        refused = own.docker(own.alice, *words)
        assert refused.status != 0, words
        assert "audit" in refused.err, refused.err
    assert own.ok(own.alice, "ps", "-aq") == ""
    assert own.ok(own.alice, "volume", "ls", "-q") == ""
    assert "mine" not in own.ok(own.alice, "images")
    assert _leases(own) == []
    assert full.exists()


def test_the_refusal_is_a_503_in_dockers_form(own: Lab, full: Path) -> None:
    """Whoever asks learns that the server, and not the request, is at fault."""
    socket = own.root / "run" / "users" / own.alice / "docker.sock"
    refused = unix_http.call(socket, "POST", "/volumes/create", b'{"Name":"vol"}')
    assert refused.status == 503
    assert set(json.loads(refused.body)) == {"message"}
    assert full.exists()


def test_reads_go_on_without_an_audit(own: Lab, full: Path) -> None:
    """Looking is not held up by a full disk; nor is a refusal."""
    assert own.ok(own.alice, "ps") != ""
    assert own.ok(own.alice, "images", "-q", "busybox") != ""
    refused = own.docker(own.alice, "create", "--privileged", "busybox")
    assert "(rule privileged)" in refused.err
    assert full.exists()


def test_room_again_is_service_again(own: Lab, full: Path) -> None:
    """Once there is room, changes go through and are on record, each on a line of its own."""
    assert own.docker(own.alice, "create", "busybox").status != 0
    torn = len(_lines(own)) - len(_records(own))
    full.unlink()
    container = own.ok(own.alice, "create", "busybox")
    assert _records(own)[-1]["operation"] == "ContainerCreate"
    assert len(_lines(own)) - len(_records(own)) == torn
    own.ok(own.alice, "rm", container)
    log = own.log("proxy")
    assert "audit.recovered" in log


def _leases(lab: Lab) -> Any:
    """Live leases, as root is told."""
    listed = json.loads(unix_http.call(lab.root / "run" / "allocator.sock", "GET", "/v1/leases").body)
    return [lease for lease in listed if lease["state"] != "released"]


def test_every_answered_change_has_its_line(own: Lab) -> None:
    """The line is there when the answer is: who, what, decided how, on which policy."""
    container = own.ok(own.alice, "create", "--gpus", "1", "busybox")
    record = _records(own)[-1]
    uid = int(own.run(own.alice, "id", "-u").out)
    assert (record["actor"], record["uid"], record["door"]) == (own.alice, uid, "user")
    assert (record["operation"], record["decision"], record["schema"]) == ("ContainerCreate", "allow", 1)
    assert record["leases"] == [lease["id"] for lease in _leases(own)]
    assert record["policy"]
    own.ok(own.alice, "rm", container)
    assert _records(own)[-1]["operation"] == "ContainerDelete"


def test_a_refusal_is_explained_to_its_user_only(own: Lab) -> None:
    """The id at the end of a denial leads alice to its reasons, and bob to nothing."""
    refused = own.docker(own.alice, "create", "--privileged", "busybox").err
    request_id = refused.split("ds01 explain ")[1].split()[0]
    path = f"/ds01/v1/explain/{request_id}"
    users = own.root / "run" / "users"
    told = unix_http.call(users / own.alice / "docker.sock", "GET", path)
    assert json.loads(told.body)["rules"] == ["privileged"]
    assert unix_http.call(users / own.bob / "docker.sock", "GET", path).status == 404


def test_a_rotated_file_is_followed(own: Lab) -> None:
    """logrotate renames the file: the next line is in a new one, and none is lost."""
    path = own.root / "log" / "audit.jsonl"
    before = len(_lines(own))
    path.rename(path.with_suffix(".1"))
    own.ok(own.alice, "volume", "create", "rotated")
    assert len(path.with_suffix(".1").read_text().splitlines()) == before
    assert [record["operation"] for record in _records(own)][-1] == "VolumeCreate"
    assert path.stat().st_mode & 0o777 == 0o600
    own.ok(own.alice, "volume", "rm", "rotated")


def test_users_cannot_read_or_write_the_trail(own: Lab) -> None:
    """The directory is closed: users read their own refusals through ds01."""
    for words in (("cat",), ("tee", "-a")):
        tried = own.run(own.alice, *words, str(own.root / "log" / "audit.jsonl"), stdin="")
        assert "Permission denied" in tried.err
