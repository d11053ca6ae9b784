"""One start: read the bundle, find the approval, judge, look at the host, pin, write the pins into the bundle.

And one copy (`docker cp`): find the approval, look at the host, pin on the stand-ins, which dockerd mounts.
Blocks as long as file systems, NSS and the allocator do: each start has a thread of its own (`runtime.server`).
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from host.binds import BindRefused, check_pinned, hold
from host.files import changeable_only_by
from host.mount_table import mounts_below
from host.trusted import Untrusted
from policy.approval import Approval, ApprovedMount, Source
from runtime import checks, pins
from runtime.approvals import ApprovalUnusable
from runtime.bundle import BundleUnreadable, read_bundle, rewrite
from runtime.checks import AGAIN, Refused, RefusedElsewhere
from runtime.ports import LeaseOver, LeasesUnavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from host.mounts import MountNamespace
    from host.users import Account, Users
    from policy.engine_note import EngineNote
    from policy.model import ContainerId, Uid
    from policy.stand_ins import StandIns
    from runtime.approvals import Approvals
    from runtime.bundle import Bundle
    from runtime.checks import Plan
    from runtime.ports import Leases

_AT_ONCE = 8  # starts of one owner that may wait for file systems
_TURN_SECONDS = 10.0
_COPIED_AT_ONCE = 512  # mounts of one owner on stand-ins; the kernel has 100,000 for all
_NOBODY = 65534


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """A container that is about to start. `place`: where runc will mount."""

    container: ContainerId
    bundle: Path
    place: MountNamespace
    pins: pins.Pins


@dataclass(frozen=True, slots=True, kw_only=True)
class Copy:
    """A container into or out of which dockerd is about to copy. `place`: where dockerd mounts."""

    container: ContainerId
    place: MountNamespace
    pins: pins.StandInPins


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """A mount to open as `account` and to pin at `point`."""

    point: Path
    mount: ApprovedMount
    account: Account


@dataclass(frozen=True, slots=True, kw_only=True)
class Allowed:
    """What was let through, for the log."""

    uid: Uid | None
    lease: str | None
    pins: int


class Turns:
    """At most some starts of each owner at once.

    SECURITY: a file system that never answers (an owner can mount one) holds its thread for ever; so it holds only the
    owner's further starts, and not everybody's.
    """

    def __init__(self) -> None:
        self._of: dict[int, threading.BoundedSemaphore] = {}
        self._lock = threading.Lock()

    def of(self, uid: int) -> threading.BoundedSemaphore:
        with self._lock:
            return self._of.setdefault(uid, threading.BoundedSemaphore(_AT_ONCE))


class Guard:
    """Judges starts. Keeps no state but which mount namespaces it has swept."""

    def __init__(
        self,
        *,
        board: Path,
        stand_ins: StandIns,
        approvals: Approvals,
        note: Callable[[], EngineNote],
        users: Users,
        leases: Leases,
    ) -> None:
        """`board` is the directory of all pins; `note` gives what is known of the engine or raises Untrusted."""
        self._board = board
        self._stand_ins = stand_ins
        self._approvals = approvals
        self._note = note
        self._users = users
        self._leases = leases
        self._turns = Turns()
        self._swept: set[int] = set()
        self._preparing = threading.Lock()

    def decide(self, start: Start) -> Allowed:
        """Let a container start, its sources pinned and written into its bundle. Raises: Refused, TooLate, OSError."""
        approval = self._approval(start.container)
        try:
            bundle = start.place.run(lambda: read_bundle(start.bundle))
            plan = checks.plan(bundle, approval, container=start.container, data_root=self._note().data_root)
        except BundleUnreadable as error:
            raise Refused(f"the container's bundle cannot be read: {error}", "tell the admin") from error
        except Untrusted as error:
            raise Refused(f"nothing is known of the engine yet: {error}", "tell the admin") from error
        if approval is not None and approval.lease is not None:
            self._check_lease(approval)
        if plan.root_only:
            start.place.run(lambda: self._check_root_only(plan, bundle))
        if approval is not None and plan.pins:
            self._pin(start, plan, approval)
        elif plan.hide_devices:
            start.place.run(lambda: rewrite(start.bundle, sources={}, hide_devices=True))
        return Allowed(
            uid=approval.uid if approval else None,
            lease=approval.lease if approval else None,
            pins=len(plan.pins),
        )

    def copy(self, copy: Copy) -> Allowed:
        """Pin the sources of a container on their stand-ins. Raises: Refused, TooLate, OSError."""
        approval = self._approval(copy.container)
        told = {mount.told: mount for mount in approval.mounts if mount.told} if approval is not None else {}
        if approval is None or not told:
            return Allowed(uid=None, lease=None, pins=0)
        wanted = [self._wanted(point, mount) for point, mount in told.items()]
        with self._turn(approval.uid):
            copy.place.run(lambda: self._prepare(copy.place.key))
            copy.place.run(lambda: self._check_count(approval.uid, len(wanted)))
            copy.place.run(lambda: _pin_on_stand_ins(copy, wanted))
        return Allowed(uid=approval.uid, lease=None, pins=len(wanted))

    def _check_count(self, uid: Uid, more: int) -> None:
        """SECURITY: a client that never reads keeps its pins, and could keep so many that nobody's container starts."""
        if len(mounts_below(Path(self._stand_ins.root).resolve() / str(uid))) + more > _COPIED_AT_ONCE:
            raise Refused(
                "too many of your host paths are being copied at once", "wait for other copies to end"
            )

    def _wanted(self, point: str, mount: ApprovedMount) -> _Wanted:
        """SECURITY: a stand-in is opened as whom and for what it says, whichever container dockerd mounts it for."""
        stand_in = self._stand_ins.behind(point)
        if stand_in is None or stand_in.source != mount.source:
            raise Refused(f"{point} is not what stands for {mount.source}")
        return _Wanted(
            point=Path(point),
            mount=replace(mount, read_only=stand_in.read_only),
            account=self._account(stand_in.uid),
        )

    def _approval(self, container: ContainerId) -> Approval | None:
        try:
            return self._approvals.find(container)
        except (ApprovalUnusable, Untrusted) as error:
            raise Refused(f"ds01's record of this container cannot be used: {error}", AGAIN) from error

    def _check_lease(self, approval: Approval) -> None:
        """The devices are this container's now: dockerd would hand them out for as long as the container exists."""
        try:
            lease = self._leases.start(approval.lease, approval.container) if approval.lease else None
        except LeaseOver as error:
            raise RefusedElsewhere(str(error)) from error
        except LeasesUnavailable as error:
            raise Refused(
                f"the GPU lease of this container cannot be checked: {error}",
                "try again in a moment or tell the admin",
                rule="gpu_lease",
            ) from error
        held = lease is not None and lease.state == "active" and lease.container == approval.container
        if lease is None or not held or lease.devices != frozenset(approval.devices):
            raise Refused(
                f"the GPU lease {approval.lease} of this container has ended",
                "create the container again to get a new one",
                rule="gpu_lease",
            )

    def _check_root_only(self, plan: Plan, bundle: Bundle) -> None:
        for source in plan.root_only:
            place = next(mount for mount in bundle.mounts if mount.source == source)
            try:
                firm = changeable_only_by(Path(source), self._is_service)
            except OSError as error:
                raise Refused(f"{source} cannot be looked at: {error.strerror}") from error
            if not firm:
                raise Refused(f"{source} at {place.destination} could be changed by others", "tell the admin")

    def _is_service(self, uid: int) -> bool:
        return uid < _NOBODY and self._users.is_system(uid)

    def _pin(self, start: Start, plan: Plan, approval: Approval) -> None:
        needs_account = any(pin.mount.kind is Source.PATH for pin in plan.pins)
        account = self._account(approval.uid) if needs_account else None
        with self._turn(approval.uid):
            start.place.run(lambda: self._prepare(start.place.key))
            start.place.run(lambda: _pin_all(start, plan, approval, account))

    @contextmanager
    def _turn(self, uid: Uid) -> Iterator[None]:
        turn = self._turns.of(uid)
        if not turn.acquire(timeout=_TURN_SECONDS):
            raise Refused(
                "earlier starts of yours still wait for a file system that does not answer",
                "look at what they mount",
            )
        try:
            yield
        finally:
            turn.release()

    def _account(self, uid: Uid) -> Account:
        """The owner's account as it is today: a group that was left opens nothing any more."""
        account = self._users.get(uid)
        if account is None:
            raise Refused(f"its owner, uid {uid}, has no account on this host", "tell the admin")
        return account

    def _prepare(self, key: int) -> None:
        """In the namespace `key`: dockerd may get a new one when it restarts."""
        with self._preparing:
            pins.prepare(self._board)
            if key not in self._swept:
                pins.sweep(self._board)
                pins.prepare_stand_ins(self._stand_ins)
                self._swept.add(key)


