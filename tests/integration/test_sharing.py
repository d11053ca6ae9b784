"""Sharing containers on purpose, with three users and the unmodified docker CLI: what each sees, may do, and when it ends."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes.raw_socket import connected, request
from tests.integration.conftest import ALICE, BOB, PREFIX, Lab, eventually, running_lab

pytestmark = pytest.mark.dockerd

CAROL = f"{PREFIX}-carol"
SECRET = "alices-secret-4711"
SOON_SECONDS = 6.0
LINES = "while true; do echo tick; sleep 0.2; done"


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab with three users, whose policy these tests change."""
    with running_lab(ALICE, BOB, "--users", f"{ALICE},{BOB},{CAROL}", "--gpus", "none") as running:
        yield running


@pytest.fixture
def lab(own: Lab) -> Iterator[Lab]:
    """Nothing in it that an earlier test left."""
    yield own
    _policy(own, "")
    for user in (ALICE, BOB, CAROL):
        for container in own.docker(
            user, "ps", "-aq", "--no-trunc", "--filter", "label=ds01.managed"
        ).out.split():
            own.docker(user, "rm", "-f", container)


@pytest.fixture
def web(lab: Lab) -> str:
    """Alice's container `web`, with secrets wherever one can be; gives its id."""
    return lab.ok(
        ALICE, "run", "-d", "--name", "web", "-e", f"TOKEN={SECRET}", "-l", f"note={SECRET}", "--stop-timeout", "0",
        "-v", f"{SECRET}:/data", "busybox", "sh", "-c", f"echo {SECRET} >/data/note; {LINES}",
    )  # fmt: skip


def _policy(lab: Lab, groups: str) -> None:
    """Another policy file, in force when this returns; without groups it is gone."""
    path = lab.root / "etc" / "policy.d" / "share.yaml"
    path.parent.mkdir(exist_ok=True)
    before = lab.log("proxy").count('"policy.loaded"')
    if not groups and not path.exists():
        return
    if groups:
        path.write_text(f"groups:\n{groups}")
        path.chmod(0o644)
    else:
        path.unlink()
    assert eventually(lambda: lab.log("proxy").count('"policy.loaded"') > before, seconds=5), lab.log(
        "proxy"
    )[-2000:]


def _group(share: str, *members: str) -> str:
    return f"  lab: {{members: [{', '.join(members)}], share: {{containers: {share}}}}}\n"


def _share(lab: Lab, *words: str, user: str = ALICE) -> str:
    done = lab.run(user, "ds01", "share", *words)
    assert done.status == 0, done.err
    return done.out


def _names(lab: Lab, user: str, *words: str) -> list[str]:
    return sorted(lab.ok(user, "ps", "-a", "--format", "{{.Names}}", *words).split())


def _refused(lab: Lab, user: str, *words: str, rule: str = "share") -> str:
    """The denial, which names its rule and its request."""
    done = lab.docker(user, *words)
    assert done.status != 0, words
    # Of a refused upgrade the CLI shows the status alone.
    shown = "received 403" if words[0] == "attach" else f"(rule {rule})"
    assert shown in done.err, (words, done.err)
    return done.err


def _absent(lab: Lab, user: str, container: str) -> None:
    """For `user` there is no such container: the words are those for a name that nobody has."""
    for template in (
        "inspect {}",
        "logs {}",
        "exec {} true",
        "stop {}",
        "top {}",
        "stats --no-stream {}",
        "rm -f {}",
    ):
        got, none = (lab.docker(user, *template.format(text).split()) for text in (container, "nosuchthing"))
        assert (got.status, got.err.replace(container, "X")) == (
            none.status,
            none.err.replace("nosuchthing", "X"),
        )


