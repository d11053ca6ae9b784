"""Local image names are each user's own: everybody builds `app`, and the names inside dockerd do not show."""

from __future__ import annotations

import io
import json
import pwd
import re
import shutil
import tarfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import docker
import pytest
from docker.errors import APIError, ImageNotFound

from tests.fakes.tap import Tap, tapped
from tests.integration.conftest import DOCKER_PY, Lab, Result, eventually, needs_compose
from tests.integration.test_images import build, call, ds01, forget_images, saved, tar, unnumbered

pytestmark = [
    pytest.mark.dockerd,
    pytest.mark.timeout(600),
    *DOCKER_PY,
]


@pytest.fixture(scope="module")
def tap(lab: Lab) -> Iterator[Tap]:
    """Every byte between alice's clients and her socket."""
    with tapped(lab.root / "itap.sock", lab.root / "run" / "users" / lab.alice / "docker.sock") as running:
        yield running


def inside(user: str) -> str:
    """What this user's local names begin with inside dockerd."""
    return f"ds01.invalid/u{pwd.getpwnam(user).pw_uid}/"


@pytest.fixture
def images(clean_lab: Lab) -> Iterator[Lab]:
    """No image of either user's before and after."""
    forget_images(clean_lab)
    yield clean_lab
    forget_images(clean_lab)


def made(lab: Lab, user: str, name: str, text: str, *words: str) -> str:
    """An image built by the classic builder that says `text`; the words of the build."""
    result = build(lab, user, f"FROM busybox\nRUN echo {text} > /text\nCMD cat /text\n", "-t", name, *words)
    assert result.status == 0, result.out + result.err
    return result.out


def tags_of(lab: Lab, user: str, *words: str) -> list[str]:
    """What `docker images` lists, sorted; without the distribution that other tests load for everybody."""
    listed = lab.ok(user, "images", "--format", "{{.Repository}}:{{.Tag}}", *words).split()
    return sorted(tag for tag in listed if not tag.startswith("debian:"))


def assert_nothing_shows(tap: Tap, lab: Lab, what: str) -> bytes:
    """No own name as it is inside dockerd in what came back; gives all of it."""
    talks, beginning = tap.take(), inside(lab.alice).encode()
    for sent, got in talks:
        at = got.find(beginning)
        assert at < 0, (
            f"{what}: {got[max(0, at - 200) : at + 80]!r} after {re.findall(rb'[A-Z]+ /[^ ]+', sent)[-3:]}"
        )
    return b"".join(got for _, got in talks)


READS = (
    "images", "images -a --no-trunc --digests", "images app", "images app:1", "images ap*", "images --filter reference=*pp:?",
    "images --filter since=busybox", "images --filter before=app:1", "images --filter dangling=true", "inspect app",
    "image inspect app:1", "image inspect docker.io/library/app:1", "history app:1", "history --no-trunc app", "ps -a",
    "ps -a --filter ancestor=app:1", "ps -a --filter ancestor=nothing", "inspect cc", "system df -v", "info",
    "events --since 0 --until 0s", "events --since 0 --until 0s --filter image=app:1",
    "events --since 0 --until 0s --filter type=image", "logs cc", "diff cc", "image ls --format {{.Repository}}",
)  # fmt: skip
REFUSED = (
    "rmi app", "push app", "push app:latest", "push -a app", "inspect nothing", "image inspect nothing:1", "history nothing",
    "rmi nothing", "tag nothing app", "save nothing", "create --pull never nothing", "run --pull never nothing true",
    "run --rm app nosuchprogram", "tag app App", "tag app app:-", "commit cc App", "pull app",
)  # fmt: skip
CHANGES = (
    "tag app app:1", "tag app app:2", "tag app reg.example/team/app:2", "rmi app:2", "rmi reg.example/team/app:2", "commit cc committed",
    "image inspect committed", "history committed", "create --name dd committed true", "inspect dd", "rm dd", "rmi committed",
    "run --name ee app cat /text", "inspect ee", "rm ee", "run -d --name ff app:1 sleep 60", "ps", "rm -f ff", "rm cc",
    "image prune -f", "events --since 0 --until 0s", "system prune -f", "image prune -af",
)  # fmt: skip