def _pin_all(start: Start, plan: Plan, approval: Approval, account: Account | None) -> None:
    """Inside the namespace: open, look, pin; then let runc mount the pins and nothing else."""
    sources: dict[int, str] = {}
    for pin in plan.pins:
        if pin.mount.kind is Source.PATH and account is not None:
            descriptor = _open_path(pin.mount, account)
        else:
            descriptor = _open_socket(pin.mount, approval.uid)
        try:
            sources[pin.place] = str(start.pins.pin(descriptor))
        finally:
            os.close(descriptor)
        if pin.mount.kind is Source.PATH:
            problem = check_pinned(sources[pin.place], source=pin.mount.source, setuid_ok=pin.mount.setuid_ok)
            if problem is not None:
                raise _refusal(pin.mount, problem)
    rewrite(start.bundle, sources=sources, hide_devices=plan.hide_devices)


def _pin_on_stand_ins(copy: Copy, wanted: Sequence[_Wanted]) -> None:
    """Inside the namespace: open, look, pin; dockerd resolves no name but root's then."""
    for one in wanted:

        def look(point: str, mount: ApprovedMount = one.mount) -> None:
            problem = check_pinned(point, source=mount.source, setuid_ok=mount.setuid_ok)
            if problem is not None:
                raise _refusal(mount, problem)

        descriptor = _open_path(one.mount, one.account)
        try:
            copy.pins.pin(descriptor, one.point, look)
        except OSError as error:
            raise Refused(f"{one.mount.source} cannot be pinned: {error.strerror}", "try again") from error
        finally:
            os.close(descriptor)


def _open_path(mount: ApprovedMount, account: Account) -> int:
    """What a create of this moment would be let have at the same path, and nothing that was there before (ADR 0009)."""
    held = hold(
        mount.source,
        owner_uid=account.uid,
        owner_gid=account.gid,
        owner_gids=account.gids,
        read_only=mount.read_only,
        create=mount.create,
    )
    if isinstance(held, BindRefused):
        raise _refusal(mount, held)
    return held


def _refusal(mount: ApprovedMount, refused: BindRefused) -> Refused:
    return Refused(
        f"{mount.source} cannot be mounted at {mount.target}: {refused.problem}",
        refused.next_step,
        rule="bind_mounts",
    )


def _open_socket(mount: ApprovedMount, uid: Uid) -> int:
    """The owner's own door, in a directory of root's."""
    try:
        descriptor = os.open(mount.source, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise Refused(
            f"your Docker socket {mount.source} is not there: {error.strerror}", "tell the admin"
        ) from error
    status = os.fstat(descriptor)
    if not stat.S_ISSOCK(status.st_mode) or status.st_uid != uid:
        os.close(descriptor)
        raise Refused(f"{mount.source} is not your Docker socket", "tell the admin")
    return descriptor
