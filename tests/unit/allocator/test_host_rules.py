"""What becomes of GPU processes on the host: tables of policy and evidence."""

from __future__ import annotations

from typing import Any

import pytest

from allocator.attribution import Attribution, Kind, Proof
from allocator.host_rules import KILL_SECONDS, Handled, HostProcess, Ruling, Step, is_protected, rule
from allocator.model import Moment
from policy.host_processes import Exemption, HostProcesses, HostRule
from policy.model import Uid

NOON = 1_000_000.0
PYTHON = "/usr/bin/python3.11"
XORG = "/usr/lib/xorg/Xorg"
PERSISTENCED = "/usr/bin/nvidia-persistenced"


def at(seconds: float) -> Moment:
    return Moment(utc="2026-01-01T00:00:00Z", boottime_ms=int(seconds * 1000), boot_id="boot")


def users(**changes: Any) -> HostProcess:
    """A program of Alice's in her session."""
    found: dict[str, Any] = {
        "unit": "session-2.scope",
        "owner": Uid(1000),
        "kind": Kind.USER,
        "proof": Proof.SLICE,
    }
    given: dict[str, Any] = {"executable": PYTHON, "owner_name": "alice"}
    for name, value in changes.items():
        (found if name in ("unit", "owner", "kind", "why") else given)[name] = value
    return HostProcess(attribution=Attribution(**found), **given)


def ruled(
    process: HostProcess,
    host_processes: HostRule = HostRule.STOP,
    handled: Handled | None = None,
    seconds: float = 0,
) -> Ruling:
    exempt = (Exemption(user="carol", until=int(NOON) + 10, reason="thesis"),)
    rules = HostProcesses(host_processes=host_processes, grace_seconds=60, exempt=exempt)
    return rule(process, rules, handled or Handled(), now=at(seconds), utc_seconds=NOON + seconds)


@pytest.mark.parametrize(
    ("host_processes", "first"),
    [(HostRule.REPORT, Step.REPORT), (HostRule.WARN, Step.WARN), (HostRule.STOP, Step.WARN)],
)
def test_the_first_step_is_never_a_signal(host_processes: HostRule, first: Step) -> None:
    """A stop begins with a warning that says how long there is."""
    found = ruled(users(), host_processes)
    assert found.step is first
    assert found.seconds_left == (60 if host_processes is HostRule.STOP else None)
    assert "gpu.host_processes" in found.why


def in_container(**changes: Any) -> HostProcess:
    """A program of Alice's in a container of hers, on a device that this does not lease."""
    return users(**{"kind": Kind.CONTAINER, "unit": "", "is_unleased": True} | changes)


def ruled_inside(process: HostProcess, unleased: HostRule = HostRule.STOP, **handled: Moment) -> Ruling:
    exempt = (Exemption(user="carol", until=int(NOON) + 10, reason="thesis"),)
    rules = HostProcesses(host_processes=HostRule.REPORT, unleased=unleased, grace_seconds=60, exempt=exempt)
    return rule(process, rules, Handled(**handled), now=at(100), utc_seconds=NOON)


@pytest.mark.parametrize(
    ("unleased", "handled", "step"),
    [
        pytest.param(HostRule.REPORT, {}, Step.NOTHING, id="it was reported when it was found"),
        pytest.param(HostRule.WARN, {}, Step.WARN, id="warn"),
        pytest.param(HostRule.WARN, {"warned": at(0)}, Step.NOTHING, id="warned"),
        pytest.param(HostRule.STOP, {}, Step.WARN, id="a stop begins with a warning"),
        pytest.param(HostRule.STOP, {"warned": at(41)}, Step.NOTHING, id="in the grace"),
        pytest.param(HostRule.STOP, {"warned": at(40)}, Step.STOP, id="after the grace"),
        pytest.param(HostRule.STOP, {"warned": at(0), "stopped": at(70)}, Step.KILL, id="does not end"),
    ],
)
def test_a_process_off_its_containers_lease_goes_the_same_way(
    unleased: HostRule, handled: dict[str, Moment], step: Step
) -> None:
    """By its own key of policy, whatever the one for the host says."""
    found = ruled_inside(in_container(), unleased, **handled)
    assert (found.step, "gpu.unleased" in found.why) == (step, True)


@pytest.mark.parametrize(
    ("process", "most"),
    [
        pytest.param(in_container(is_unleased=False), Step.NOTHING, id="on its lease, or not known"),
        pytest.param(in_container(owner=Uid(0), owner_name="root"), Step.NOTHING, id="root's"),
        pytest.param(in_container(is_person=False), Step.NOTHING, id="a system account's"),
        pytest.param(in_container(owner_name="carol"), Step.NOTHING, id="exempt"),
        pytest.param(in_container(owner_name=None), Step.WARN, id="a uid without an account"),
        pytest.param(in_container(granted=True), Step.WARN, id="access to the host is no lease"),
    ],
)
def test_whose_container_is_not_stopped(process: HostProcess, most: Step) -> None:
    """Root's and the system's, who is exempt, and who has no name to be exempt by."""
    assert ruled_inside(process).step is most
    warned = ruled_inside(process, warned=at(0)).step
    assert warned is (Step.STOP if process.granted else Step.NOTHING)


@pytest.mark.parametrize("host_processes", [HostRule.REPORT, HostRule.WARN])
def test_report_and_warning_come_once(host_processes: HostRule) -> None:
    """A sweep every few seconds does not repeat them."""
    done = Handled(reported=at(0), warned=at(0))
    assert ruled(users(), host_processes, done, 10_000).step is Step.NOTHING