def test_nothing_shows_a_name_inside_dockerd(images: Lab, tap: Tap) -> None:
    """What a build says, what is read, what is refused, what changes, and the events of it all."""
    lab = images
    script = "cd $(mktemp -d) && printf 'FROM busybox\\nRUN echo 1 > /text\\nCMD cat /text\\n' > Dockerfile && docker build -t app -t app:1 ."
    said = lab.run(lab.alice, "sh", "-c", script, host=tap.address)
    assert "Successfully tagged app:latest" in said.out, said.out + said.err
    assert lab.docker(lab.alice, "run", "--name", "cc", "app:1", host=tap.address).out == "1\n"
    assert_nothing_shows(tap, lab, "making them")
    for words in READS:
        done = lab.docker(lab.alice, *words.split(), host=tap.address)
        assert done.status == 0, (words, done.err)
        assert b"HTTP/1.1 200 OK" in assert_nothing_shows(tap, lab, words), "the tap records"
    assert lab.docker(lab.alice, "rmi", "app:1", host=tap.address).status == 0
    for words in REFUSED:
        done = lab.docker(lab.alice, *words.split(), host=tap.address)
        assert done.status != 0, words
        assert_nothing_shows(tap, lab, words)
    for words in CHANGES:
        done = lab.docker(lab.alice, *words.split(), host=tap.address)
        assert done.status == 0, (words, done.err)
        assert_nothing_shows(tap, lab, words)


def test_the_tap_finds_what_shows(images: Lab) -> None:
    """Behind the admin's socket the same list holds the names inside dockerd, and they are names there."""
    lab = images
    made(lab, lab.alice, "app", "hers")
    with tapped(lab.root / "itap-admin.sock", lab.root / "run" / "admin.sock") as admin:
        shown = lab.docker("root", "images", "--format", "{{.Repository}}", host=admin.address).out.split()
        assert f"{inside(lab.alice)}app" in shown
        with pytest.raises(AssertionError, match="images"):
            assert_nothing_shows(admin, lab, "images")
        run = lab.docker("root", "run", "--rm", f"{inside(lab.alice)}app", host=admin.address)
        assert run.out == "hers\n", run.err


def test_names_are_found_as_they_were_written(images: Lab) -> None:
    """Lists and filters say and take the plain ones; a container says which image it was made of."""
    lab, alice = images, images.alice
    made(lab, alice, "app:1", "x")
    lab.ok(alice, "run", "--name", "cc", "app:1")
    assert lab.ok(alice, "inspect", "-f", "{{.Config.Image}}", "cc") == "app:1"
    assert lab.ok(alice, "ps", "-a", "--format", "{{.Image}}") == "app:1"
    assert lab.ok(alice, "ps", "-aq", "--filter", "ancestor=app:1") != ""
    assert lab.ok(alice, "image", "inspect", "-f", "{{.RepoTags}}", "app:1") == "[app:1]"
    for words in (("app",), ("--filter", "reference=a*"), ("--filter", "since=busybox")):
        assert tags_of(lab, alice, *words) == ["app:1"]
    assert "untag" not in lab.ok(
        alice, "events", "--since", "0", "--until", "0s", "--filter", "image=other:1"
    )
    made_of = lab.ok(alice, "events", "--since", "0", "--until", "0s", "--filter", "image=app:1")
    assert "image=app:1" in made_of
    assert "app:1" in lab.docker(alice, "rmi", "app:1").err, "the conflict names it"
    assert "Untagged: app:1" in lab.ok(alice, "rmi", "-f", "app:1")


