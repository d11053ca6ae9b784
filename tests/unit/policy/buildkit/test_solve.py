"""Whether a build may run, and how it is written."""

from __future__ import annotations

from dataclasses import replace

import pytest

from policy.buildkit.model import Builder, Entry, Solve
from policy.buildkit.solve import exporter_attrs, shape, shape_bridge, tags
from policy.grants import Grants
from tests.fakes.policy_world import ALICE

BUILDER = Builder(actor=ALICE, grants=Grants(registries=frozenset({"docker.io"})), cgroup_parent="/ds01/1000")
MOBY = Entry(type="moby", attrs={"name": "docker.io/library/a:1,b"})
PLAIN = Solve(ref="abc", session="s1", exporters=(MOBY,))
WHOLE = replace(PLAIN, frontend="dockerfile.v0", frontend_attrs={"target": "x"})


def test_a_build_in_two_messages() -> None:
    """The first carries names and exporters, and the user is put in front of the names."""
    shaped = shape(PLAIN, BUILDER)
    inside = Entry(type="moby", attrs={"name": "ds01.invalid/u1000/a:1,ds01.invalid/u1000/b"})
    expected = replace(PLAIN, ref="ds01-1000-abc", session="ds01-1000-s1", exporters=(inside,))
    assert shaped == replace(expected, fetch_hosts=BUILDER.grants.fetch_hosts)


def test_a_build_in_one_message() -> None:
    """The attributes are shaped with it."""
    shaped = shape(WHOLE, BUILDER)
    assert isinstance(shaped, Solve)
    assert shaped.frontend_attrs["cgroup-parent"] == "/ds01/1000"
    assert shaped.frontend_attrs["target"] == "x"


def test_attributes_without_a_frontend_are_shaped_too() -> None:
    """buildx sends them for the history."""
    shaped = shape(replace(WHOLE, frontend=""), BUILDER)
    assert isinstance(shaped, Solve)
    assert shaped.frontend == ""
    assert shaped.frontend_attrs["cgroup-parent"] == "/ds01/1000"


def test_the_bridge_takes_the_dockerfile_frontend() -> None:
    """With the attributes shaped."""
    shaped = shape_bridge(Solve(frontend="dockerfile.v0"), BUILDER)
    assert isinstance(shaped, Solve)
    assert shaped.frontend_attrs["cmdline"]


@pytest.mark.parametrize("frontend", ["", "gateway.v0", "dockerfile.v0 ", "Dockerfile.v0"])
def test_the_bridge_takes_nothing_else(frontend: str) -> None:
    """No frontend means raw LLB."""
    assert isinstance(shape_bridge(Solve(frontend=frontend), BUILDER), tuple)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        pytest.param(replace(WHOLE, beyond=("Definition",)), "Definition", id="raw-llb"),
        pytest.param(replace(PLAIN, beyond=("FrontendInputs",)), "FrontendInputs", id="inputs"),
        pytest.param(replace(PLAIN, beyond=("SourcePolicy",)), "SourcePolicy", id="source-policy"),
        pytest.param(replace(PLAIN, entitlements=("network.host",)), "Entitlements", id="host-network"),
        pytest.param(replace(PLAIN, entitlements=("device",)), "Entitlements", id="devices"),
        pytest.param(replace(PLAIN, entitlements=("",)), "Entitlements", id="empty-entitlement"),
        pytest.param(replace(WHOLE, frontend="gateway.v0"), "Frontend", id="foreign-frontend"),
        pytest.param(replace(PLAIN, ref=""), "Ref", id="no-name"),
        pytest.param(replace(PLAIN, ref="a:b"), "Ref", id="name-with-colon"),
        pytest.param(replace(PLAIN, session="x:ds01-1001-s"), "Session", id="session-with-colon"),
        pytest.param(replace(PLAIN, exporters=(Entry(type="evil"),)), "Exporters", id="exporter"),
        pytest.param(
            replace(PLAIN, exporters=(Entry(type="image", attrs={"push": "true"}),)),
            "Exporters.push",
            id="push",
        ),
        pytest.param(
            replace(PLAIN, exporters=(Entry(type="image", attrs={"dangling-name-prefix": "his"}),)),
            "Exporters.dangling-name-prefix",
            id="another-name",
        ),
        pytest.param(
            replace(PLAIN, exporters=(Entry(type="moby", attrs={"containerimage.config": "{}"}),)),
            "Exporters.containerimage.config",
            id="config",
        ),
        pytest.param(replace(PLAIN, cache_exports=(Entry(type="s3"),)), "Cache.Exports", id="cache"),
        pytest.param(
            replace(PLAIN, cache_imports=(Entry(type="registry", attrs={"ref": "h.example/a"}),)),
            "Cache.Imports",
            id="registry",
        ),
        pytest.param(
            replace(WHOLE, frontend_attrs={"cache-imports": "["}), "FrontendAttrs", id="unreadable-attribute"
        ),
    ],
)
def test_what_reaches_out_is_refused(asked: Solve, field: str) -> None:
    """By this rule, naming the field, whatever else is fine."""
    shaped = shape(asked, BUILDER)
    assert isinstance(shaped, tuple)
    assert field in {reason.field for reason in shaped}
    assert {reason.rule for reason in shaped} == {"buildkit"}


def test_the_bridge_refuses_the_same() -> None:
    """A graph beside a fine frontend is a graph."""
    for beyond in ("Definition", "FrontendInputs"):
        asked = Solve(frontend="dockerfile.v0", beyond=(beyond,))
        assert isinstance(shape_bridge(asked, BUILDER), tuple)


def test_no_is_not_asking() -> None:
    """`push=false` is let through, and not written."""
    entry = Entry(type="image", attrs={"push": "false", "name": "a", "load": "true", "annotation.x": "y"})
    assert isinstance(shape(replace(PLAIN, exporters=(entry,)), BUILDER), Solve)
    assert exporter_attrs(entry) == {"name": "a", "load": "true", "annotation.x": "y"}


def test_the_names_a_build_writes() -> None:
    """Of every exporter into the engine's store, each once; a tar for the client names nothing here."""
    tar = Entry(type="docker", attrs={"name": "c"})
    assert tags(replace(PLAIN, exporters=(MOBY, MOBY, tar))) == ("docker.io/library/a:1", "b")
    assert tags(Solve()) == ()
