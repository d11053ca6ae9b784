"""The names in an image tar are all found, and all written as they are to be inside dockerd."""

from __future__ import annotations

import json

import pytest

from policy.dockerapi.tar_names import member_of, names_in, renamed
from policy.image_names import real
from policy.model import Uid

FULL, SHORT = "io.containerd.image.name", "org.opencontainers.image.ref.name"


def inside(name: str) -> str:
    return real(Uid(1001), name)


@pytest.mark.parametrize(
    ("path", "member"),
    [("manifest.json", "manifest.json"), ("./a/../Manifest.JSON", "manifest.json"), ("x/index.json", "index.json"),
     ("repositories/", "repositories"), ("layer.tar", "layer.tar")],
)  # fmt: skip
def test_a_member_goes_by_the_end_of_its_path(path: str, member: str) -> None:
    """Whatever stands before may be a link."""
    assert member_of(path) == member


@pytest.mark.parametrize(
    ("member", "before", "after"),
    [
        (
            "manifest.json",
            [{"Config": "c", "RepoTags": ["app:1", "alice/app:1"], "Parent": "sha256:1"}, {"RepoTags": None}],
            [
                {"Config": "c", "RepoTags": ["ds01.invalid/u1001/app:1", "alice/app:1"]},
                {"RepoTags": None},
            ],
        ),
        (
            "repositories",
            {"app": {"1": "i", "2": "j"}, "alice/app": {"1": "i"}, "none": {}},
            {"ds01.invalid/u1001/app": {"1": "i", "2": "j"}, "alice/app": {"1": "i"}, "none": {}},
        ),
        (
            "index.json",
            {"schemaVersion": 2, "manifests": [{"size": 7, "annotations": {FULL: "docker.io/library/app:1", SHORT: "1"}}]},
            {"schemaVersion": 2, "manifests": [{"size": 7, "annotations": {FULL: "ds01.invalid/u1001/app:1", SHORT: "1"}}]},
        ),
        (
            "index.json",
            {"manifests": [{"annotations": {SHORT: "app:1"}}, {"annotations": None}, {}]},
            {"manifests": [{"annotations": {SHORT: "ds01.invalid/u1001/app:1"}}, {"annotations": None}, {}]},
        ),
    ],
)  # fmt: skip
def test_names_are_written_as_they_are_inside_dockerd(member: str, before: object, after: object) -> None:
    """And all else stays."""
    written = renamed(member, json.dumps(before).encode(), inside)
    assert json.loads(written) == after
    assert json.loads(renamed(member, written, inside)) == after


@pytest.mark.parametrize(
    ("member", "content"),
    [
        ("manifest.json", '[{"repotagſ": ["a:1"], "RepoTags": ["b:1"], "RepoTags": ["c:1"]}]'),
        ("repositories", '{"a": {"1": "x"}, "a": {"2": "x"}}'),
        ("index.json", f'{{"manifests": [], "Manifests": [{{"annotations": {{"{FULL}": "a:1", "{FULL}": ""}}}}]}}'),
        ("index.json", f'{{"manifests": [{{"annotations": {{"{FULL}": "a:1"}}, "Annotations": {{"{SHORT}": "b"}}}}]}}'),
    ],
)  # fmt: skip
def test_no_copy_of_a_key_keeps_its_name(member: str, content: str) -> None:
    """Go takes one of them, whichever."""
    found = names_in(member, content.encode())
    assert found
    assert names_in(member, renamed(member, content.encode(), inside)) == [inside(name) for name in found]


@pytest.mark.parametrize(
    ("member", "content"),
    [("manifest.json", "{}x"), ("manifest.json", "[1]"), ("repositories", "[1]"), ("index.json", "1"),
     ("index.json", '{"manifests": 1}'), ("manifest.json", "[" * 100_000)],
)  # fmt: skip
def test_what_is_not_of_the_form_is_an_error(member: str, content: str) -> None:
    """The tar is refused then."""
    with pytest.raises((ValueError, TypeError, RecursionError)):
        names_in(member, content.encode())
