"""`ds01 doctor`: what on this server is not as ds01 needs it, and what to do about each.

One function a check; each judges evidence and changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from cli.evidence import Evidence
from cli.outcome import Exit
from cli.screen import columns, paint, plain, size

PLUGIN = "ds01-authz"
_OTHERS = 0o077
_AUDIT_FREE_BYTES = 1024**3
_SEALED = "ds01.seal"
_BUILT_IN_RANGES = 31  # SOURCE: moby libnetwork/ipamutils, the pools dockerd has without settings
_ENOUGH_RANGES = 128
_RESTART = "then restart docker (running containers stop, unless live-restore is on)"


class State(StrEnum):
    """GOOD: as it should be. NOTE: worth knowing. BAD: a promise of ds01 does not hold. UNKNOWN: could not be seen."""

    GOOD = "good"
    NOTE = "note"
    BAD = "bad"
    UNKNOWN = "unknown"


_COLOURS = {State.GOOD: "good", State.NOTE: "warn", State.BAD: "bad", State.UNKNOWN: "warn"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One judgement. `next_step` is what the admin does; empty when all is well."""

    about: str
    state: State
    text: str
    next_step: str = ""


def examine(evidence: Evidence) -> tuple[Finding, ...]:
    """Every finding, in the order of the checks."""
    return tuple(finding for check in _CHECKS for finding in check(evidence))


def report(findings: tuple[Finding, ...]) -> list[dict[str, str]]:
    """The findings as JSON."""
    return [asdict(finding) for finding in findings]


def shown(findings: tuple[Finding, ...]) -> str:
    """A line each, the next step below what is not good, and a count at the end."""
    lines: list[str] = []
    rows = columns([[_painted(one.state), one.about, plain(one.text)] for one in findings])
    for row, one in zip(rows, findings, strict=True):
        lines.append(row)
        if one.next_step:
            lines.append(f"      {plain(one.next_step)}")
    bad = sum(one.state is State.BAD for one in findings)
    unknown = sum(one.state is State.UNKNOWN for one in findings)
    return "\n".join([*lines, f"{bad} bad, {unknown} unknown, {len(findings)} findings"])


def code(findings: tuple[Finding, ...]) -> Exit:
    """REFUSED when something is bad, UNAVAILABLE when something could not be seen: neither is well."""
    states = {one.state for one in findings}
    if State.BAD in states:
        return Exit.REFUSED
    return Exit.UNAVAILABLE if State.UNKNOWN in states else Exit.OK


def _painted(state: State) -> str:
    return paint(state, _COLOURS[state])


def _plugin(evidence: Evidence) -> list[Finding]:
    """The canary: an unstamped request was denied. SOURCE: Docker's AuthZ plugins, SIGHUP drops one named by a flag."""
    about = "AuthZ plugin"
    match (evidence.status or {}).get("authz_plugin"):
        case "guarding":
            return [
                Finding(about=about, state=State.GOOD, text="dockerd refuses what the proxy did not sign")
            ]
        case "missing" | "not required" as state:
            step = f'put "authorization-plugins": ["{PLUGIN}"] into daemon.json, {_RESTART}'
            return [
                Finding(about=about, state=State.BAD, text=f"{state}: dockerd serves anybody", next_step=step)
            ]
    step = "ask again in a minute; is ds01-proxy running?"
    return [Finding(about=about, state=State.UNKNOWN, text="the proxy does not say", next_step=step)]


def _engine(evidence: Evidence) -> list[Finding]:
    """Known flaws of the engine's version."""
    status = evidence.status
    if status is None:
        return [_unseen("engine", "the proxy does not answer on its admin socket", "start ds01-proxy")]
    version = plain(status["engine"]["version"])
    notices = [
        Finding(about="engine", state=State.NOTE, text=notice, next_step=f"this is engine {version}; update")
        for notice in status.get("notices", ())
    ]
    return notices or [Finding(about="engine", state=State.GOOD, text=f"{version}, no known flaw")]


def _socket(evidence: Evidence) -> list[Finding]:
    """The engine's socket is root's alone: it is the one way past ds01."""
    about, found = "engine socket", evidence.engine_socket
    if found is None:
        return [_unseen(about, "it is not there", "start docker")]
    if found.uid or found.mode & _OTHERS:
        step = 'set "group": "root" in daemon.json, or SocketMode=0600 and SocketGroup=root in docker.socket'
        text = f"owner {found.uid}, mode {found.mode:04o}: others can be root through it"
        return [Finding(about=about, state=State.BAD, text=text, next_step=step)]
    return [Finding(about=about, state=State.GOOD, text="root's alone")]


