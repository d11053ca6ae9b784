"""Carrying out rulings on real processes."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import structlog

from allocator.attribution import Attribution, Identity, Kind, ProcessFacts, Proof
from allocator.host_control import Done, HostControl, Owner, Subject
from allocator.host_rules import KILL_SECONDS, Step
from allocator.model import Moment
from allocator.processes import Processes, Signalled
from host.clock import boot_id
from policy.host_processes import HostProcesses, HostRule
from policy.model import ContainerId, DeviceUuid, Uid
from tests.fakes.waiting import running, started

ALICE = Uid(1000)
GPU, OTHER = DeviceUuid("GPU-0"), DeviceUuid("GPU-1")
STOP = HostProcesses(host_processes=HostRule.STOP, grace_seconds=120)
STUBBORN = "import signal, sys; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); sys.stdin.read()"


class World:
    """A control with a clock that the test moves, and what users were told."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.told: list[tuple[Uid, str]] = []
        self.looked_up: list[Uid] = []
        self.processes = Processes(boot_id=boot_id())
        self.control = HostControl(
            processes=self.processes,
            account=self.account,
            tell=lambda uid, text: self.told.append((uid, text)),
            now=lambda: Moment(utc="", boottime_ms=int(self.seconds * 1000), boot_id=boot_id()),
            utc_seconds=lambda: self.seconds,
        )

    def account(self, uid: Uid) -> Owner | None:
        self.looked_up.append(uid)
        return Owner(name="alice", is_person=True) if uid == ALICE else None

    def subject(self, child: subprocess.Popen[bytes]) -> Subject:
        facts = self.processes.look(child.pid)
        assert isinstance(facts, ProcessFacts)
        found = Attribution(kind=Kind.USER, owner=ALICE, proof=Proof.SLICE, unit="session-1.scope")
        return Subject(
            identity=facts.identity,
            attribution=found,
            executable=facts.executable,
            name=facts.name,
            devices=(GPU,),
        )

    def act(self, *subjects: Subject, rules: HostProcesses = STOP, **more: Any) -> list[Step]:
        done: tuple[Done, ...] = self.control.act(subjects, rules, **more)
        return [one.ruling.step for one in done]


@pytest.fixture
def world() -> Iterator[World]:
    made = World()
    yield made
    made.processes.close()


def test_a_stop_warns_waits_and_ends(world: World) -> None:
    """The user is told how long there is; SIGTERM comes after the grace, and nothing once it has ended."""
    with running() as child:
        subject = world.subject(child)
        assert world.act(subject) == [Step.WARN]
        assert world.told[0][0] == ALICE
        assert "(sleep) is on a GPU outside a container and is ended in 2 minutes" in world.told[0][1]
        world.seconds = 119
        assert world.act(subject) == []
        world.seconds = 120
        assert world.act(subject) == [Step.STOP]
        assert child.wait(5) == -signal.SIGTERM
        assert "asked to end" in world.told[1][1]
        world.seconds = 120 + KILL_SECONDS
        assert world.act(subject) == []


def test_what_ignores_sigterm_is_killed(world: World) -> None:
    """Half a minute later."""
    with started(sys.executable, "-c", STUBBORN) as child:
        subject = world.subject(child)
        world.act(subject)
        world.seconds = 120
        assert world.act(subject) == [Step.STOP]
        world.seconds = 120 + KILL_SECONDS
        assert world.act(subject) == [Step.KILL]
        assert child.wait(5) == -signal.SIGKILL


def test_report_and_warn_signal_nobody(world: World) -> None:
    """Each once, however many sweeps there are; a warning without a stop names no time."""
    with running() as child:
        subject = world.subject(child)
        for expected in ([Step.REPORT], []):
            assert world.act(subject, rules=HostProcesses()) == expected
        for expected in ([Step.WARN], []):
            assert world.act(subject, rules=HostProcesses(host_processes=HostRule.WARN)) == expected
        assert "is ended in" not in world.told[0][1]
        assert child.poll() is None


def test_another_process_with_the_pid_is_not_hit(world: World) -> None:
    """A subject that is no longer what runs under its pid gets no signal, and nothing is said to be done."""
    with running() as child:
        subject = world.subject(child)
        other = replace(subject, identity=replace(subject.identity, start_ticks=1))
        world.act(other)
        world.seconds = 120
        assert world.act(other) == []
        assert child.poll() is None


