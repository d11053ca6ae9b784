"""Images have owners: what one user makes, another neither sees nor uses, on the real engine."""

from __future__ import annotations

import io
import json
import pwd
import re
import socket
import subprocess
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from policy import image_names
from policy.model import Uid
from tests.integration.conftest import Lab, Result, eventually

pytestmark = pytest.mark.dockerd
SECRET = "alice-image-0815"


def context(dockerfile: str, **files: str) -> str:
    """A build context as text that a shell can pipe: names and contents of its files."""
    lines = ["d=$(mktemp -d); cd $d"]
    for name, content in {"Dockerfile": dockerfile, **files}.items():
        lines.append(f"cat > '{name}' <<'ENDOFFILE'\n{content}\nENDOFFILE")
    return "\n".join(lines)


def build(lab: Lab, user: str, dockerfile: str, *words: str, **files: str) -> Result:
    """docker build of a Dockerfile and files, as `user`."""
    script = (
        f"{context(dockerfile, **files)}\ndocker build {' '.join(words)} .; status=$?; rm -r $d; exit $status"
    )
    return lab.run(user, "sh", "-c", script, seconds=120)


def built(lab: Lab, user: str, dockerfile: str, *words: str, **files: str) -> str:
    """The full id of an image that must build."""
    result = build(lab, user, dockerfile, "-q", *words, **files)
    assert result.status == 0, result.err + result.out
    return result.out.strip()


def call(
    lab: Lab, user: str, line: str, body: bytes = b"", content_type: str = "application/x-tar"
) -> tuple[int, bytes]:
    """One bare HTTP call on a user's socket, for what no client sends."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(60)
        sock.connect(str(lab.root / "run" / "users" / user / "docker.sock"))
        head = f"{line} HTTP/1.1\r\nHost: d\r\nConnection: close\r\n"
        if body:
            head += f"Content-Type: {content_type}\r\nContent-Length: {len(body)}\r\n"
        sock.sendall(head.encode() + b"\r\n" + body)
        answer = b""
        while piece := sock.recv(65536):
            answer += piece
    return int(answer.split(b" ", 2)[1]), answer.partition(b"\r\n\r\n")[2]


def tar(*members: tuple[str, bytes | str]) -> bytes:
    """A tar of (name, content); a text is the target of a symbolic link."""
    spool = io.BytesIO()
    with tarfile.open(fileobj=spool, mode="w") as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return spool.getvalue()


def forget_images(lab: Lab) -> None:
    """Remove every image that either user has."""
    lab.clean()
    for user in (lab.alice, lab.bob):
        for image in lab.docker(user, "images", "-aq", "--no-trunc").out.split():
            lab.docker(user, "rmi", "-f", image)
        lab.docker(user, "image", "prune", "-f")


def unnumbered(text: str, name: str) -> str:
    """What was said, without the name that was asked for and the number of the refusal."""
    return re.sub("explain [0-9a-f]{12}", "explain N", text.replace(name, "X"))


def real_name(user: str, name: str) -> str:
    """The user's local name as it is inside dockerd, and for those it is shared with."""
    return image_names.real(Uid(pwd.getpwnam(user).pw_uid), name)


@pytest.fixture(scope="module")
def victim(lab: Lab) -> Iterator[dict[str, str]]:
    """Alice's private image, by every way to name it."""
    forget_images(lab)
    image = built(lab, lab.alice, f"FROM busybox\nRUN echo {SECRET} > /secret\n", "-t", f"{SECRET}:1")
    lab.ok(lab.alice, "tag", f"{SECRET}:1", f"{SECRET}/img:1")
    yield {
        "tag": f"{SECRET}:1",
        "whole": f"{SECRET}/img:1",
        "real": f"{real_name(lab.alice, SECRET)}:1",
        "id": image,
        "hex": image.removeprefix("sha256:"),
        "short": image[7:19],
    }
    forget_images(lab)


READS = (
    "inspect {}", "image inspect {}", "history {}", "save {}", "push {}", "tag {} mine:1", "rmi {}", "rmi -f {}",
    "images --filter since={}", "images --filter before={}", "create --pull never {}", "run --pull never {} cat /secret",
)  # fmt: skip