def _group(evidence: Evidence) -> list[Finding]:
    """Members of `docker` reach a socket that somebody opens for the group later."""
    if not evidence.docker_group:
        return [Finding(about="group docker", state=State.GOOD, text="empty or absent")]
    names = ", ".join(map(plain, evidence.docker_group))
    step = "take them out: gpasswd -d NAME docker; ds01 gives everybody a socket without it"
    return [Finding(about="group docker", state=State.NOTE, text=f"has members: {names}", next_step=step)]


def _settings(evidence: Evidence) -> list[Finding]:
    """The command line of dockerd and settings file."""
    about, dockerd = "dockerd settings", evidence.dockerd
    if dockerd is None:
        return [
            _unseen(about, "no dockerd was found behind the engine socket", "start docker without -H fd://")
        ]
    if dockerd.settings is None:
        step = f"mend {dockerd.settings_path}; it must be root's, and writable by nobody else"
        return [Finding(about=about, state=State.BAD, text=dockerd.problem, next_step=step)]
    found = [
        *_flags(about, dockerd.arguments),
        *_listed(about, dockerd.settings, dockerd.settings_path),
        *_entitled(about, dockerd.settings, dockerd.settings_path),
        *_ranges(about, dockerd.settings),
    ]
    return found or [
        Finding(about=about, state=State.GOOD, text=f"{dockerd.settings_path} is as it should be")
    ]


def _flags(about: str, arguments: tuple[str, ...]) -> list[Finding]:
    found = []
    if any(word.startswith("--authorization-plugin") for word in arguments):
        step = "name the plugin in daemon.json and drop the flag"
        text = "the plugin is named by a flag: a reload of docker silently drops it"
        found.append(Finding(about=about, state=State.BAD, text=text, next_step=step))
    if any("tcp://" in word for word in arguments):
        step = "drop -H tcp:// from the command line; docker over ssh works instead"
        text = "dockerd listens on a network address"
        found.append(Finding(about=about, state=State.BAD, text=text, next_step=step))
    return found


def _listed(about: str, settings: Mapping[str, Any], path: str) -> list[Finding]:
    found = []
    if PLUGIN not in (settings.get("authorization-plugins") or ()):
        step = f'add "authorization-plugins": ["{PLUGIN}"], {_RESTART}'
        text = f"{path} does not name the plugin: the next reload or start opens dockerd"
        found.append(Finding(about=about, state=State.BAD, text=text, next_step=step))
    if any(str(host).startswith("tcp://") for host in settings.get("hosts") or ()):
        step = f"take the tcp:// entry out of hosts, {_RESTART}"
        found.append(
            Finding(about=about, state=State.BAD, text=f"{path} opens a network address", next_step=step)
        )
    if settings.get("icc", True):
        step = f'add "icc": false, {_RESTART}'
        text = "containers and builds of different users reach each other on the engine's bridge"
        found.append(Finding(about=about, state=State.BAD, text=text, next_step=step))
    return found


def _ranges(about: str, settings: Mapping[str, Any]) -> list[Finding]:
    """Each user has a network of their own, and compose makes more."""
    pools = settings.get("default-address-pools") or ()
    number = sum(1 << max(0, pool["size"] - int(str(pool["base"]).rpartition("/")[2])) for pool in pools)
    if (number or _BUILT_IN_RANGES) >= _ENOUGH_RANGES:
        return []
    text = f"there are {number or _BUILT_IN_RANGES} address ranges for the networks of all users"
    step = (
        f'add "default-address-pools": [{{"base": "10.213.0.0/16", "size": 26}}], or another base, {_RESTART}'
    )
    return [Finding(about=about, state=State.NOTE, text=text, next_step=step)]


def _entitled(about: str, settings: Mapping[str, Any], path: str) -> list[Finding]:
    """BuildKit's entitlements; network-host is on unless it is set. SOURCE: dockerd's daemon.json, builder."""
    builder = settings.get("builder")
    given = (
        {str(key).lower(): value for key, value in (builder or {}).items()}
        if isinstance(builder, dict)
        else {}
    )
    entitlements = given.get("entitlements") or {}
    if entitlements.get("network-host", True) or entitlements.get("security-insecure", False):
        step = f'set "builder": {{"Entitlements": {{"network-host": false, "security-insecure": false}}}} in {path}'
        text = "builds may ask for the host's network or for all privileges"
        return [Finding(about=about, state=State.BAD, text=text, next_step=step)]
    return []