@pytest.mark.parametrize(
    ("handled", "seconds", "step"),
    [
        pytest.param(Handled(warned=at(0)), 59, Step.NOTHING, id="in the grace"),
        pytest.param(Handled(warned=at(0)), 60, Step.STOP, id="after the grace"),
        pytest.param(Handled(warned=at(0), stopped=at(60)), 60 + KILL_SECONDS - 1, Step.NOTHING, id="ending"),
        pytest.param(Handled(warned=at(0), stopped=at(60)), 60 + KILL_SECONDS, Step.KILL, id="does not end"),
        pytest.param(
            Handled(warned=at(0), stopped=at(60), killed=at(90)), 9999, Step.NOTHING, id="stuck in the driver"
        ),
        pytest.param(Handled(reported=at(0)), 9999, Step.WARN, id="the rule was report before"),
    ],
)
def test_the_ladder_of_a_stop(handled: Handled, seconds: float, step: Step) -> None:
    """Warning, grace, SIGTERM, half a minute, SIGKILL, each once."""
    assert ruled(users(), HostRule.STOP, handled, seconds).step is step


def test_a_grace_is_counted_from_the_warning() -> None:
    """Who was only reported for days has the whole grace when the rule becomes stop."""
    found = ruled(users(), HostRule.STOP, Handled(reported=at(0), warned=at(500)), 530)
    assert (found.step, found.seconds_left) == (Step.NOTHING, 30)


LADDER = Handled(reported=at(0), warned=at(0), stopped=at(60))


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(users(kind=Kind.CONTAINER), id="container"),
        pytest.param(users(kind=Kind.OTHER_CONTAINER), id="another engine's container"),
        pytest.param(users(kind=Kind.BUILD_STEP), id="build step"),
        pytest.param(users(granted=True), id="grant"),
        pytest.param(users(owner_name="carol"), id="exemption"),
        pytest.param(
            users(kind=Kind.SERVICE, owner=None, executable=PERSISTENCED, unit="nvidia-persistenced.service"),
            id="persistenced",
        ),
        pytest.param(
            users(
                kind=Kind.SERVICE,
                owner=None,
                executable="/usr/bin/nv-fabricmanager",
                unit="nvidia-fabricmanager.service",
            ),
            id="fabricmanager",
        ),
        pytest.param(
            users(
                kind=Kind.SERVICE, owner=None, executable="/usr/bin/nv-hostengine", unit="nvidia-dcgm.service"
            ),
            id="DCGM",
        ),
        pytest.param(users(executable=XORG, unit="gdm.service"), id="X of the display manager"),
    ],
)
def test_what_is_let_be(process: HostProcess) -> None:
    """Nothing is done about it, however far the ladder had gone."""
    assert ruled(process, HostRule.STOP, Handled()).step is Step.NOTHING
    assert ruled(process, HostRule.STOP, LADDER, 9).step is Step.NOTHING
    assert ruled(process, HostRule.REPORT).step is Step.NOTHING


@pytest.mark.parametrize(
    "process",
    [
        pytest.param(users(kind=Kind.SERVICE, owner=None, unit="ollama.service"), id="a service"),
        pytest.param(
            users(kind=Kind.UNKNOWN, owner=None, why="its cgroup cannot be read"), id="unattributed"
        ),
        pytest.param(users(owner=Uid(0), owner_name="root"), id="root"),
        pytest.param(users(owner=Uid(120), owner_name="gdm", is_person=False), id="a greeter"),
    ],
)
def test_what_is_only_reported(process: HostProcess) -> None:
    """Whatever the rule: nothing is stopped merely for being unknown, and the system's is the admin's to stop."""
    assert ruled(process).step is Step.REPORT
    assert ruled(process, HostRule.STOP, LADDER, 9999).step is Step.NOTHING


def test_an_exemption_ends_and_the_ladder_begins() -> None:
    """Then there is a warning first, too."""
    assert ruled(users(owner_name="carol"), seconds=9).step is Step.NOTHING
    assert ruled(users(owner_name="carol"), seconds=10).step is Step.WARN


@pytest.mark.parametrize(
    ("executable", "unit"),
    [
        pytest.param(PERSISTENCED, "session-2.scope", id="started by a user"),
        pytest.param(PERSISTENCED, "user@1000.service", id="by a user's manager"),
        pytest.param("/home/alice/nvidia-persistenced", "nvidia-persistenced.service", id="another file"),
        pytest.param(None, "nvidia-persistenced.service", id="not the host's file"),
        pytest.param(PERSISTENCED + ".bak", "nvidia-persistenced.service", id="a longer name"),
        pytest.param(XORG, "nvidia-persistenced.service", id="another's unit"),
    ],
)
def test_a_name_alone_protects_nobody(executable: str | None, unit: str) -> None:
    """The file and the unit must both be those of the service."""
    assert not is_protected(executable, unit)
    assert ruled(users(executable=executable, unit=unit)).step is Step.WARN


def test_who_has_no_name_is_not_stopped() -> None:
    """Exemptions go by name, and a directory that is down gives none."""
    assert ruled(users(owner_name=None), HostRule.STOP, LADDER, 9999).step is Step.NOTHING
    assert ruled(users(owner_name=None)).step is Step.WARN


def test_a_users_own_x_server_is_warned_of_but_not_stopped() -> None:
    """Its user could load other code into it, so it does not go unseen."""
    own = users(executable=XORG, unit="session-c1.scope")
    assert ruled(own).step is Step.WARN
    assert ruled(own).seconds_left is None
    assert ruled(own, HostRule.STOP, Handled(warned=at(0)), 9999).step is Step.NOTHING
    assert ruled(own, HostRule.REPORT).step is Step.REPORT
    assert (
        ruled(users(executable=XORG, unit="user@1000.service"), HostRule.STOP, LADDER, 9999).step is Step.KILL
    )