def test_everybody_has_the_name(images: Lab) -> None:
    """Two users build and run `test`; neither sees the other's, and removing the one leaves the other."""
    lab = images
    with ThreadPoolExecutor(2) as workers:
        list(workers.map(lambda user: made(lab, user, "test", user), (lab.alice, lab.bob)))
    for user in (lab.alice, lab.bob):
        assert lab.ok(user, "run", "--rm", "test") == user
        assert lab.ok(user, "images", "-q", "test").count("\n") == 0
    lab.ok(lab.alice, "rmi", "test")
    assert "No such image: test:latest" in lab.docker(lab.alice, "image", "inspect", "test").err
    assert lab.ok(lab.bob, "run", "--rm", "test") == lab.bob
    lab.ok(lab.alice, "tag", "busybox", "test")
    assert lab.ok(lab.bob, "run", "--rm", "test") == lab.bob


def test_an_own_name_shadows_for_its_owner_alone(images: Lab) -> None:
    """Alice's own `busybox` is what she means by it, in run, FROM and lists, until she removes it."""
    lab, alice, bob = images, images.alice, images.bob
    everybodys = lab.ok(bob, "image", "inspect", "-f", "{{.Id}}", "busybox")
    made(lab, alice, "busybox", "hers")
    assert lab.ok(alice, "run", "--rm", "busybox") == "hers"
    assert lab.ok(alice, "images", "--format", "{{.Repository}}:{{.Tag}}", "busybox") == "busybox:latest"
    assert lab.ok(alice, "image", "inspect", "-f", "{{.RepoTags}}", everybodys) == "[]"
    said = build(
        lab,
        alice,
        "FROM busybox AS b\nRUN cat /text\nFROM busybox\nCOPY --from=busybox /text /copy\n",
        "-t",
        "on",
    )
    assert said.status == 0, said.out + said.err
    assert "FROM busybox AS b\n" in said.out, said.out
    assert "--from=busybox" in said.out
    assert lab.ok(alice, "run", "--rm", "on", "cat", "/copy") == "hers"
    assert (
        lab.ok(bob, "image", "inspect", "-f", "{{.Id}} {{.RepoTags}}", "busybox")
        == f"{everybodys} [busybox:latest]"
    )
    lab.ok(alice, "rmi", "-f", "busybox")
    assert (
        lab.ok(alice, "image", "inspect", "-f", "{{.Id}} {{.RepoTags}}", "busybox")
        == f"{everybodys} [busybox:latest]"
    )


def test_a_second_name_for_everybodys_image(images: Lab) -> None:
    """`docker tag busybox busybox` gives it once, and taking it back leaves everybody's."""
    lab, alice = images, images.alice
    lab.ok(alice, "tag", "busybox", "busybox")
    assert lab.ok(alice, "image", "inspect", "-f", "{{.RepoTags}}", "busybox") == "[busybox:latest]"
    assert "Untagged: busybox:latest" in lab.ok(alice, "rmi", "busybox")
    assert lab.docker(alice, "rmi", "busybox").status != 0
    assert lab.ok(alice, "image", "inspect", "-f", "{{.RepoTags}}", "busybox") == "[busybox:latest]"


def texts_of(archive: bytes) -> dict[str, bytes]:
    """The naming members of a saved tar."""
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        return {
            member.name: (opened.extractfile(member) or io.BytesIO()).read()
            for member in opened
            if member.name in {"manifest.json", "repositories", "index.json"}
        }


