"""What becomes of a GPU process where it should not be: policy, evidence and what was done so far in, one step out. Pure.

INVARIANT: only a person's process is ever signalled: on the host, or in a container that ds01 made for that person, on a device
that this container does not lease. What else is in a container is its owner's affair, what belongs to the system or cannot be
attributed is reported and let be.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from allocator.attribution import Attribution, Kind
from allocator.model import Moment
from policy.host_processes import HostProcesses, HostRule

KILL_SECONDS = 30.0  # from SIGTERM to SIGKILL

# SECURITY: by the file that runs *and* the unit it is in: anybody can start these programs, with other code preloaded.
# SOURCE: packages nvidia-persistenced, nvidia-fabricmanager, datacenter-gpu-manager 3 and 4, xserver-xorg-core.
_DAEMONS: tuple[tuple[re.Pattern[str], re.Pattern[str]], ...] = (
    (re.compile(r"/usr/s?bin/nvidia-persistenced"), re.compile(r"nvidia-persistenced\.service")),
    (re.compile(r"/usr/bin/nv-fabricmanager"), re.compile(r"nvidia-fabricmanager\.service")),
    (re.compile(r"/usr/s?bin/nv-hostengine"), re.compile(r"(nvidia-)?dcgm\.service")),
    (re.compile(r"/usr/bin/dcgm-exporter"), re.compile(r"(nvidia-)?dcgm-exporter\.service")),
    (
        re.compile(r"/usr/lib/xorg/Xorg(\.wrap)?|/usr/libexec/Xorg|/usr/bin/X(org|wayland)"),
        re.compile(r"(display-manager|gdm3?|lightdm|sddm|xdm)\.service"),
    ),
)
_X = _DAEMONS[-1][0]
_SESSION = re.compile(r"session-[0-9a-z]+\.scope")  # made by logind, as root


class Step(StrEnum):
    """What to do now."""

    NOTHING = "nothing"
    REPORT = "report"
    WARN = "warn"
    STOP = "stop"  # SIGTERM
    KILL = "kill"  # SIGKILL


@dataclass(frozen=True, slots=True, kw_only=True)
class HostProcess:
    """A process on a GPU.

    executable: as in `ProcessFacts`. granted: its owner has bare-metal access now. is_person: its owner is no system
    account, such as the one that a display manager's greeter runs as. is_unleased: it is in a container that ds01 made, on a
    device that this does not lease.
    """

    attribution: Attribution
    executable: str | None
    owner_name: str | None  # None: nobody's, unknown, or a uid without an account
    granted: bool = False
    is_person: bool = True
    is_unleased: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Handled:
    """What was done about a process so far, and when; begin with an empty one."""

    reported: Moment | None = None
    warned: Moment | None = None
    stopped: Moment | None = None
    killed: Moment | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """One step and the reason for it. seconds_left: until SIGTERM, once a stop is on its way."""

    step: Step
    why: str
    seconds_left: float | None = None


def is_protected(executable: str | None, unit: str) -> bool:
    """Whether a process is one that the GPUs need, and where it has to be."""
    return executable is not None and any(
        program.fullmatch(executable) and units.fullmatch(unit) for program, units in _DAEMONS
    )


def rule(
    process: HostProcess, rules: HostProcesses, handled: Handled, *, now: Moment, utc_seconds: float
) -> Ruling:
    """Decide one step; after it is done, `handled` says so and the next call goes on from there.

    Args: utc_seconds: the time of day, for exemptions, which policy gives by date; all else is counted by `now`.
    """
    bound, why = _bound(process, rules, utc_seconds)
    if bound is None:
        return Ruling(step=Step.NOTHING, why=why)
    if bound is HostRule.REPORT:
        return _once(Step.REPORT, handled.reported, why)
    if bound is HostRule.WARN or handled.warned is None:
        left = None if bound is HostRule.WARN else float(rules.grace_seconds)
        return _once(Step.WARN, handled.warned, why, left)
    return _stop(rules, handled, handled.warned, why, now)


def _bound(process: HostProcess, rules: HostProcesses, utc_seconds: float) -> tuple[HostRule | None, str]:
    """The most that may be done about a process, None for nothing, and why."""
    found = process.attribution
    if found.kind in (Kind.CONTAINER, Kind.OTHER_CONTAINER, Kind.BUILD_STEP):
        return _in_container(process, rules, utc_seconds)
    if is_protected(process.executable, found.unit):
        return None, "it is a service that the GPUs need"
    if found.kind is not Kind.USER:
        return HostRule.REPORT, found.why or "it is the system's, so nobody's to stop"
    if found.owner == 0 or not process.is_person:
        return HostRule.REPORT, "root or a system account runs it"
    if process.granted:
        return None, "its user has access to GPUs outside containers (ds01 gpu grants)"
    exempt = _exemption(process, rules, utc_seconds)
    if exempt is not None:
        return None, exempt
    why = "GPUs are used in containers here (rule gpu.host_processes)"
    if process.owner_name is None:
        # Exemptions go by name: who has none, perhaps because the directory is down, may be exempt.
        return _at_most(HostRule.WARN, rules.host_processes), why
    if process.executable is not None and _X.fullmatch(process.executable) and _SESSION.fullmatch(found.unit):
        # A user's own X server: never stopped, but not unseen either, since its user can load other code into it.
        return _at_most(HostRule.WARN, rules.host_processes), why
    return rules.host_processes, why


def _in_container(
    process: HostProcess, rules: HostProcesses, utc_seconds: float
) -> tuple[HostRule | None, str]:
    """That it is there was reported when it was found (`allocator.intruders`), so a mere report is nothing to do."""
    if not process.is_unleased:
        return None, "it is in a container"
    why = "its container does not hold this GPU (rule gpu.unleased)"
    if rules.unleased is HostRule.REPORT:
        return None, why
    if process.attribution.owner == 0 or not process.is_person:
        return None, "root or a system account runs it"
    exempt = _exemption(process, rules, utc_seconds)
    if exempt is not None:
        return None, exempt
    if process.owner_name is None:
        return _at_most(HostRule.WARN, rules.unleased), why
    return rules.unleased, why


def _exemption(process: HostProcess, rules: HostProcesses, utc_seconds: float) -> str | None:
    found = None if process.owner_name is None else rules.exemption(process.owner_name, now=utc_seconds)
    return None if found is None else f"its user is exempt: {found.reason}"


def _at_most(bound: HostRule, rule: HostRule) -> HostRule:
    return min(rule, bound, key=list(HostRule).index)


def _once(step: Step, done: Moment | None, why: str, left: float | None = None) -> Ruling:
    if done is not None:
        return Ruling(step=Step.NOTHING, why=why)
    return Ruling(step=step, why=why, seconds_left=left)


def _stop(rules: HostProcesses, handled: Handled, warned: Moment, why: str, now: Moment) -> Ruling:
    """The ladder behind the warning. The grace counts from the warning, whatever the rule was before."""
    if handled.stopped is None:
        left = rules.grace_seconds - now.seconds_since(warned)
        step = Step.NOTHING if left > 0 else Step.STOP
        return Ruling(step=step, why=why, seconds_left=max(left, 0.0))
    if handled.killed is not None or now.seconds_since(handled.stopped) < KILL_SECONDS:
        return Ruling(step=Step.NOTHING, why=why, seconds_left=0.0)
    return Ruling(step=Step.KILL, why=why, seconds_left=0.0)