@pytest.mark.parametrize("spelling", ["tag", "whole", "real", "id", "hex", "short"])
def test_anothers_private_image_is_not_there(lab: Lab, victim: dict[str, str], spelling: str) -> None:
    """Every call that names it, however, says what it says of an image that does not exist, to the letter."""
    absent = {
        "tag": "nosuch-image:1",
        "whole": "nosuch/img:1",
        "real": f"{real_name(lab.alice, 'nosuch')}:1",
        "id": "sha256:" + "f" * 64,
        "hex": "f" * 64,
        "short": "f" * 12,
    }[spelling]
    for template in READS:
        foreign = lab.docker(lab.bob, *template.format(victim[spelling]).split())
        nothing = lab.docker(lab.bob, *template.format(absent).split())
        assert unnumbered(foreign.err, victim[spelling]) == unnumbered(nothing.err, absent), template
        assert unnumbered(foreign.out, victim[spelling]) == unnumbered(nothing.out, absent), template
        assert foreign.status == nothing.status, template


@pytest.mark.parametrize(
    "words",
    ["images", "images -a --no-trunc", "images --digests", "images {tag}", "images --filter reference={tag}",
     "system df -v", "events --since 0 --until 0s", "ps -a --no-trunc", "images --filter reference={real}", "history busybox --no-trunc",
     "image inspect busybox", "images --filter since=busybox", "image prune -f", "image prune -af"],
)  # fmt: skip
def test_no_list_tells_of_it(lab: Lab, victim: dict[str, str], words: str) -> None:
    """Neither its name nor its id, and no prune takes it away."""
    result = lab.docker(lab.bob, *words.format(**victim).split())
    assert result.status == 0, result.err
    shown = result.out + result.err
    for text in (SECRET, victim["hex"], victim["short"]):
        assert text not in shown, shown
    assert lab.ok(lab.alice, "run", "--rm", victim["tag"], "cat", "/secret") == SECRET


def test_its_count_is_not_in_the_engines_info(lab: Lab, victim: dict[str, str]) -> None:
    """Alice has one image more than bob."""
    del victim
    alice, bob = (int(lab.ok(user, "info", "-f", "{{.Images}}")) for user in (lab.alice, lab.bob))
    assert alice > bob


@pytest.mark.parametrize("spelling", ["whole", "real", "id", "short"])
@pytest.mark.parametrize(
    "dockerfile",
    ["FROM {}", "FR\\\n# c\nOM {}", "# escape=`\nFR`\nOM {}", "ARG A={}\nFROM ${{A}}", "ARG A\nFROM ${{A:-{}}}",
     'ARG A="{}"\nFROM "$A"', "FROM busybox AS a\nCOPY --from={} /secret /",
     "from --platform=linux/amd64 {} as x"],
)  # fmt: skip
def test_it_is_no_base_of_a_build(lab: Lab, victim: dict[str, str], spelling: str, dockerfile: str) -> None:
    """However a Dockerfile words it, the build ends before a byte of it is read."""
    result = build(lab, lab.bob, dockerfile.format(victim[spelling]), "-t", "stolen")
    assert result.status != 0
    assert "pull access denied" in result.err, result.err
    assert lab.docker(lab.bob, "image", "inspect", "stolen").status != 0


def test_a_build_argument_names_it_no_better(lab: Lab, victim: dict[str, str]) -> None:
    """Given by --build-arg."""
    result = build(
        lab, lab.bob, "ARG A=busybox\nFROM $A\nRUN cat /secret", "--build-arg", f"A={victim['whole']}"
    )
    assert result.status != 0
    assert SECRET not in result.out + result.err.replace(victim["whole"], "")


def trick_contexts(name: str) -> dict[str, bytes]:
    evil, good = f"FROM {name}\nRUN cat /secret\n".encode(), b"FROM busybox\nRUN echo harmless\n"
    return {
        "two Dockerfiles, the evil one last": tar(("Dockerfile", good), ("Dockerfile", evil)),
        "two Dockerfiles, the evil one first": tar(("Dockerfile", evil), ("Dockerfile", good)),
        "dotted": tar(("Dockerfile", good), ("./a/../Dockerfile", evil)),
        "absolute": tar(("Dockerfile", good), ("/Dockerfile", evil)),
        "through a linked directory": tar(("Dockerfile", good), ("d", "."), ("d/Dockerfile", evil)),
        "a link": tar(("evil", evil), ("Dockerfile", "evil")),
        "a link to a Dockerfile": tar(("Dockerfile.evil", evil), ("Dockerfile", "Dockerfile.evil")),
        "lower case": tar(("dockerfile", evil)),
        "both cases": tar(("dockerfile", evil), ("Dockerfile", good)),
        "ignored": tar((".dockerignore", b"Dockerfile\n"), ("Dockerfile", evil)),
        "behind the end": tar(("Dockerfile", good)) + tar(("Dockerfile", evil)),
    }