def test_a_process_that_leaves_the_gpu_for_a_while_keeps_its_place(world: World) -> None:
    """Closing and opening the device again does not begin the grace anew."""
    with running() as child:
        subject = world.subject(child)
        world.act(subject)
        assert world.act() == []
        world.seconds = 120
        assert world.act(subject) == [Step.STOP]


def test_a_grant_and_a_uid_without_account(world: World) -> None:
    """Who was granted access is let be; who has no account is told, though by no name."""
    with running() as child:
        subject = world.subject(child)
        assert world.act(subject, granted={ALICE}) == []
        stranger = replace(subject, attribution=replace(subject.attribution, owner=Uid(4242)))
        assert world.act(stranger, granted={ALICE}) == [Step.WARN]


def test_one_process_on_two_devices_is_one_subject(world: World) -> None:
    """It is told once."""
    with running() as child:
        subject = world.subject(child)
        assert world.act(subject, replace(subject, devices=(OTHER,))) == [Step.WARN]


def test_each_account_is_looked_up_once_a_round(world: World) -> None:
    """Not for each process of a user: a directory server may be behind it. What is nobody's needs none."""
    with running() as one, running() as two, running() as three:
        nobodys = Attribution(kind=Kind.SERVICE)
        subjects = (*map(world.subject, (one, two)), replace(world.subject(three), attribution=nobodys))
        for rounds in (1, 2):
            world.act(*subjects)
            assert world.looked_up == [ALICE] * rounds


def test_a_terminal_that_fails_stops_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The warning counts although nobody could be told."""

    def fail(_uid: Uid, _text: str) -> None:
        raise OSError

    monkeypatch.setattr(world.control, "_tell", fail)
    with running() as child:
        assert world.act(world.subject(child)) == [Step.WARN]


def test_in_a_container_the_process_alone_is_ended(world: World) -> None:
    """By the same steps, under names of their own, with the container and what it does not hold."""
    with running() as child:
        found = Attribution(kind=Kind.CONTAINER, owner=ALICE, container=ContainerId("c" * 64))
        subject = replace(world.subject(child), attribution=found)
        rules = HostProcesses(unleased=HostRule.STOP, grace_seconds=120)
        assert world.act(subject, rules=rules) == []
        subject = replace(subject, devices=(GPU, OTHER), unleased=(OTHER,))
        with structlog.testing.capture_logs() as logs:
            assert world.act(subject, rules=rules) == [Step.WARN]
            world.seconds = 120
            assert world.act(subject, rules=rules) == [Step.STOP]
        assert child.wait(5) == -signal.SIGTERM
        assert [line["event"] for line in logs] == ["unleased_process.warned", "unleased_process.stopped"]
        assert (logs[0]["container"], logs[0]["devices"]) == ("c" * 64, [OTHER])
        said = world.told[0][1]
        assert f"on a GPU that its container {'c' * 12} does not hold and is ended in 2 minutes" in said
        assert "gpu grant" not in said


def test_who_cannot_be_signalled_holds_up_nobody(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is said once, tried again, and others go on; with the right to it, it is done."""
    send = world.processes.send

    def refuse(identity: Identity, number: signal.Signals) -> Signalled:
        if identity.pid == first.pid:
            raise PermissionError("not permitted")
        return send(identity, number)

    with running() as first, running() as second:
        subjects = world.subject(first), world.subject(second)
        world.act(*subjects)
        world.seconds = 120
        monkeypatch.setattr(world.processes, "send", refuse)
        with structlog.testing.capture_logs() as logs:
            assert world.act(*subjects) == [Step.STOP]
            assert second.wait(5) == -signal.SIGTERM
            assert world.act(subjects[0]) == []
        (line,) = (one for one in logs if one["event"] == "process.unsignalled")
        assert (line["pid"], line["signal"]) == (first.pid, "SIGTERM")
        monkeypatch.setattr(world.processes, "send", send)
        assert world.act(subjects[0]) == [Step.STOP]
        assert first.wait(5) == -signal.SIGTERM