@contextlib.contextmanager
def _running(lab: Lab, user: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A client that runs until it is ended."""
    client = subprocess.Popen(
        lab.command(user, "docker", *words),
        env=lab.environment(user),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield client
    finally:
        client.kill()
        client.communicate(timeout=10)


STREAMS = {
    "logs -f": ("logs", "-f", "{}"),
    "exec": ("exec", "{}", "sh", "-c", LINES),
    "exec -i": ("exec", "-i", "{}", "sh", "-c", f"cat >/dev/null & {LINES}"),
    "wait": ("wait", "{}"),
}


# --- who sees what ---------------------------------------------------------------------------------------


def test_a_viewer_sees_that_it_is_there_and_how_it_does(lab: Lab, web: str) -> None:
    """By a name that works again, in list, inspect and stats; and none of its secrets, anywhere."""
    assert _names(lab, BOB) == []
    assert "may see it" in _share(lab, "web", "--with", BOB)
    name = f"{ALICE}.web"
    assert _names(lab, BOB) == [name]
    assert lab.ok(BOB, "ps", "-q", "--no-trunc") == web
    for text in (name, web, web[:12], web[:6]):
        assert (
            lab.ok(BOB, "inspect", "-f", "{{.Id}} {{.Name}} {{.State.Running}}", text)
            == f"{web} /{name} true"
        )
    assert lab.ok(BOB, "stats", "--no-stream", "--format", "{{.Name}}", name) == name
    assert lab.ok(BOB, "port", name) == ""
    shown = [
        lab.docker(BOB, *words).out
        for words in (
            ("inspect", name), ("ps", "-a", "--no-trunc"), ("ps", "--format", "{{json .}}"), ("stats", "--no-stream"),
            ("events", "--since", "0", "--until", "0s"), ("system", "df", "-v"), ("volume", "ls"), ("info",),
        )
    ]  # fmt: skip
    assert SECRET not in "".join(shown)
    assert "TOKEN=***" in shown[0]
    assert lab.ok(ALICE, "inspect", "-f", "{{.Config.Env}}", "web").startswith(f"[TOKEN={SECRET}")


def test_to_view_is_not_to_use(lab: Lab, web: str) -> None:
    """logs, top, exec and stop are refused with the next step, and the container knows nothing of it."""
    _share(lab, "web", "--with", BOB)
    for words in (("logs", web), ("top", web), ("exec", web, "true"), ("stop", web)):
        assert "--use" in _refused(lab, BOB, *words)
    assert lab.ok(ALICE, "inspect", "-f", "{{.State.Running}} {{len .ExecIDs}}", "web") == "true 0"


def test_nobody_else_notices(lab: Lab, web: str) -> None:
    """For carol nothing is shared, in lists, events, by any name, or on ds01's own page."""
    _share(lab, "web", "--with", BOB, "--use")
    assert _names(lab, CAROL) == []
    for text in (f"{ALICE}.web", web, web[:12], "web"):
        _absent(lab, CAROL, text)
    assert json.loads(lab.run(CAROL, "ds01", "share", "--list", "--json").out) == {"own": [], "shared": []}
    assert web not in lab.docker(CAROL, "events", "--since", "0", "--until", "0s").out


def test_who_may_use_it_runs_programs_reads_logs_and_stops_it(lab: Lab, web: str) -> None:
    """With the unmodified client: standard input, exit codes, a terminal's size, top and stop."""
    told = _share(lab, "web", "--with", BOB, "--use", "--for", "10m")
    assert "mounts" in told
    name = f"{ALICE}.web"
    assert lab.ok(BOB, "exec", name, "cat", "/data/note") == SECRET
    assert lab.ok(BOB, "exec", "-i", name, "cat", stdin="half-close") == "half-close"
    assert lab.docker(BOB, "exec", name, "sh", "-c", "exit 7").status == 7
    assert "tick" in lab.ok(BOB, "logs", "--tail", "1", name)
    assert SECRET in lab.ok(BOB, "top", name)
    with _running(lab, BOB, "wait", name) as waiting:
        time.sleep(0.5)
        lab.ok(BOB, "stop", "-t", "0", name)
        assert waiting.communicate(timeout=15)[0].strip() == "137"
    assert lab.ok(ALICE, "inspect", "-f", "{{.State.Running}}", "web") == "false"
    _refused(lab, BOB, "start", name)


NEVER = (
    "rm -f {}", "rename {} mine", "update -m 64m {}", "start {}", "restart {}", "kill {}", "pause {}", "unpause {}",
    "attach {}", "export {}", "diff {}", "cp {}:/etc/passwd -", "commit {} stolen", "exec --privileged {} id",
    "create --pull never --volumes-from {} busybox", "create --pull never --network container:{} busybox",
    "create --pull never --pid container:{} busybox", "create --pull never --ipc container:{} busybox",
    "create --pull never --link {}:x busybox",
)  # fmt: skip


def test_what_is_the_owners_stays_the_owners(lab: Lab, web: str) -> None:
    """Remove, change, copy out, join: each refused by its rule for whoever may use it, and nothing has changed."""
    _share(lab, "web", "--with", BOB, "--use")
    before = lab.ok(
        ALICE,
        "inspect",
        "-f",
        "{{.Name}} {{.State.StartedAt}} {{.HostConfig.Memory}} {{.State.Paused}}",
        "web",
    )
    for template in NEVER:
        rule = "privileged" if "--privileged" in template else "share"
        _refused(lab, BOB, *template.format(web).split(), rule=rule)
    lab.ok(BOB, "network", "create", "bobs")
    _refused(lab, BOB, "network", "connect", "bobs", web)
    lab.ok(BOB, "network", "rm", "bobs")
    after = lab.ok(
        ALICE,
        "inspect",
        "-f",
        "{{.Name}} {{.State.StartedAt}} {{.HostConfig.Memory}} {{.State.Paused}}",
        "web",
    )
    assert after == before
    assert lab.ok(BOB, "images", "-q", "stolen") == ""
    refused = lab.run(BOB, "ds01", "share", f"{ALICE}.web", "--with", CAROL)
    assert (refused.status, "(rule share)" in refused.err) == (1, True)
    assert _names(lab, CAROL) == []


# --- names -----------------------------------------------------------------------------------------------


def test_own_names_are_never_captured(lab: Lab, web: str) -> None:
    """Bob's own `ALICE.web` and `web` stay his; what the list shows works, for each line of it."""
    _share(lab, "web", "--with", BOB)
    mine = lab.ok(BOB, "create", "--name", f"{ALICE}.web", "busybox")
    other = lab.ok(BOB, "create", "--name", "web", "busybox")
    assert lab.ok(BOB, "inspect", "-f", "{{.Id}}", f"{ALICE}.web") == mine
    assert lab.ok(BOB, "inspect", "-f", "{{.Id}}", "web") == other
    lines = lab.ok(BOB, "ps", "-a", "--no-trunc", "--format", "{{.ID}} {{.Names}}").splitlines()
    assert {line.split()[0] for line in lines} == {mine, other, web}
    for line in lines:
        container, name = line.split()
        assert lab.ok(BOB, "inspect", "-f", "{{.Id}}", name) == container


def test_filters_and_limits_count_what_is_shown(lab: Lab, web: str) -> None:
    """By name, id and state; a filter by what is masked finds nothing."""
    _share(lab, "web", "--with", BOB)
    mine = lab.ok(BOB, "create", "--name", "mine", "busybox")
    name = f"{ALICE}.web"
    assert _names(lab, BOB, "--filter", f"name=^{name}$") == [name]
    assert _names(lab, BOB, "--filter", "name=web") == [name]
    assert _names(lab, BOB, "--filter", f"id={web}") == [name]
    assert _names(lab, BOB, "--filter", "status=running") == [name]
    assert _names(lab, BOB, "--filter", f"before={mine}") == [name]
    assert _names(lab, BOB, "--filter", f"since={name}") == ["mine"]
    assert _names(lab, BOB, "-n", "1") == ["mine"]
    assert len(_names(lab, BOB, "-n", "2")) == 2
    for masked in (f"label=note={SECRET}", f"volume={SECRET}", "label=note", "ancestor=busybox"):
        assert name not in _names(lab, BOB, "--filter", masked)
    assert lab.ok(BOB, "ps", "-aq", "--filter", "label=ds01.managed", "--no-trunc") == mine


def test_prunes_leave_what_is_shared(lab: Lab, web: str) -> None:
    """A stopped container of alice's is not bob's to clear up."""
    _share(lab, "web", "--with", BOB, "--use")
    lab.ok(BOB, "stop", "-t", "0", web)
    lab.ok(BOB, "container", "prune", "-f")
    lab.ok(BOB, "system", "prune", "-f")
    assert lab.ok(ALICE, "inspect", "-f", "{{.Id}}", "web") == web


# --- ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", STREAMS.values(), ids=STREAMS.keys())
@pytest.mark.parametrize("how", ["taken back", "over"])
def test_a_stream_ends_with_its_share(lab: Lab, web: str, words: tuple[str, ...], how: str) -> None:
    """logs -f, exec and wait of another's container: within seconds of the end, and not before it."""
    _share(lab, "web", "--with", BOB, "--use", *(["--for", "5s"] if how == "over" else []))
    began = time.monotonic()
    with _running(lab, BOB, *(word.format(web) for word in words)) as client:
        if words[0] != "wait":
            assert client.stdout is not None
            assert client.stdout.readline()
        time.sleep(1)
        assert client.poll() is None, client.communicate()[0]
        if how == "taken back":
            assert "only you" in lab.run(ALICE, "ds01", "unshare", "web").out
            began = time.monotonic()
        client.communicate(timeout=15)
        took = time.monotonic() - began
        assert took < SOON_SECONDS + (5 if how == "over" else 0)
        assert how == "taken back" or took > 4.0
    _absent(lab, BOB, web)
    assert lab.ok(ALICE, "inspect", "-f", "{{.State.Running}}", "web") == "true"


def test_numbers_end_with_their_share(lab: Lab, web: str) -> None:
    """The stream below `docker stats`, which itself shows dashes from then on."""
    _share(lab, "web", "--with", BOB)
    with connected(lab.root / "run" / "users" / BOB / "docker.sock", BOB, seconds=15) as client:
        client.sendall(request("GET", f"/v1.41/containers/{web}/stats?stream=1"))
        assert b"200 OK" in client.recv(100)
        lab.run(ALICE, "ds01", "unshare", "web")
        began = time.monotonic()
        while client.recv(65536):
            assert time.monotonic() - began < SOON_SECONDS


def test_events_begin_and_end_with_the_share(lab: Lab, web: str) -> None:
    """One stream, before, during and after; of the shared container alone, and without what runs in it."""
    log = Path(lab.root) / "events"
    with log.open("w") as out:
        client = subprocess.Popen(
            lab.command(BOB, "docker", "events", "--format", "{{json .}}"),
            env=lab.environment(BOB),
            stdout=out,
            stderr=subprocess.STDOUT,
        )
        try:
            time.sleep(1)
            lab.ok(ALICE, "exec", "web", "true")
            _share(lab, "web", "--with", BOB)
            lab.ok(ALICE, "exec", "web", "echo", SECRET)
            assert eventually(lambda: "exec_start" in log.read_text(), seconds=5)
            lab.run(ALICE, "ds01", "unshare", "web")
            lab.ok(ALICE, "restart", "-t", "0", "web")
            time.sleep(1)
        finally:
            client.kill()
            client.wait(timeout=10)
    shown = [json.loads(line) for line in log.read_text().splitlines()]
    assert {event["Actor"]["Attributes"]["name"] for event in shown} == {f"{ALICE}.web"}
    assert [event["Action"] for event in shown][:2] == ["exec_create", "exec_start"]
    assert SECRET not in log.read_text()
    assert "restart" not in log.read_text()


def test_events_of_one_shared_container_can_be_asked_for(lab: Lab, web: str) -> None:
    """By the name that its viewer knows."""
    since = str(time.time())  # an earlier container of bob's own had that name
    _share(lab, "web", "--with", BOB)
    lab.ok(BOB, "run", "--rm", "busybox", "true")
    lab.ok(ALICE, "restart", "-t", "0", "web")
    time.sleep(1.1)  # `until` is cut to the second
    shown = lab.ok(
        BOB,
        "events",
        "--since",
        since,
        "--until",
        "0s",
        "--filter",
        f"container={ALICE}.web",
        "--format",
        "{{.ID}} {{.Action}}",
    )
    assert {line.split()[0] for line in shown.splitlines()} == {web}
    assert f"{web} restart" in shown


def test_it_goes_with_the_container(lab: Lab, web: str) -> None:
    """A new one of the same name is shared with nobody."""
    _share(lab, "web", "--with", BOB)
    lab.ok(ALICE, "rm", "-f", "web")
    lab.ok(ALICE, "run", "-d", "--name", "web", "busybox", "sleep", "600")
    assert _names(lab, BOB) == []
    assert json.loads(lab.run(ALICE, "ds01", "share", "--list", "--json").out)["own"] == []


def test_a_killed_proxy_keeps_every_share_and_its_end(lab: Lab, web: str) -> None:
    """kill -9 while shared: what was granted holds again as soon as the proxy is back, until the end it had."""
    _share(lab, "web", "--with", BOB, "--use", "--for", "12s")
    began = time.monotonic()
    pid = lab.pid("proxy")
    lab.kill("proxy")
    assert eventually(lambda: lab.pid("proxy") != pid and lab.docker(BOB, "ps").status == 0, seconds=20)
    assert lab.ok(BOB, "exec", web, "echo", "still") == "still"
    assert eventually(lambda: _names(lab, BOB) == [], seconds=20)
    assert time.monotonic() - began > 11.5
    _absent(lab, BOB, web)


def test_a_restarted_engine_keeps_every_share(lab: Lab, web: str) -> None:
    """While dockerd is away no container is there, and none is taken for removed."""
    _share(lab, "web", "--with", BOB)
    pid = lab.pid("dockerd")
    lab.kill("dockerd")
    assert eventually(lambda: lab.pid("dockerd") != pid and lab.docker(BOB, "ps").status == 0, seconds=60)
    assert eventually(lambda: _names(lab, BOB) == [f"{ALICE}.web"], seconds=10)


# --- identity --------------------------------------------------------------------------------------------


def test_exec_never_makes_one_the_owner(lab: Lab) -> None:
    """Where the owner's Docker socket is mounted, or beside the processes of such a container, exec is refused with the reason."""
    socket = ("-v", "/var/run/docker.sock:/var/run/docker.sock")
    lab.ok(ALICE, "run", "-d", "--name", "box", *socket, "busybox", "sleep", "600")
    lab.ok(ALICE, "run", "-d", "--name", "beside", "--pid", "container:box", "busybox", "sleep", "600")
    lab.ok(ALICE, "run", "-d", "--name", "from", "--volumes-from", "box", "busybox", "sleep", "600")
    lab.ok(ALICE, "run", "-d", "--name", "apart", "busybox", "sleep", "600")
    for name in ("box", "beside", "from"):
        assert "exec will be refused" in _share(lab, name, "--with", BOB, "--use")
        assert "Docker socket" in _refused(lab, BOB, "exec", f"{ALICE}.{name}", "true")
        assert lab.docker(BOB, "logs", f"{ALICE}.{name}").status == 0
    assert "refused" not in _share(lab, "apart", "--with", BOB, "--use")
    assert lab.ok(BOB, "exec", f"{ALICE}.apart", "echo", "fine") == "fine"
    lab.ok(
        ALICE, "run", "-d", "--name", "later", *socket, "--pid", "container:apart", "busybox", "sleep", "600"
    )
    _refused(lab, BOB, "exec", f"{ALICE}.apart", "true")


def test_a_program_of_a_guest_is_the_owners_to_ds01(lab: Lab, web: str) -> None:
    """What exec starts runs in alice's container with its limits: it counts as alice's, and the audit names both."""
    _share(lab, "web", "--with", BOB, "--use")
    lab.ok(BOB, "exec", web, "true")
    lines = [json.loads(line) for line in (lab.root / "log" / "audit.jsonl").read_text().splitlines()]
    uid = int(lab.run(ALICE, "id", "-u").out)
    used = [line for line in lines if line.get("operation") == "ContainerExec" and line.get("actor") == BOB][
        -1
    ]
    assert used["shared"] == [{"container": web, "owner_uid": uid, "share": "use"}]
    granted = [line for line in lines if line["event"] == "container.shared"][-1]
    assert (granted["actor"], granted["container"], granted["share"]) == (ALICE, web, "use")


# --- groups ----------------------------------------------------------------------------------------------


def test_a_group_that_shares_to_view_and_to_use(lab: Lab, web: str) -> None:
    """By policy: its members see, then use each other's; a third nothing; and none as soon as the policy says so."""
    name = f"{ALICE}.web"
    lab.ok(BOB, "run", "-d", "--name", "bobs", "busybox", "sleep", "600")
    _policy(lab, _group("view", ALICE, BOB))
    assert eventually(lambda: _names(lab, BOB) == ["bobs", name], seconds=SOON_SECONDS)
    assert _names(lab, ALICE) == [f"{BOB}.bobs", "web"]
    assert _names(lab, CAROL) == []
    _refused(lab, BOB, "exec", name, "true")
    _policy(lab, _group("use", ALICE, BOB))
    assert lab.ok(BOB, "exec", name, "echo", "hello") == "hello"
    _absent(lab, CAROL, name)
    with _running(lab, BOB, "logs", "-f", name) as client:
        time.sleep(1)
        assert client.poll() is None
        _policy(lab, _group("none", ALICE, BOB))
        client.communicate(timeout=SOON_SECONDS)
    assert _names(lab, BOB) == ["bobs"]
    _absent(lab, BOB, name)


def test_a_grant_to_a_group_follows_its_members(lab: Lab, web: str) -> None:
    """Who leaves the group loses it, who comes gets it."""
    _policy(lab, _group("none", ALICE, BOB))
    _share(lab, "web", "--group", "lab", "--use")
    assert lab.ok(BOB, "exec", web, "echo", "bob") == "bob"
    _policy(lab, _group("none", ALICE, CAROL))
    assert eventually(lambda: _names(lab, BOB) == [], seconds=SOON_SECONDS)
    assert lab.ok(CAROL, "exec", web, "echo", "carol") == "carol"


def test_the_command_says_what_is_shared(lab: Lab, web: str) -> None:
    """To both sides; ends some or all; and says what is wrong with a wish."""
    _share(lab, "web", "--with", BOB, "--with", CAROL, "--for", "30m")
    mine = lab.run(ALICE, "ds01", "share", "--list").out
    assert f"{BOB} may see it until" in mine
    assert f"{ALICE}.web" in lab.run(BOB, "ds01", "share", "--list").out
    assert f"{BOB} may see" in lab.run(ALICE, "ds01", "unshare", "web", "--with", CAROL).out
    assert _names(lab, CAROL) == []
    for words, said in (
        (("web", "--with", ALICE), "yours already"),
        (("web", "--with", "nobody-of-that-name"), "no user"),
        (("nosuchthing", "--with", BOB), "No such container"),
        (("web", "--with", BOB, "--for", "0s"), "seconds"),
        (("web", "--with", BOB, "--for", "31d"), "seconds"),
    ):
        done = lab.run(ALICE, "ds01", "share", *words)
        assert (done.status, said in done.err) == (1, True), done.err


def test_both_doors_and_the_plugin_agree(lab: Lab, web: str) -> None:
    """By the front door as by the own socket; and the plugin refused nothing that the proxy let through."""
    _share(lab, "web", "--with", BOB, "--use")
    name = f"{ALICE}.web"
    assert lab.docker(BOB, "exec", name, "true", host=lab.front_door).status == 0
    assert lab.docker(CAROL, "exec", name, "true", host=lab.front_door).status != 0
    assert '"request.denied"' not in lab.log("authz").rpartition('"policy.loaded"')[2]
