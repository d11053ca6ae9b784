"""What there is to be stolen: bob's things and alice's own, in a real lab, and how root looks at all of it."""

from __future__ import annotations

import json
import os
import pwd
import re
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fakes.raw_socket import Answer, ask, exchange
from tests.integration.conftest import Lab

SECRET = "bobs-secret-9d1c"  # in bob's environment, label, log, home and volume: alice must never read it
API = "/v1.41"
# How dockerd logs a call, up to engine 26 and from 27 on; and those that ds01 makes by itself at any time.
_CALL = re.compile(r'(?:msg="Calling |"handling [A-Z]+ request" method=)([A-Z]+) .*?(/[^\s"]*)')
_OWN_CALL = re.compile(r"GET (/v[0-9.]+)?/(_ping|events|containers/json|version|info)")


class WorldBroken(RuntimeError):  # noqa: N818  names the state
    """The lab is not what it was and cannot be put back: later attacks would be judged against something else."""


@dataclass(slots=True, kw_only=True)
class World:
    """The lab with its two users. `words` are the placeholders that the corpus uses, as in `<bobc>`."""

    lab: Lab
    words: dict[str, str] = field(default_factory=dict)
    baseline: list[object] = field(default_factory=list)

    @property
    def alice(self) -> str:
        return self.lab.alice

    @property
    def bob(self) -> str:
        return self.lab.bob

    def account(self, user: str) -> str:
        """The login name of `alice`, `bob` or `root`."""
        return {"alice": self.alice, "bob": self.bob, "root": "root"}[user]

    def socket(self, user: str, door: str = "own") -> Path:
        """The path of a door. `own` is the user's socket, and root's is the admin socket."""
        run = self.lab.root / "run"
        if door == "own" and user == "root":
            door = "admin"
        paths = {"front": "docker.sock", "admin": "admin.sock", "engine": "engine.sock"}
        if door in paths:
            return run / paths[door]
        return run / "users" / (self.bob if door == "bobs" else self.account(user)) / "docker.sock"

    def fill(self, text: str) -> str:
        for word, value in self.words.items():
            text = text.replace(f"<{word}>", value)
        return text.replace("<now>", str(int(time.time())))

    def filled(self, value: Any) -> Any:
        """`value` with every placeholder in it replaced."""
        return json.loads(self.fill(json.dumps(value)))

    def ask(self, method: str, target: str, body: object = None, *, user: str = "alice") -> Answer:
        """A well-formed request on the user's own socket."""
        name = self.account(user)
        return ask(self.socket(user), name, method, self.fill(target), self.filled(body))

    def root(self, method: str, target: str, body: object = None) -> Any:
        """What root sees; raises if it is no success."""
        answer = self.ask(method, API + target, body, user="root")
        if answer.status >= 400:
            raise WorldBroken(f"{method} {target}: {answer.status} {answer.message}")
        return answer.json if answer.body else None

    def must(self, user: str, method: str, target: str, body: object = None) -> Answer:
        """A preparation that has to work."""
        answer = self.ask(method, API + target, body, user=user)
        if not 200 <= answer.status < 300:
            raise WorldBroken(f"{user}: {method} {target}: {answer.status} {answer.body[:300]!r}")
        return answer

    def state(self) -> list[object]:
        """Everything the engine holds, as far as a refused request must not change it."""
        # On its way out, perhaps for good: dockerd 20.10 leaves one so that is renamed while it is removed.
        containers = [
            item
            for item in self.root("GET", "/containers/json?all=1")
            if item["State"] not in ("removing", "dead")
        ]
        bobs = self.root("GET", f"/containers/{self.words['bobc']}/json")
        networks = [self.root("GET", f"/networks/{item['Id']}") for item in self.root("GET", "/networks")]
        return [
            sorted([item["Id"], item["State"], *item["Names"]] for item in containers),
            sorted(item["Name"] for item in self.root("GET", "/volumes")["Volumes"] or ()),
            sorted([item["Id"], item["Name"], *item["Containers"]] for item in networks),
            sorted(
                [item["Id"], *(item["RepoTags"] or ())] for item in self.root("GET", "/images/json?all=1")
            ),
            [bobs["State"]["StartedAt"], bobs["State"]["Paused"], bobs["HostConfig"]["Memory"], bobs["Name"]],
            len(bobs["ExecIDs"] or ()),
        ]

    def tidy(self) -> None:
        """Remove what an attack left, and check that nothing is missing. Raises: WorldBroken."""
        now = self.state()
        if now == self.baseline:
            return
        for container in _new(now[0], self.baseline[0]):
            self.ask("DELETE", f"{API}/containers/{container}?force=1&v=1", user="root")
        for network in _new(now[2], self.baseline[2]):
            self.ask("DELETE", f"{API}/networks/{network}", user="root")
        for volume in set(_texts(now[1])) - set(_texts(self.baseline[1])):
            self.ask("DELETE", f"{API}/volumes/{volume}", user="root")
        for row in _rows(now[3]):
            if row not in _rows(self.baseline[3]):
                kept = next((old for old in _rows(self.baseline[3]) if old[0] == row[0]), None)
                gone = row[1:] if kept else row[:1]
                for name in gone:
                    if kept is None or name not in kept:
                        self.ask("DELETE", f"{API}/images/{name}?force=1", user="root")
        if self.state() != self.baseline:
            raise WorldBroken(f"left behind: {self.state()} instead of {self.baseline}")

    def log_size(self) -> int:
        return (self.lab.root / "log" / "dockerd.log").stat().st_size

    def reached(self, since: int) -> list[str]:
        """Requests that dockerd got after its log had `since` bytes, and that ds01 does not make by itself."""
        with (self.lab.root / "log" / "dockerd.log").open("rb") as log:
            log.seek(since)
            text = log.read().decode(errors="replace")
        calls = [" ".join(found) for found in _CALL.findall(text)]
        return [call for call in calls if _OWN_CALL.match(call) is None]

    def serves(self, user: str) -> float:
        """Seconds that a ping of `user` takes. Raises: WorldBroken: it is not served."""
        started = time.monotonic()
        answer = exchange(self.socket(user), self.account(user), b"GET /_ping HTTP/1.1\r\nHost: d\r\n\r\n")
        if answer.body != b"OK":
            raise WorldBroken(f"{user} is not served: {answer}")
        return time.monotonic() - started


