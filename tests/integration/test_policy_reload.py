"""Editing the policy on the running system: a mistake changes nothing and is told whole, a right file is in force at once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.integration.conftest import Lab, eventually, running_lab

pytestmark = pytest.mark.dockerd

_SOON_SECONDS = 2.5  # two seconds, and one look of this test


@pytest.fixture(scope="module")
def own() -> Iterator[Lab]:
    """A lab whose policy these tests change."""
    with running_lab("chaos-policy-a", "chaos-policy-b", "--gpus", "none") as running:
        yield running


@pytest.fixture
def extra(own: Lab) -> Iterator[Path]:
    """A second policy file, not there yet; gone, and out of force, afterwards."""
    path = own.root / "etc" / "policy.d" / "reload.yaml"
    path.parent.mkdir(exist_ok=True)
    first = _digests(own)
    yield path
    own.clean()
    path.unlink(missing_ok=True)
    assert eventually(lambda: _digests(own) == first, seconds=_SOON_SECONDS)


def _digests(lab: Lab) -> list[str]:
    """The policy that proxy and plugin loaded last."""
    return [
        [json.loads(line)["digest"] for line in lab.log(daemon).splitlines() if '"policy.loaded"' in line][-1]
        for daemon in ("proxy", "authz")
    ]


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def _count(lab: Lab, event: str, daemon: str = "proxy") -> int:
    return lab.log(daemon).count(f'"{event}"')


def _limits(lab: Lab, text: str, *, group: str = "reload") -> str:
    return f"groups:\n  {group}: {{members: [{lab.alice}], limits: {{{text}}}}}\n"


def _memory(lab: Lab, *options: str) -> int:
    """What a container of alice's gets, in bytes."""
    container = lab.ok(lab.alice, "create", *options, "busybox")
    given = int(lab.ok(lab.alice, "inspect", "-f", "{{.HostConfig.Memory}}", container))
    lab.ok(lab.alice, "rm", container)
    return given


def test_a_tighter_limit_holds_for_the_next_create(own: Lab, extra: Path) -> None:
    """Within two seconds of the change new containers get the new limit; what exists keeps what it had."""
    old = own.ok(own.alice, "create", "busybox")
    before = own.ok(own.alice, "inspect", "-f", "{{.HostConfig.Memory}}", old)
    _write(extra, _limits(own, "memory: 64MiB"))
    assert eventually(lambda: _memory(own, "-m", "128m") == 64 << 20, seconds=_SOON_SECONDS)
    assert own.ok(own.alice, "inspect", "-f", "{{.HostConfig.Memory}}", old) == before


def test_the_number_of_containers_is_held_at_once(own: Lab, extra: Path) -> None:
    """A user above a new limit keeps what there is and gets no more; others are not touched."""
    for _ in range(2):
        own.ok(own.alice, "create", "busybox")
    _write(extra, _limits(own, "containers: 1"))
    assert eventually(lambda: own.docker(own.alice, "create", "busybox").status != 0, seconds=_SOON_SECONDS)
    refused = own.docker(own.alice, "create", "busybox").err
    assert "(rule containers)" in refused
    assert "limit is 1" in refused
    own.ok(own.bob, "create", "busybox")


_WRONG = {
    "syntax": ("groups: {a: [", ["reload.yaml:1"]),
    "unknown key": ("grups: {}", ["grups", "groups"]),
    "duplicate key": ("groups: {}\ngroups: {}\n", ["groups"]),
    "three mistakes": (
        "groups:\n  reload:\n    members: [nobody-at-all]\n    limits: {memory: much, gpu: 1}\n    role: king\n",
        ["reload.limits.memory", "reload.limits.gpu", "reload.role"],
    ),
    "no text": ("\udcff", ["UTF-8"]),
}


@pytest.mark.parametrize(("text", "named"), _WRONG.values(), ids=_WRONG)
def test_a_broken_file_changes_nothing(own: Lab, extra: Path, text: str, named: list[str]) -> None:
    """The last good policy stays, in both daemons, and the log names every mistake."""
    given = _memory(own)
    rejected = {daemon: _count(own, "policy.rejected", daemon) for daemon in ("proxy", "authz")}
    extra.write_bytes(text.encode(errors="surrogateescape"))
    extra.chmod(0o644)
    assert eventually(
        lambda: all(_count(own, "policy.rejected", daemon) > count for daemon, count in rejected.items()),
        seconds=_SOON_SECONDS,
    )
    assert _memory(own) == given
    problems = json.loads([line for line in own.log("proxy").splitlines() if "policy.rejected" in line][-1])[
        "problems"
    ]
    assert all(name in problems for name in named), problems


def test_a_mended_file_is_in_force(own: Lab, extra: Path) -> None:
    """Broken, then right: the change applies without a restart."""
    rejected = _count(own, "policy.rejected")
    _write(extra, "groups: {reload: {members: ")
    assert eventually(lambda: _count(own, "policy.rejected") > rejected, seconds=_SOON_SECONDS)
    _write(extra, _limits(own, "memory: 96MiB"))
    assert eventually(lambda: _memory(own) == 96 << 20, seconds=_SOON_SECONDS)


@pytest.mark.parametrize("how", ["another's", "writable by others", "a link"])
def test_a_file_that_is_not_roots_is_not_believed(own: Lab, extra: Path, how: str) -> None:
    """Policy that somebody else could have written stays out of force."""
    given = _memory(own)
    rejected = _count(own, "policy.rejected")
    real = own.root / "etc" / "elsewhere.yaml"
    _write(real, _limits(own, "memory: 32MiB"))
    if how == "a link":
        extra.symlink_to(real)
    else:
        if how == "another's":
            uid = int(own.run(own.alice, "id", "-u").out)
            os.chown(real, uid, uid)
        else:
            real.chmod(0o666)
        real.rename(extra)
    assert eventually(lambda: _count(own, "policy.rejected") > rejected, seconds=_SOON_SECONDS)
    assert _memory(own) == given
    real.unlink(missing_ok=True)


def test_a_change_under_load_refuses_nobody(own: Lab, extra: Path) -> None:
    """Proxy and plugin read the files each at their own time; whoever creates meanwhile does not notice."""
    for size in (256, 128, 512, 64):
        _write(extra, _limits(own, f"memory: {size}MiB"))
        assert eventually(partial(_gets, own, size << 20), seconds=_SOON_SECONDS)


def _gets(lab: Lab, memory_bytes: int) -> bool:
    return _memory(lab) == memory_bytes