def test_a_saved_tar_carries_plain_names_and_is_anybodys_to_load(images: Lab) -> None:
    """Whoever loads it has the names as the own."""
    lab = images
    made(lab, lab.alice, "app:1", "x")
    lab.ok(lab.alice, "tag", "app:1", "app:2")
    lab.ok(lab.alice, "tag", "app:1", "reg.example/team/app:1")
    for names, tags in (
        (("app:1",), {"app:1"}),
        (("app",), {"app:1", "app:2"}),
        (
            ("app:2", "busybox", "reg.example/team/app:1"),
            {"app:2", "busybox:latest", "reg.example/team/app:1"},
        ),
    ):
        archive = saved(lab, lab.alice, *names)
        members = texts_of(archive)
        assert {tag for one in json.loads(members["manifest.json"]) for tag in one["RepoTags"]} == tags
        assert inside(lab.alice).encode() not in b"".join(members.values())
    archive = saved(lab, lab.alice, "app")
    path = Path("/home", lab.bob, "theirs.tar")
    path.write_bytes(archive)
    said = lab.ok(lab.bob, "load", "-i", str(path))
    assert sorted(re.findall("Loaded image: (.*)", said)) == ["app:1", "app:2"]
    path.unlink()
    assert lab.ok(lab.bob, "run", "--rm", "app:2") == "x"
    lab.ok(lab.alice, "rmi", "app:1", "app:2")
    assert lab.ok(lab.bob, "run", "--rm", "app:1") == "x"


@pytest.mark.parametrize(
    "name", ["ds01.invalid/u{}/app:1", "docker.io/ds01.invalid/u{}/app:1", "DS01.invalid/u{}/app:1"]
)
def test_nobody_writes_into_anothers_space(images: Lab, name: str) -> None:
    """However it is written, there or not, by whichever call; one's own is refused as well, so that it tells nothing."""
    lab, bob = images, images.bob
    made(lab, lab.alice, "app:1", "hers")
    container = lab.ok(bob, "create", "busybox")
    for user in (lab.alice, bob):
        text = name.format(pwd.getpwnam(user).pw_uid)
        manifest = tar(("manifest.json", json.dumps([{"RepoTags": [text]}]).encode()))
        path = Path("/home", bob, "named.tar")
        path.write_bytes(manifest)
        refusals = {
            "tag": lab.docker(bob, "tag", "busybox", text),
            "build": build(lab, bob, "FROM busybox", "-t", text),
            "commit": lab.docker(bob, "commit", container, text),
            "import": lab.docker(bob, "import", str(path), text),
            "load": lab.docker(bob, "load", "-i", str(path)),
            "pull": lab.docker(bob, "pull", text),
            "push": lab.docker(bob, "push", text),
        }
        path.unlink()
        for how, refusal in refusals.items():
            assert refusal.status != 0, (how, text)
            assert re.search(
                "rule (names|registry)|No such image|invalid reference|does not exist",
                refusal.err + refusal.out,
            ), (how, refusal)
    assert lab.ok(lab.alice, "run", "--rm", "app:1") == "hers"


def test_anothers_local_name_is_not_there(images: Lab) -> None:
    """By the name inside dockerd too: to read, to run, to build on; nothing differs from one that nobody has."""
    lab, bob = images, images.bob
    made(lab, lab.alice, "app:1", "hers")
    there, absent = f"{inside(lab.alice)}app:1", f"{inside(lab.alice)}none:1"
    for words in ("inspect {}", "image inspect {}", "history {}", "save {}", "rmi {}", "tag {} x", "create --pull never {}",
                  "images {}", "images --filter since={}", "run {}", "push {}", "pull {}", "ps -a --filter ancestor={}"):  # fmt: skip
        theirs, none = (lab.docker(bob, *words.format(name).split()) for name in (there, absent))
        assert theirs.status == none.status, words
        for said, nothing in ((theirs.out, none.out), (theirs.err, none.err)):
            assert unnumbered(said, there) == unnumbered(nothing, absent), words
    for dockerfile in ("FROM {}", "FROM busybox\nCOPY --from={} /text /", "ARG A={}\nFROM $A"):
        theirs, none = (build(lab, bob, dockerfile.format(name)) for name in (there, absent))
        assert theirs.status != 0
        assert unnumbered(theirs.err, there) == unnumbered(none.err, absent), dockerfile
    assert "ds01.invalid" not in lab.ok(bob, "images", "--filter", f"reference={inside(lab.alice)}*")