def _rows(value: object) -> list[list[str]]:
    return value if isinstance(value, list) else []


def _texts(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _new(now: object, before: object) -> list[str]:
    known = {row[0] for row in _rows(before)}
    return [row[0] for row in _rows(now) if row[0] not in known]


@contextmanager
def opened(lab: Lab) -> Iterator[World]:
    """Bob's and alice's things, for as long as attacks run; everything is gone afterwards."""
    lab.clean()
    world = World(lab=lab)
    home, bobs_home = Path(f"/home/{lab.alice}"), Path(f"/home/{lab.bob}")
    secret = bobs_home / "secret"
    with _telling(lab), _traps(home, secret):
        try:
            _lay_out_bobs(world, bobs_home)
            _lay_out_alices(world)
            world.baseline = world.state()
            yield world
        finally:
            for image in ("bob/img", "bobapp"):
                world.ask("DELETE", f"{API}/images/{image}", user="bob")
            lab.clean()
            shutil.rmtree(secret, ignore_errors=True)


def _lay_out_bobs(world: World, home: Path) -> None:
    secret = home / "secret"
    secret.mkdir(mode=0o700)
    (secret / "file").write_text(SECRET)
    shutil.chown(secret, world.bob, world.bob)
    home.chmod(0o711)
    body = {
        "Image": "busybox",
        "Cmd": ["sh", "-c", f"echo {SECRET}; echo {SECRET} >/v/file; exec sleep 3600"],
        "Env": [f"TOKEN={SECRET}"],
        "Labels": {"mark": SECRET},
        "HostConfig": {"Binds": ["bobv:/v"]},
    }
    made = world.must("bob", "POST", "/containers/create?name=bobc", body).json["Id"]
    world.words.update(bobc=made, short=made[:12])
    world.must("bob", "POST", "/containers/bobc/start")
    stopped = {"Image": "busybox", "Cmd": ["true"], "Labels": {"mark": SECRET}}
    world.words["bobs"] = world.must("bob", "POST", "/containers/create?name=bobstop", stopped).json["Id"]
    executed = world.must("bob", "POST", "/containers/bobc/exec", {"Cmd": ["sleep", "1"]}).json["Id"]
    world.words["exec"] = executed
    world.words["bobn"] = world.must("bob", "POST", "/networks/create", {"Name": "bobn"}).json["Id"]
    world.must("bob", "POST", "/images/busybox:latest/tag?repo=bob/img")
    world.words["bobapp"] = _made_by_bob(world)


def _made_by_bob(world: World) -> str:
    """An image of bob's own content with a local name; its id."""
    world.must("bob", "POST", "/commit?container=bobstop&repo=bobapp", {})
    found = world.must("bob", "GET", "/images/bobapp/json").json["Id"]
    return str(found)


def _lay_out_alices(world: World) -> None:
    mine = {"Image": "busybox", "Cmd": ["sleep", "3600"]}
    world.words["mine"] = world.must("alice", "POST", "/containers/create?name=mine", mine).json["Id"]
    world.must("alice", "POST", "/containers/mine/start")
    networks = {item["Name"]: item["Id"] for item in world.root("GET", "/networks")}
    image = world.root("GET", "/images/busybox/json")["Id"]
    world.words.update(
        host=networks["host"],
        image=image,
        bobsnames=f"u{pwd.getpwnam(world.bob).pw_uid}.",
        image12=image.removeprefix("sha256:")[:12],
        uid=str(pwd.getpwnam(world.alice).pw_uid),
        bobuid=str(pwd.getpwnam(world.bob).pw_uid),
        alicename=world.alice,
        bobname=world.bob,
        alice=f"/home/{world.alice}",
        bob=f"/home/{world.bob}",
        root=str(world.lab.root),
        pid=str(world.root("GET", f"/containers/{world.words['bobc']}/json")["State"]["Pid"]),
        host12=networks["host"][:12],
        exec12=world.words["exec"][:12],
        first=_prefix_of_one(world.words["bobc"], world.words["mine"]),
        long=world.words["bobc"][:-1],
        upper=world.words["bobc"].upper(),
        # What there is none of, as long as what there is.
        nobody=secrets.token_hex(32),
        noshort=secrets.token_hex(6),
    )


def _prefix_of_one(wanted: str, other: str) -> str:
    """The shortest beginning of an id that is none of the other's."""
    return next(wanted[:length] for length in range(1, 64) if not other.startswith(wanted[:length]))


@contextmanager
def _traps(home: Path, secret: Path) -> Iterator[None]:
    """Links, a socket, a pipe and what root left, in alice's home."""
    links = {
        "to-bob": str(secret),
        "to-etc": "/etc",
        "to-proc": "/proc/self/root",
        "to-dev": "/dev",
        "to-root": "/",
        "to-shadow": "/etc/shadow",
        "to-loop": "to-loop",
    }
    for name, target in links.items():
        (home / name).symlink_to(target)
    os.mkfifo(home / "a.fifo")
    os.mknod(home / "a.sock", 0o140777)
    os.mknod(home / "a.null", 0o20666, os.makedev(1, 3))
    (home / "of-root").mkdir(mode=0o700)
    try:
        yield
    finally:
        for name in (*links, "a.fifo", "a.sock", "a.null"):
            (home / name).unlink(missing_ok=True)
        (home / "of-root").rmdir()


@contextmanager
def _telling(lab: Lab) -> Iterator[None]:
    """dockerd logs every call it gets."""
    settings = lab.root / "etc" / "daemon.json"
    before = settings.read_text()
    settings.write_text(json.dumps({**json.loads(before), "debug": True}))
    os.kill(lab.pid("dockerd"), signal.SIGHUP)
    time.sleep(0.5)
    try:
        yield
    finally:
        settings.write_text(before)
        os.kill(lab.pid("dockerd"), signal.SIGHUP)


def run_as(user: str, *words: str, seconds: float = 20) -> subprocess.CompletedProcess[str]:
    """A program with the rights of an account, as that account would start it."""
    command = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--", *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=seconds, check=False)
