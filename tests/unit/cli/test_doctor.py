"""Each check says good, bad or unknown, and unknown is never good."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cli.doctor import Finding, State, code, examine, report, shown
from cli.evidence import Dockerd, Evidence, Owned, Place
from cli.outcome import Exit

SETTINGS: dict[str, Any] = {
    "authorization-plugins": ["ds01-authz"],
    "icc": False,
    "builder": {"Entitlements": {"network-host": False}},
    "default-address-pools": [{"base": "10.213.0.0/16", "size": 26}],
}
DOCKERD = Dockerd(
    pid=7,
    arguments=("--config-file", "/etc/docker/daemon.json"),
    settings_path="/etc/docker/daemon.json",
    settings=SETTINGS,
    data_root=Owned(uid=0, gid=0, mode=0o710),
)
WELL = Evidence(
    status={"authz_plugin": "guarding", "engine": {"version": "29.5.1"}, "notices": []},
    info={},
    containers=({"Names": ["/a"], "Labels": {"ds01.seal": "x"}, "Mounts": [{"Source": "/home/alice"}]},),
    engine_socket=Owned(uid=0, gid=0, mode=0o600),
    dockerd=DOCKERD,
    places=(Place(path="/home/alice", guarded=True, setuid_ok=False),),
    audit_free_bytes=2 * 1024**3,
    engine_sockets=frozenset({"/run/ds01/engine.sock"}),
)


def found(evidence: Evidence, about: str) -> tuple[Finding, ...]:
    return tuple(finding for finding in examine(evidence) if finding.about == about)


def with_dockerd(**changes: Any) -> Evidence:
    return replace(WELL, dockerd=replace(DOCKERD, **changes))


def test_a_server_as_it_should_be_has_nothing_to_do() -> None:
    """Every finding is good, and none has a next step."""
    findings = examine(WELL)
    assert {finding.state for finding in findings} == {State.GOOD}
    assert not any(finding.next_step for finding in findings)
    assert code(findings) is Exit.OK


@pytest.mark.parametrize(
    ("evidence", "about", "words"),
    [
        pytest.param(replace(WELL, status={**WELL.status, "authz_plugin": "missing"}), "AuthZ plugin", "serves anybody", id="no-plugin"),  # type: ignore[dict-item]  # not None here
        pytest.param(replace(WELL, engine_socket=Owned(uid=0, gid=998, mode=0o660)), "engine socket", "0660", id="socket-of-a-group"),
        pytest.param(replace(WELL, engine_socket=Owned(uid=1, gid=0, mode=0o600)), "engine socket", "owner 1", id="socket-of-a-user"),
        pytest.param(with_dockerd(arguments=("--authorization-plugin=ds01-authz",)), "dockerd settings", "by a flag", id="plugin-by-flag"),
        pytest.param(with_dockerd(arguments=("-H", "tcp://0.0.0.0:2375")), "dockerd settings", "network address", id="tcp-by-flag"),
        pytest.param(with_dockerd(settings={**SETTINGS, "hosts": ["tcp://0.0.0.0"]}), "dockerd settings", "network address", id="tcp-by-file"),
        pytest.param(with_dockerd(settings={**SETTINGS, "authorization-plugins": []}), "dockerd settings", "does not name the plugin", id="plugin-not-in-file"),
        pytest.param(with_dockerd(settings={**SETTINGS, "icc": True}), "dockerd settings", "reach each other", id="icc"),
        pytest.param(with_dockerd(settings={**SETTINGS, "builder": {}}), "dockerd settings", "host's network", id="builds-on-the-host-network"),
        pytest.param(with_dockerd(settings={**SETTINGS, "builder": {"entitlements": {"network-host": False, "security-insecure": True}}}), "dockerd settings", "all privileges", id="insecure-builds"),
        pytest.param(with_dockerd(settings=None, problem="others may write it"), "dockerd settings", "others may write it", id="file-of-others"),
        pytest.param(with_dockerd(stale_plugins=("/run/docker/plugins/x.sock",)), "plugin sockets", "waits 15 s", id="stale-plugin"),
        pytest.param(with_dockerd(data_root=Owned(uid=0, gid=0, mode=0o711)), "data root", "0711", id="open-data-root"),
        pytest.param(replace(WELL, places=(Place(path="/data", guarded=False, setuid_ok=False),)), "bind mounts", "refuses to bind it", id="setuid-honoured"),
        pytest.param(replace(WELL, containers=({"Names": ["/old"], "Mounts": [{"Source": "/run/ds01/engine.sock"}], "Labels": {"ds01.seal": "x"}},)), "containers", "whoever is in it is root", id="engine-socket-inside"),
        pytest.param(replace(WELL, audit_free_bytes=5), "audit trail", "5B free", id="disk-full"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_bad_and_says_what_to_do(evidence: Evidence, about: str, words: str) -> None:
    """A broken promise is bad, named, with a next step, and the exit code tells a script."""
    bad = [finding for finding in found(evidence, about) if finding.state is State.BAD]
    assert len(bad) == 1
    assert words in bad[0].text
    assert bad[0].next_step
    assert code(examine(evidence)) is Exit.REFUSED


@pytest.mark.parametrize(
    ("evidence", "about"),
    [
        pytest.param(replace(WELL, docker_group=("alice",)), "group docker", id="docker-group"),
        pytest.param(with_dockerd(settings={**SETTINGS, "default-address-pools": None}), "dockerd settings", id="few-ranges"),
        pytest.param(with_dockerd(settings={**SETTINGS, "default-address-pools": [{"base": "10.0.0.0/24", "size": 26}]}), "dockerd settings", id="small-pool"),
        pytest.param(replace(WELL, status={**WELL.status, "notices": ["old"]}), "engine", id="engine-flaw"),  # type: ignore[dict-item]  # not None here
        pytest.param(replace(WELL, places=(Place(path="/d", guarded=False, setuid_ok=True),)), "bind mounts", id="accepted"),
        pytest.param(replace(WELL, containers=({"Names": ["/old"], "Labels": None},)), "containers", id="unmanaged"),
    ],
)  # fmt: skip
def test_what_is_worth_knowing_is_noted(evidence: Evidence, about: str) -> None:
    """An accepted risk or a leftover is told, and ends with exit code 0."""
    assert [finding.state for finding in found(evidence, about)] == [State.NOTE]
    assert code(examine(evidence)) is Exit.OK


@pytest.mark.parametrize(
    ("pools", "number"),
    [
        (None, 31),
        ([{"base": "10.0.0.0/24", "size": 26}], 4),
        ([{"base": "10.0.0.0/20", "size": 26}] * 2, 128),
    ],
)
def test_address_ranges_are_counted(pools: object, number: int) -> None:
    """dockerd's own are few; enough are not mentioned."""
    told = found(with_dockerd(settings={**SETTINGS, "default-address-pools": pools}), "dockerd settings")
    assert (f"{number} address ranges" in told[0].text) == (number < 128)


def test_what_cannot_be_seen_is_unknown_everywhere() -> None:
    """With no evidence at all nothing is good but what was really looked at: the group."""
    findings = examine(Evidence())
    assert {finding.about for finding in findings if finding.state is State.GOOD} == {"group docker"}
    assert {finding.state for finding in findings if finding.about != "group docker"} == {State.UNKNOWN}
    assert code(findings) is Exit.UNAVAILABLE
    missing = replace(WELL, places=(Place(path="/gone", guarded=None, setuid_ok=False),))
    assert found(missing, "bind mounts")[0].state is State.UNKNOWN


def test_words_and_json_say_the_same() -> None:
    """The count stands at the end, and no control character of a name gets through."""
    findings = examine(replace(WELL, docker_group=("eve\x1b[2J",)))
    text = shown(findings)
    assert "\x1b" not in text
    assert text.endswith(f"0 bad, 0 unknown, {len(findings)} findings")
    assert [row["about"] for row in report(findings)] == [finding.about for finding in findings]