def test_a_shared_name_works_as_it_is_listed(images: Lab) -> None:
    """The grantee reads it under the name that `docker images` and `ds01 image ls` show; an own name of the same spelling stays."""
    lab, bob = images, images.bob
    long = f"{inside(lab.alice)}base:1"
    made(lab, lab.alice, "base:1", "shared")
    made(lab, bob, "base:1", "own")
    assert f"base:1: you and {bob}" in ds01(lab, lab.alice, "image", "share", "base:1", "--with", bob).out
    assert "base:1" in ds01(lab, lab.alice, "image", "ls").out
    assert f"{long}  by {lab.alice}" in ds01(lab, bob, "image", "ls").out
    assert long in lab.ok(bob, "images", "--format", "{{.Repository}}:{{.Tag}}").split()
    assert lab.ok(bob, "run", "--rm", long) == "shared"
    assert lab.ok(bob, "run", "--rm", "base:1") == "own"
    on = build(lab, bob, f"FROM {long}\nRUN cat /text\n", "-t", "on-it")
    assert on.status == 0, on.out + on.err
    assert lab.docker(bob, "rmi", long).status != 0
    lab.run(lab.alice, "ds01", "image", "unshare", "base:1")
    assert "No such image" in lab.docker(bob, "image", "inspect", long).err
    assert lab.ok(bob, "run", "--rm", "base:1") == "own"


def test_an_sdk_goes_by_plain_names(images: Lab, tap: Tap) -> None:
    """docker-py: build, tag, get, list, save, load, run, remove."""
    lab = images
    client = docker.DockerClient(base_url=tap.address, timeout=60)
    image, _ = client.images.build(
        fileobj=io.BytesIO(b"FROM busybox\nRUN echo 1 > /one\n"), tag="sdk", rm=True
    )
    assert image.tags == ["sdk:latest"]
    assert image.tag("sdk", "two")
    assert sorted(client.images.get("sdk:two").tags) == ["sdk:latest", "sdk:two"]
    assert [one.id for one in client.images.list("sdk")] == [image.id]
    archive = b"".join(client.images.get("sdk:two").save(named="sdk:two"))
    assert client.containers.run("sdk:two", "cat /one", remove=True) == b"1\n"
    client.images.remove("sdk:two")
    assert client.images.load(archive)[0].tags == ["sdk:latest", "sdk:two"]
    container = client.containers.create("sdk", "true")
    assert container.image.tags == ["sdk:latest", "sdk:two"]
    assert container.commit("sdk", "three").tags == ["sdk:three"]
    client.images.remove("sdk:two")
    with pytest.raises(APIError, match="sdk"):
        client.images.remove("sdk:latest")
    container.remove()
    with pytest.raises(ImageNotFound, match="nothing"):
        client.images.get("nothing")
    client.close()
    assert_nothing_shows(tap, lab, "docker-py")


def test_the_record_of_names_follows_the_engine(images: Lab) -> None:
    """A name that was removed behind ds01's back shadows no longer once the proxy has started again."""
    lab, alice = images, images.alice
    lab.ok(alice, "tag", "busybox", "busybox")
    lab.ok(alice, "tag", "busybox", "kept")
    admin = f"unix://{lab.root}/run/admin.sock"
    assert lab.docker("root", "rmi", f"{inside(alice)}busybox", host=admin).status == 0
    before = lab.pid("proxy")
    lab.kill("proxy")
    assert eventually(lambda: lab.pid("proxy") != before, seconds=20)
    assert eventually(lambda: lab.docker(alice, "images").status == 0, seconds=20)
    assert tags_of(lab, alice) == ["busybox:latest", "kept:latest"]


PROJECT = """
version: "2.4"
services:
  web:
    build: .
    command: sh -c 'cat /text; sleep 600'
  worker:
    build: {context: ., args: {MORE: worker}}
    image: worker-image
    command: sleep 600
"""
DOCKERFILE = "FROM busybox\nARG MORE\nCOPY who /text\nRUN echo $MORE > /more\n"


