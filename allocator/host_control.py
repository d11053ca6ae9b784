"""Carries out what `allocator.host_rules` decides about GPU processes, by pidfd alone.

Blocks (NSS, terminals): to be called in a thread, one call at a time.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

from allocator.attribution import Attribution, Identity
from allocator.host_rules import Handled, HostProcess, Ruling, Step, rule
from allocator.model import Moment
from allocator.processes import Processes, Signalled
from observability import events
from observability.logging import log
from policy.host_processes import HostProcesses
from policy.model import DeviceUuid, Uid


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A process that uses, or has open, a GPU. executable and name: as in `ProcessFacts`."""

    identity: Identity
    attribution: Attribution
    executable: str | None
    name: str
    devices: tuple[DeviceUuid, ...] = ()  # empty: it only has device files open
    unleased: tuple[DeviceUuid, ...] = ()  # of them: what its container, one that ds01 made, does not lease


@dataclass(frozen=True, slots=True, kw_only=True)
class Owner:
    """An account, as far as it matters here."""

    name: str
    is_person: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What was done about one process in one call."""

    subject: Subject
    ruling: Ruling


class HostControl:
    """Remembers how far each process has come on the ladder, as long as it is there."""

    def __init__(
        self,
        *,
        processes: Processes,
        account: Callable[[Uid], Owner | None],
        tell: Callable[[Uid, str], object],
        now: Callable[[], Moment],
        utc_seconds: Callable[[], float],
    ) -> None:
        """Look owners up with `account`, and say things to a user's terminals with `tell`."""
        self._processes = processes
        self._account = account
        self._tell = tell
        self._now = now
        self._utc_seconds = utc_seconds
        self._handled: dict[Identity, Handled] = {}
        self._refused: set[Identity] = set()  # who could not be signalled, and that was said

    def act(
        self, subjects: Iterable[Subject], rules: HostProcesses, *, granted: Collection[Uid] = ()
    ) -> tuple[Done, ...]:
        """One sweep: everything that is there now, each process once; what was not done is not in the answer.

        Args: granted: who has bare-metal access now.
        """
        present = {subject.identity: subject for subject in subjects}
        self._handled = {
            identity: handled
            for identity, handled in self._handled.items()
            if identity in present or self._processes.is_running(identity)
        }
        self._refused &= self._handled.keys()
        # Once for each user, not for each of their processes: it may ask a directory server.
        owners = {subject.attribution.owner for subject in present.values()}
        accounts = {owner: None if owner is None else self._account(owner) for owner in owners}
        done = (
            self._one(subject, rules, granted, accounts[subject.attribution.owner])
            for subject in present.values()
        )
        return tuple(one for one in done if one is not None)

    def _one(
        self, subject: Subject, rules: HostProcesses, granted: Collection[Uid], account: Owner | None
    ) -> Done | None:
        """Args: account: of whose it is."""
        owner = subject.attribution.owner
        process = HostProcess(
            attribution=subject.attribution,
            executable=subject.executable,
            owner_name=None if account is None else account.name,
            granted=owner is not None and owner in granted,
            is_person=account is None or account.is_person,
            is_unleased=bool(subject.unleased),
        )
        now = self._now()
        handled = self._handled.get(subject.identity, Handled())
        ruling = rule(process, rules, handled, now=now, utc_seconds=self._utc_seconds())
        if ruling.step is Step.NOTHING or not self._carry_out(subject, ruling):
            return None
        self._handled[subject.identity] = _after(handled, ruling.step, now)
        return Done(subject=subject, ruling=ruling)

    def _carry_out(self, subject: Subject, ruling: Ruling) -> bool:
        """Whether it was done; what has ended meanwhile needs nothing."""
        match ruling.step:
            case Step.STOP:
                sent = self._send(subject, signal.SIGTERM)
            case Step.KILL:
                sent = self._send(subject, signal.SIGKILL)
            case _:
                sent = True
        if sent:
            _log(subject, ruling)
            if ruling.step in (Step.WARN, Step.STOP) and subject.attribution.owner is not None:
                with suppress(OSError):
                    self._tell(subject.attribution.owner, _message(subject, ruling))
        return sent

    def _send(self, subject: Subject, number: signal.Signals) -> bool:
        try:
            return self._processes.send(subject.identity, number) is Signalled.SENT
        except PermissionError as error:
            # One process that cannot be ended costs nobody the round.
            if subject.identity not in self._refused:
                self._refused.add(subject.identity)
                log(
                    events.PROCESS_UNSIGNALLED,
                    pid=subject.identity.pid,
                    uid=subject.attribution.owner,
                    signal=number.name,
                    problem=str(error),
                )
            return False


def _after(handled: Handled, step: Step, now: Moment) -> Handled:
    match step:
        case Step.REPORT:
            return replace(handled, reported=now)
        case Step.WARN:
            return replace(handled, warned=now)
        case Step.STOP:
            return replace(handled, stopped=now)
        case Step.KILL:
            return replace(handled, killed=now)
        case Step.NOTHING:
            return handled


_EVENTS = {
    Step.REPORT: events.HOST_PROCESS_REPORTED,
    Step.WARN: events.HOST_PROCESS_WARNED,
    Step.STOP: events.HOST_PROCESS_STOPPED,
    Step.KILL: events.HOST_PROCESS_KILLED,
}
_UNLEASED_EVENTS = {
    Step.WARN: events.UNLEASED_PROCESS_WARNED,
    Step.STOP: events.UNLEASED_PROCESS_STOPPED,
    Step.KILL: events.UNLEASED_PROCESS_KILLED,
}


def _log(subject: Subject, ruling: Ruling) -> None:
    found = subject.attribution
    if subject.unleased:
        log(
            _UNLEASED_EVENTS[ruling.step],
            pid=subject.identity.pid,
            uid=found.owner,
            container=found.container,
            devices=list(subject.unleased),
            reason=ruling.why,
        )
        return
    log(
        _EVENTS[ruling.step],
        pid=subject.identity.pid,
        uid=found.owner,
        kind=found.kind.value,
        unit=found.unit,
        executable=subject.executable,
        devices=list(subject.devices),
        reason=ruling.why,
    )


def _message(subject: Subject, ruling: Ruling) -> str:
    """What was noticed, the rule, and the next step. The name is the process's own word, and its user's to read."""
    where, way_out = _where(subject)
    what = f"ds01: your process {subject.identity.pid} ({subject.name[:32]}) is on a GPU {where}"
    if ruling.step is Step.STOP:
        return f"{what} and was asked to end; {ruling.why}"
    left = "" if ruling.seconds_left is None else f" and is ended in {_spoken(ruling.seconds_left)}"
    return f"{what}{left}; {ruling.why}; {way_out}"


def _where(subject: Subject) -> tuple[str, str]:
    """What is wrong with where a process is, and what its user can do."""
    if subject.unleased:
        container = (subject.attribution.container or "")[:12]
        return (
            f"that its container {container} does not hold",
            "end it, and run it in a container with docker run --gpus",
        )
    return "outside a container", "run it with docker run --gpus, or ask an admin for ds01 gpu grant"


def _spoken(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{minutes} minutes" if minutes > 1 else f"{round(seconds)} seconds"
