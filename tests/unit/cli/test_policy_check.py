"""All mistakes at once; the files in force must be trustworthy too."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cli.outcome import Exit, Failed
from cli.policy_check import check, mistakes_as_json, shown, summary
from host.tree import Tree
from policy.document import PolicyInvalid

GOOD = (
    "version: 1\ndefaults:\n  role: user\ngroups:\n  students:\n    members: [alice]\n    limits: {gpus: 2}\n"
)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    tree = Tree.under(tmp_path)
    tree.etc.mkdir(mode=0o755)
    tree.policy.write_text(GOOD)
    tree.policy.chmod(0o644)
    return tree


def test_a_good_file_is_summed_up(tree: Tree) -> None:
    """Digest, groups, members and limits are shown."""
    found = summary(check([str(tree.policy)], tree))
    assert found["groups"]["students"]["limits"] == {"gpus": 2}
    assert "group students" in shown(found)
    assert found["digest"] in shown(found)


def test_monitors_are_shown(tree: Tree) -> None:
    """Each with the image that it has to be of; none is shown where none is named."""
    image = "sha256:" + "a" * 64
    assert summary(check([str(tree.policy)], tree))["monitors"] == []
    tree.policy.write_text(f'{GOOD}gpu: {{monitors: [{{container: dcgm, image: "{image}"}}]}}\n')
    found = summary(check([str(tree.policy)], tree))
    assert found["monitors"] == [{"container": "dcgm", "image": image}]
    assert "monitor dcgm    takes no GPU" in shown(found)
    assert image in shown(found)


def test_every_mistake_of_every_file_is_told(tree: Tree) -> None:
    """File, line, path and message for each, not only the first."""
    bad = tree.etc / "bad.yaml"
    bad.write_text("version: 1\ndefaults:\n  limits: {gpu: 2}\n")
    worse = tree.etc / "worse.yaml"
    worse.write_text("groups:\n  a: {role: king}\n")
    with pytest.raises(PolicyInvalid) as invalid:
        check([str(bad), str(worse)], tree)
    told = mistakes_as_json(invalid.value)["mistakes"]
    assert [(Path(one["file"]).name, one["line"]) for one in told] == [("bad.yaml", 3), ("worse.yaml", 2)]


def test_a_policy_in_force_that_others_may_write_is_a_mistake(tree: Tree) -> None:
    """No daemon would load it, so the check says so."""
    tree.policy.chmod(0o666)
    with pytest.raises(PolicyInvalid, match=r"policy\.yaml:0: \(top\): "):
        check([], tree)


@pytest.mark.skipif(os.geteuid() != 0, reason="the files in force belong to root")
def test_the_files_in_force_are_taken_together(tree: Tree) -> None:
    """policy.d counts, as it does for the daemons."""
    tree.policy_directory.mkdir(mode=0o755)
    more = tree.policy_directory / "more.yaml"
    more.write_text("groups:\n  staff: {members: [bob]}\n")
    more.chmod(0o644)
    assert set(check([], tree).document.groups) == {"students", "staff"}


@pytest.mark.parametrize(("files", "code"), [(["none.yaml"], Exit.USAGE), ([], Exit.UNAVAILABLE)])
def test_a_missing_file_is_told_by_whose_it_is(tmp_path: Path, files: list[str], code: Exit) -> None:
    """A wrong argument is usage; a server without a policy is an outage."""
    tree = Tree.under(tmp_path / "x")
    (tmp_path / "x" / "etc").mkdir(parents=True)
    with pytest.raises(Failed) as failed:
        check([str(tmp_path / name) for name in files], tree)
    assert failed.value.code is code


def test_bytes_that_are_no_text_are_a_mistake(tree: Tree) -> None:
    """No traceback for a binary file."""
    tree.policy.write_bytes(b"\xff")
    with pytest.raises(PolicyInvalid, match="UTF-8"):
        check([str(tree.policy)], tree)
