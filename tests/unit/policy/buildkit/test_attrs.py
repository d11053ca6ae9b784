"""What the Dockerfile frontend may be told."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from policy.buildkit.attrs import cache_reasons, shape
from policy.buildkit.model import Builder, Entry, Solve
from policy.grants import Grants, Limits
from policy.model import Reason
from tests.fakes.policy_world import ALICE

BUILDER = Builder(
    actor=ALICE,
    grants=Grants(limits=Limits(shm_bytes=1000), registries=frozenset({"docker.io", "good.example"})),
    cgroup_parent="/ds01/1000",
)
ALWAYS = {
    "cgroup-parent": "/ds01/1000",
    "cmdline": "dockerfile.v0",
    "build-arg:BUILDKIT_CACHE_MOUNT_NS": "ds01-1000",
    "label:ds01.owner": "alice",
    "shm-size": "1000",
}


def shaped(attrs: Mapping[str, str]) -> tuple[dict[str, str], tuple[Reason, ...]]:
    return shape(Solve(frontend="dockerfile.v0", frontend_attrs=attrs), BUILDER)


def test_ds01s_own_words_are_always_there() -> None:
    """The cgroup, the cache's namespace, the owner, and the one that keeps `# syntax=` from being followed."""
    assert shaped({}) == (ALWAYS, ())


@pytest.mark.parametrize("key", [*ALWAYS, "ulimit"])
def test_they_cannot_be_said_otherwise(key: str) -> None:
    """Whatever the client says of them."""
    written, reasons = shaped({key: "/ds01/1001"})
    assert written == ALWAYS
    assert reasons == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("target", "x"), ("filename", "a/Dockerfile"), ("no-cache", ""), ("platform", "linux/arm64"),
        ("build-arg:A", "b"), ("build-arg:BUILDKIT_INLINE_CACHE", "1"), ("label:mine", "x"), ("add-hosts", "a=1.2.3.4"),
        ("vcs:source", "https://x/y"), ("frontend.caps", "moby.buildkit.frontend.inputs"), ("requestid", "frontend.lint"),
        ("force-network-mode", "none"), ("image-resolve-mode", "local"), ("context:x", "docker-image://busybox"),
        ("context:x", "local:x"), ("context", "http://buildkit-session/2q1dsvr1n5n1vca4crsifwch7"), ("shm-size", "999"), ("attest:provenance", "mode=max"),
        ("attest:sbom", "disabled=true"), ("cache-from", "good.example/a,b"),
    ],
)  # fmt: skip
def test_what_stays_in_the_build_is_kept(key: str, value: str) -> None:
    """Word for word."""
    written, reasons = shaped({key: value})
    assert reasons == ()
    assert written == ALWAYS | {key: value}


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("build-arg:BUILDKIT_SYNTAX", "evil/frontend"), ("source", "evil/frontend"), ("unheard-of", "x"),
        ("force-network-mode", "host"), ("context", "https://169.254.169.254/"), ("context", "git://x/y"),
        ("context", "github.com/x/y"), ("context", "http://buildkit-session/../x"), ("context", "http://buildkit-session@h/x"), ("context:x", "input:y"), ("context:x", "https://x/"),
        ("attest:sbom", "generator=evil/scanner"), ("attest:sbom", ""), ("override-copy-image", "x"),
        ("local-sessionid:context", "x:ds01-1001-abc"), ("cache-from", "bad.example/a"),
        ("cache-from", "good.example/a,127.0.0.1:5000/b"), ("cache-imports", '[{"Type":"s3","Attrs":{}}]'),
        ("cache-imports", '[{"Type":"registry","Attrs":{"ref":"bad.example/a"}}]'),
    ],
)  # fmt: skip
def test_what_reaches_out_of_it_is_refused(key: str, value: str) -> None:
    """Foreign frontends, addresses, host networks, scanners, others' sessions, unlisted registries."""
    _, reasons = shaped({key: value})
    assert reasons
    assert all(reason.rule == "buildkit" for reason in reasons)


def test_a_password_in_an_address_is_not_told() -> None:
    """The refusal goes into the audit."""
    _, reasons = shaped({"context": "https://me:hush@git.example/x.git"})
    assert "hush" not in reasons[0].text()


def test_a_session_named_in_an_attribute_is_ones_own() -> None:
    """Like the build's own session."""
    written, _ = shaped({"local-sessionid:context": "abc"})
    assert written["local-sessionid:context"] == "ds01-1000-abc"


@pytest.mark.parametrize("asked", ["0", "1001", "-1", "1e9", "", "9" * 30])
def test_shared_memory_is_bounded(asked: str) -> None:
    """What is no size within the limit becomes the limit."""
    assert shaped({"shm-size": asked})[0]["shm-size"] == "1000"


@pytest.mark.parametrize("label", ["ds01.owner", "DS01.Uid", "dſ01.x", " ds01.group"])
def test_ds01_labels_are_left_out(label: str) -> None:
    """In any spelling."""
    assert shaped({f"label:{label}": "bob"})[0] == ALWAYS


def test_cache_imports_are_written_afresh() -> None:
    """From what was read in them."""
    asked = [{"Type": "registry", "Attrs": {"ref": "good.example/a"}}, {"Attrs": None, "Type": "inline"}]
    written, reasons = shaped({"cache-imports": json.dumps(asked)})
    assert reasons == ()
    assert json.loads(written["cache-imports"]) == [asked[0], {"Type": "inline", "Attrs": {}}]


@pytest.mark.parametrize("text", ["{}", "[1]", '[{"Type":"inline","type":"s3"}]', "[", '[{"Type":1}]'])
def test_cache_imports_of_another_form_raise(text: str) -> None:
    """The caller refuses the build."""
    with pytest.raises((TypeError, Exception), match=r"cache-imports|key|JSON"):
        shaped({"cache-imports": text})


def test_too_much_is_refused() -> None:
    """Before anything of it is read."""
    assert shaped({f"build-arg:{n}": "" for n in range(1001)})[1]
    assert shaped({"build-arg:a": "x" * 600_000})[1]


def test_a_cache_in_a_listed_registry_is_fine() -> None:
    """And one without a kind that ds01 knows is not."""
    good = Entry(type="registry", attrs={"ref": "good.example/x"})
    assert not [*cache_reasons("Cache", [good, Entry(type="local"), Entry(type="inline")], BUILDER)]
    assert [*cache_reasons("Cache", [Entry(type="gha")], BUILDER)]