@pytest.mark.parametrize("trick", list(trick_contexts("")))
def test_no_context_hides_what_is_built(lab: Lab, victim: dict[str, str], trick: str) -> None:
    """What dockerd builds is what ds01 read, so alice's secret never comes out."""
    status, answer = call(lab, lab.bob, "POST /v1.41/build", trick_contexts(victim["whole"])[trick])
    assert SECRET.encode() not in answer.replace(victim["whole"].encode(), b""), (status, answer)


def test_an_onbuild_line_of_a_base_reads_nothing_of_others(lab: Lab, victim: dict[str, str]) -> None:
    """Also one that a commit put there."""
    container = lab.ok(lab.bob, "create", "busybox")
    lab.ok(
        lab.bob, "commit", "--change", f"ONBUILD COPY --from={victim['whole']} /secret /", container, "trap:1"
    )
    result = build(lab, lab.bob, "FROM trap:1\nRUN cat /secret", "-t", "stolen")
    assert result.status != 0
    assert "an ONBUILD line of trap:1 copies from the image" in result.out + result.err
    assert SECRET not in (result.out + result.err).replace(victim["whole"], "")
    lab.docker(lab.bob, "rmi", "trap:1")


def test_its_name_is_taken_and_says_no_more(lab: Lab, victim: dict[str, str]) -> None:
    """Names with a slash are one space; every way to write one refuses alike, and alice's tag stays where it is."""
    tag = victim["whole"]
    archive = Path(f"/home/{lab.bob}/load.tar")
    archive.write_bytes(tar(("manifest.json", json.dumps([{"RepoTags": [tag]}]).encode())))
    container = lab.ok(lab.bob, "create", "busybox")
    attempts = {
        "tag": lab.docker(lab.bob, "tag", "busybox", tag),
        "build": build(lab, lab.bob, "FROM busybox", "-t", tag),
        "commit": lab.docker(lab.bob, "commit", container, tag),
        "pull": lab.docker(lab.bob, "pull", tag),
        "load": lab.docker(lab.bob, "load", "-i", str(archive)),
    }
    for how, result in attempts.items():
        assert result.status != 0, how
        assert "free names and tags of your own" in result.err, (how, result.err)
        assert victim["hex"][:12] not in result.err
    archive.unlink()
    assert lab.ok(lab.alice, "image", "inspect", "-f", "{{.Id}}", tag) == victim["id"]