def _stale_plugins(evidence: Evidence) -> list[Finding]:
    """A socket nobody listens on delays each volume by 15 s while dockerd looks for drivers."""
    stale = evidence.dockerd.stale_plugins if evidence.dockerd else ()
    return [
        Finding(
            about="plugin sockets",
            state=State.BAD,
            text=f"nobody listens on {path}: every new volume waits 15 s for it",
            next_step=f"rm {path}",
        )
        for path in stale
    ]


def _data_root(evidence: Evidence) -> list[Finding]:
    """SOURCE: CVE-2021-41091: setuid files of images are within reach of everybody if the data root is."""
    about, found = "data root", evidence.dockerd.data_root if evidence.dockerd else None
    if found is None:
        return [
            _unseen(about, "its owner and mode could not be read", "run this as root, with docker running")
        ]
    if found.uid or found.mode & 0o007:
        text = f"owner {found.uid}, mode {found.mode:04o}: files of images and volumes are open to everybody"
        return [
            Finding(about=about, state=State.BAD, text=text, next_step="chmod 0710 it; it must be root's")
        ]
    return [Finding(about=about, state=State.GOOD, text="closed to users")]


def _places(evidence: Evidence) -> list[Finding]:
    """A setuid file that container root writes works on the host where its mount honours it."""
    about = "bind mounts"
    if evidence.places is None:
        return [_unseen(about, f"the policy cannot be read: {evidence.policy_problem}", "ds01 policy check")]
    found = []
    for place in evidence.places:
        where = plain(place.path)
        if place.guarded is None:
            found.append(_unseen(about, f"{where} is not there", "create it, or take it out of the policy"))
        elif not place.guarded:
            state, text = State.BAD, f"{where} is not mounted nosuid,nodev: ds01 refuses to bind it"
            if place.setuid_ok:
                state, text = State.NOTE, f"{where} may hold setuid files of container root (setuid_ok)"
            step = f"give its file system nosuid,nodev in /etc/fstab, or add: {where} {where} none bind,nosuid,nodev 0 0"
            found.append(Finding(about=about, state=state, text=text, next_step=step))
    return found or [Finding(about=about, state=State.GOOD, text="every permitted place is nosuid,nodev")]


def _containers(evidence: Evidence) -> list[Finding]:
    """Containers from before ds01, and doors to the engine that were mounted into one."""
    about = "containers"
    if evidence.containers is None:
        return [_unseen(about, "they could not be listed", "is ds01-proxy running?")]
    found = []
    for container in evidence.containers:
        name = plain(next(iter(container.get("Names") or ()), container.get("Id", "")[:12]))
        sources = {mount.get("Source") for mount in container.get("Mounts") or ()}
        if doors := sorted(map(str, sources & evidence.engine_sockets)):
            text = f"{name} has {', '.join(doors)} mounted: whoever is in it is root"
            found.append(Finding(about=about, state=State.BAD, text=text, next_step=f"docker rm -f {name}"))
    unsealed = sum(_SEALED not in (container.get("Labels") or {}) for container in evidence.containers)
    if unsealed:
        text = f"{unsealed} were not made through ds01: nobody but admins sees one that was not adopted"
        step = "sudo ds01 adopt lists them and gives them to their owners, who create them again"
        found.append(Finding(about=about, state=State.NOTE, text=text, next_step=step))
    return found or [Finding(about=about, state=State.GOOD, text="all were made through ds01")]


def _disk(evidence: Evidence) -> list[Finding]:
    """Without room for the audit trail every change is refused."""
    about, free = "audit trail", evidence.audit_free_bytes
    if free is None:
        return [_unseen(about, "its directory is not there", "start ds01-proxy")]
    if free < _AUDIT_FREE_BYTES:
        step = "make room; a full disk refuses every change, and rename audit.jsonl to rotate it"
        return [Finding(about=about, state=State.BAD, text=f"{size(free)} free on its disk", next_step=step)]
    return [Finding(about=about, state=State.GOOD, text=f"{size(free)} free on its disk")]


def _unseen(about: str, text: str, next_step: str) -> Finding:
    return Finding(about=about, state=State.UNKNOWN, text=text, next_step=next_step)


_CHECKS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    _plugin,
    _engine,
    _socket,
    _group,
    _settings,
    _stale_plugins,
    _data_root,
    _places,
    _containers,
    _disk,
)