@needs_compose
def test_two_users_build_and_run_the_same_project_at_once(images: Lab, tap: Tap) -> None:
    """Same project directory, same service names, same `image:`; each runs what the own files made, and nothing is recreated."""
    lab = images
    doors = {lab.alice: tap.address, lab.bob: None}
    for user in doors:
        directory = Path("/home", user, "course")
        directory.mkdir()
        (directory / "docker-compose.yml").write_text(PROJECT)
        (directory / "Dockerfile").write_text(DOCKERFILE)
        (directory / "who").write_text(f"{user}\n")
        shutil.chown(directory, user, user)

    def compose(user: str, *words: str) -> Result:
        return lab.run(
            user, "docker-compose", *words, cwd=Path("/home", user, "course"), seconds=150, host=doors[user]
        )

    def both(*words: str) -> dict[str, Result]:
        with ThreadPoolExecutor(2) as workers:
            done = dict(zip(doors, workers.map(lambda user: compose(user, *words), doors), strict=True))
        for user, result in done.items():
            assert result.status == 0, (user, words, result.out + result.err)
        return done

    def says_so(user: str) -> bool:
        return user in compose(user, "logs", "--no-color", "web").out

    tap.take()
    try:
        both("build")
        both("up", "-d")
        for user in doors:
            assert eventually(partial(says_so, user), seconds=10)
            assert "course_web" in compose(user, "images").out
            assert lab.ok(user, "inspect", "-f", "{{.Config.Image}}", "course_web_1") == "course_web"
            named = [tag for tag in tags_of(lab, user) if not tag.startswith("<none>")]
            assert named == ["busybox:latest", "course_web:latest", "worker-image:latest"]
        for user, again in both("up", "-d").items():
            assert "ecreating" not in again.err, user
        version = lab.ok(lab.alice, "version", "--format", "{{.Server.Version}}")
        if int(version.partition(".")[0]) < 25:  # docker-compose 1.29 recreates on none later: test_compose
            both("up", "-d", "--build")  # which may take a step of the other's from the cache, and recreate
        both("down", "-v", "--rmi", "all", "-t", "0")
        for user in doors:
            assert "course_web" not in lab.ok(user, "images")
        assert_nothing_shows(tap, lab, "compose")
    finally:
        for user in doors:
            compose(user, "down", "-v", "-t", "0")
            shutil.rmtree(Path("/home", user, "course"))


def test_one_call_cannot_say_two_names(images: Lab) -> None:
    """`repo` with a tag of its own beside `tag`: dockerd takes the latter, so it is refused."""
    lab = images
    lab.ok(lab.alice, "tag", "busybox", "team/app:v2")
    status, answer = call(lab, lab.bob, "POST /v1.41/images/busybox/tag?repo=team/app:v1&tag=v2")
    assert (status, b"rule names" in answer) == (403, True)
    lab.ok(lab.alice, "rmi", "team/app:v2")


def test_a_base_that_moves_brings_no_lines_that_nobody_has_read(images: Lab) -> None:
    """Bob's own base is moved to one with an ONBUILD that copies from alice's image, while his build runs."""
    lab, bob = images, images.bob
    made(lab, lab.alice, "team/private:1", "secret-of-alice")
    lab.ok(bob, "tag", "busybox", "base")
    container = lab.ok(bob, "create", "busybox")
    script = "cd $(mktemp -d) && printf 'FROM busybox AS slow\\nRUN sleep 5\\nFROM base\\nRUN cat /text\\n' > Dockerfile && docker build --no-cache ."
    with ThreadPoolExecutor(1) as workers:
        building = workers.submit(lab.run, bob, "sh", "-c", script)
        time.sleep(2)
        lab.ok(bob, "commit", "--change", "ONBUILD COPY --from=team/private:1 /text /text", container, "base")
        assert "secret-of-alice" not in building.result().out
    lab.ok(lab.alice, "rmi", "team/private:1")