def manifest_of(archive: bytes) -> list[dict[str, Any]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as opened:
        member = opened.extractfile("manifest.json")
        assert member is not None
        found: list[dict[str, Any]] = json.loads(member.read())
    return found


def test_a_repository_is_saved_and_pushed_without_the_tags_of_others(
    lab: Lab, victim: dict[str, str]
) -> None:
    """To save or push a repository means all its tags: bob's, not alice's."""
    del victim
    whole = f"{SECRET}/img"
    assert "No such image" in lab.docker(lab.bob, "save", "-o", f"/home/{lab.bob}/x.tar", whole).err
    lab.ok(lab.bob, "tag", "busybox", f"{whole}:bob")
    for names in ((whole,), (whole, "busybox")):
        tags = [tag for image in manifest_of(saved(lab, lab.bob, *names)) for tag in image["RepoTags"]]
        assert f"{whole}:bob" in tags
        assert f"{whole}:1" not in tags
    pushed = lab.docker(lab.bob, "push", "-a", whole)
    assert f"{whole}:1" not in pushed.out + pushed.err
    lab.ok(lab.bob, "rmi", f"{whole}:bob")


def test_pulling_all_tags_moves_none_of_others(lab: Lab, victim: dict[str, str]) -> None:
    """It is refused: alice's is among them."""
    result = lab.docker(lab.bob, "pull", "-a", f"{SECRET}/img")
    assert result.status != 0
    assert "free names and tags of your own" in result.err
    assert lab.ok(lab.alice, "image", "inspect", "-f", "{{.Id}}", victim["whole"]) == victim["id"]


def saved(lab: Lab, user: str, *names: str) -> bytes:
    """What docker save gives."""
    home = Path(f"/home/{user}/saved.tar")
    lab.ok(user, "save", "-o", str(home), *names)
    archive = home.read_bytes()
    home.unlink()
    return archive


def handed_over(lab: Lab, text: str, tag: str) -> str:
    """An image that alice built as `tag`, saved by its id, and loaded by bob: the same image of two makers."""
    image = built(lab, lab.alice, f"FROM busybox\nRUN echo {text} > /{text}\n", "-t", tag)
    path = Path(f"/tmp/{lab.alice}-hand.tar")
    path.write_bytes(saved(lab, lab.alice, image))
    assert lab.docker(lab.bob, "image", "inspect", image).status != 0
    assert f"Loaded image ID: {image}" in lab.ok(lab.bob, "load", "-i", str(path))
    path.unlink()
    return image


def test_two_who_make_the_same_both_have_it(lab: Lab) -> None:
    """The same content is one id; neither sees the other's tag, and each removes only the own part."""
    image = handed_over(lab, "both", "both-a:1")
    lab.ok(lab.bob, "tag", image, "both-b:1")
    for user, own, foreign in ((lab.alice, "both-a:1", "both-b:1"), (lab.bob, "both-b:1", "both-a:1")):
        assert lab.ok(user, "image", "inspect", "-f", "{{.RepoTags}}", image) == f"[{own}]"
        assert foreign not in lab.ok(user, "images")
    lab.ok(lab.alice, "rmi", image)
    assert lab.docker(lab.alice, "image", "inspect", image).status != 0
    assert lab.ok(lab.bob, "run", "--rm", "both-b:1", "cat", "/both") == "both"
    lab.ok(lab.bob, "rmi", "both-b:1")
    everything = lab.docker("root", "images", "-aq", "--no-trunc", host=lab.front_door).out
    assert image not in everything, "the last part of it took it away"


def test_the_last_name_takes_nothing_from_another_maker(lab: Lab) -> None:
    """Bob has it without a name; alice's rmi of the only name leaves it to him."""
    image = handed_over(lab, "nameless", "named-a:1")
    assert lab.ok(lab.bob, "image", "inspect", "-f", "{{.RepoTags}}", image) == "[]"
    assert "<none>" in lab.ok(lab.bob, "images", "--no-trunc")
    lab.ok(lab.alice, "rmi", "named-a:1")
    assert lab.docker(lab.alice, "image", "inspect", image).status != 0
    assert lab.ok(lab.bob, "run", "--rm", image, "cat", "/nameless") == "nameless"
    lab.ok(lab.bob, "rmi", "-f", image)


def test_prune_takes_the_own_dangling_only(lab: Lab) -> None:
    """Steps of builds and old versions of both users: each prune takes the caller's."""
    images = {}
    for user in (lab.alice, lab.bob):
        images[user] = built(lab, user, f"FROM busybox\nRUN echo {user} > /dangling\n")
    lab.ok(lab.alice, "image", "prune", "-f")
    assert lab.docker(lab.alice, "image", "inspect", images[lab.alice]).status != 0
    assert lab.ok(lab.bob, "run", "--rm", images[lab.bob], "cat", "/dangling") == lab.bob
    lab.ok(lab.bob, "image", "prune", "-f")
    assert lab.docker(lab.bob, "image", "inspect", images[lab.bob]).status != 0


def test_imported_committed_and_loaded_images_are_their_makers(lab: Lab) -> None:
    """Each way to make an image makes it private."""
    container = lab.ok(lab.alice, "create", "busybox")
    made = {
        "commit": lab.ok(lab.alice, "commit", container, "made-commit:1"),
        "import": lab.run(
            lab.alice, "sh", "-c", f"docker export {container} | docker import - made-import:1"
        ).out.strip(),
    }
    lab.run(lab.alice, "sh", "-c", "docker save made-commit:1 > ~/made.tar && docker rmi made-commit:1")
    assert "Loaded" in lab.run(lab.alice, "sh", "-c", "docker load < ~/made.tar; rm ~/made.tar").out
    for how, image in made.items():
        assert lab.docker(lab.alice, "image", "inspect", image).status == 0, how
        assert lab.docker(lab.bob, "image", "inspect", image).status != 0, how
        assert lab.docker(lab.bob, "image", "inspect", f"made-{how}:1").status != 0, how
        lab.ok(lab.alice, "rmi", f"made-{how}:1")


def test_builds_of_many_stages_work_and_leave_nothing_to_others(lab: Lab) -> None:
    """Stages by name and number, arguments, an ignored file, a Dockerfile elsewhere."""
    dockerfile = (
        "ARG BASE=busy\nFROM ${BASE}box AS one\nRUN echo one > /one\n"
        "FROM busybox AS two\nCOPY --from=one /one /two\nCOPY --from=0 /one /three\nCOPY file /\n"
        "FROM two\nRUN cat /two /three /file\n"
    )
    image = built(lab, lab.alice, dockerfile, "-t", "stages:1", file="hello")
    assert lab.ok(lab.alice, "run", "--rm", "stages:1", "cat", "/two", "/three", "/file") == "one\none\nhello"
    assert image not in lab.ok(lab.bob, "images", "-aq", "--no-trunc")
    lab.ok(lab.alice, "rmi", "stages:1")
    lab.ok(lab.alice, "image", "prune", "-f")
    dangling = lab.ok(lab.alice, "images", "-q", "--filter", "dangling=true")
    assert not dangling


def test_the_engine_says_of_an_absent_dockerfile_what_it_always_says(lab: Lab) -> None:
    """In its own words."""
    status, answer = call(lab, lab.bob, f"POST /v1.41/build?dockerfile={quote('no/such')}", tar(("a", b"b")))
    assert (status, json.loads(answer)["message"]) == (500, "Cannot locate specified Dockerfile: no/such")


def ds01(lab: Lab, user: str, *words: str) -> Result:
    return lab.run(user, "ds01", *words)


def test_a_share_opens_an_image_and_its_end_closes_it(lab: Lab, victim: dict[str, str]) -> None:
    """Bob sees, runs, builds on it, and removes nothing of it; then it is not there again."""
    tag, both = victim["real"], (lab.docker, lab.bob)
    assert "bob" in ds01(lab, lab.alice, "image", "share", victim["tag"], "--with", lab.bob).out
    assert f"{tag}  by {lab.alice}" in ds01(lab, lab.bob, "image", "ls").out
    assert SECRET in lab.ok(lab.bob, "images")
    assert lab.ok(lab.bob, "run", "--rm", tag, "cat", "/secret") == SECRET
    built(lab, lab.bob, f"FROM {tag}\nRUN true", "-t", "on-it:1")
    for refused in (["rmi", tag], ["rmi", "-f", victim["id"]], ["tag", "busybox", tag]):
        assert lab.docker(lab.bob, *refused).status != 0 or "-f" in refused
    assert "alone can share it" in reshare(lab, tag)
    assert lab.ok(lab.alice, "image", "inspect", "-f", "{{.Id}}", victim["tag"]) == victim["id"]
    ds01(lab, lab.alice, "image", "unshare", victim["tag"])
    call_it, who = both
    assert "No such image" in call_it(who, "image", "inspect", tag).err
    assert "No such image" in call_it(who, "image", "inspect", "reshared:1").err
    lab.docker(lab.bob, "rmi", "on-it:1", "reshared:1")


def reshare(lab: Lab, tag: str) -> str:
    """What bob hears when he shares, under a name of his own, what alice shared with him."""
    lab.ok(lab.bob, "tag", tag, "reshared:1")
    return ds01(lab, lab.bob, "image", "share", "reshared:1").err


def test_a_share_with_all_and_its_record(lab: Lab, victim: dict[str, str]) -> None:
    """Everybody reads it; the audit names who shared what."""
    assert "everybody" in ds01(lab, lab.alice, "image", "share", victim["tag"]).out
    assert lab.ok(lab.bob, "image", "inspect", "-f", "{{.Id}}", victim["real"]) == victim["id"]
    assert '"image.shared"' in (lab.root / "log" / "audit.jsonl").read_text()
    assert "only you" in ds01(lab, lab.alice, "image", "unshare", victim["tag"]).out
    assert lab.docker(lab.bob, "image", "inspect", victim["real"]).status != 0
    assert "No such image" in ds01(lab, lab.bob, "image", "share", victim["real"]).err


def test_shares_and_owners_survive_the_proxy(lab: Lab, victim: dict[str, str]) -> None:
    """Killed and started again, it still knows."""
    ds01(lab, lab.alice, "image", "share", victim["tag"], "--with", lab.bob)
    before = lab.pid("proxy")
    lab.kill("proxy")
    assert eventually(lambda: lab.pid("proxy") != before, seconds=20)
    assert eventually(lambda: lab.docker(lab.bob, "image", "inspect", victim["real"]).status == 0, seconds=20)
    ds01(lab, lab.alice, "image", "unshare", victim["tag"])
    assert lab.docker(lab.bob, "image", "inspect", victim["real"]).status != 0


def test_uploads_are_bounded(lab: Lab) -> None:
    """More than limits.uploads is refused with the rule's name, for loads and builds alike, and leaves nothing on disk."""
    policy = lab.root / "etc" / "policy.yaml"
    before = policy.read_text()
    policy.write_text(
        before + f"\n  {lab.bob}: {{limits: {{uploads: 1MiB}}}}\n"
        if before.rstrip().endswith("users:")
        else before.replace("users: {}", f"users:\n  {lab.bob}: {{limits: {{uploads: 1MiB}}}}")
    )
    try:
        big = tar(("Dockerfile", b"FROM busybox"), ("big", b"x" * 3_000_000))

        def refused() -> bool:
            return call(lab, lab.bob, "POST /v1.41/build", big)[0] == 413

        assert eventually(refused, seconds=10)
        status, answer = call(lab, lab.bob, "POST /v1.41/images/load", big)
        assert status == 413
        assert b"rule uploads" in answer
        assert list((lab.root / "lib" / "proxy" / "spool").iterdir()) == []
    finally:
        policy.write_text(before)


def test_a_name_that_moves_during_a_build_brings_nothing_new(lab: Lab, victim: dict[str, str]) -> None:
    """Bob's build on a shared name is slow; alice ends the share and rebuilds. He gets what he was given, not what came after."""
    ds01(lab, lab.alice, "image", "share", victim["tag"], "--with", lab.bob)
    script = context(
        f"FROM busybox AS slow\nRUN sleep 6\nFROM {victim['real']}\nRUN cat /secret /new || true"
    )
    slow = subprocess.Popen(
        lab.command(lab.bob, "sh", "-c", f"{script}\ndocker build --no-cache ."),
        env=lab.environment(lab.bob), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    time.sleep(3)
    ds01(lab, lab.alice, "image", "unshare", victim["tag"])
    built(lab, lab.alice, "FROM busybox\nRUN echo new-secret > /new\n", "-t", victim["tag"])
    out, _ = slow.communicate(timeout=60)
    assert "new-secret" not in out
    lab.ok(lab.alice, "tag", victim["id"], victim["tag"])


def test_a_build_takes_over_own_steps_and_no_others(lab: Lab) -> None:
    """The same Dockerfile gives each user a number of their own, and each user the same one again, by cache."""
    forget_images(lab)
    dockerfile = "FROM busybox\nRUN head -c 8 /dev/urandom | od -An -tx1 > /number\nCOPY f /f\nRUN cp /f /g\n"

    def number(user: str, *words: str) -> tuple[str, str]:
        done = build(lab, user, dockerfile, "-t", f"cache-{user}", *words, f="same")
        assert done.status == 0, done.err
        return lab.ok(user, "run", "--rm", f"cache-{user}", "cat", "/number"), done.out

    alice, first = number(lab.alice)
    bob, second = number(lab.bob)
    assert alice != bob
    assert "Using cache" not in first + second
    for user, was in ((lab.alice, alice), (lab.bob, bob), (lab.alice, alice)):
        now, said = number(user)
        assert now == was
        assert said.count("Using cache") >= 3
    assert number(lab.bob, "--cache-from", f"cache-{lab.alice}")[0] == bob
    failed = build(lab, lab.alice, "FROM busybox\nRUN echo kept > /kept\nRUN false\n")
    assert failed.status != 0
    assert "Using cache" in build(lab, lab.alice, "FROM busybox\nRUN echo kept > /kept\nRUN false\n").out
    forget_images(lab)
