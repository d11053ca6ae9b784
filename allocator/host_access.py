"""Access to GPUs outside containers: grants are carried out on users' slices, and taken back when they end.

Order: written down, then carried out; taken away, then written down. A crash in between leaves a grant that the next
start carries out or takes away again, never access without a record. A grant names devices; which files these are is asked
each time it is carried out, since a boot may number them anew.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol

from allocator.attribution import Kind
from allocator.attributor import OpenElsewhere
from allocator.device_policy import BASE_NAME, SERVICES, Node, base, drivers, free_property, set_property
from allocator.finishing import Finishing
from allocator.granted_devices import CapabilityNumbers, GrantedDevice, choose, files, why_over
from allocator.host_grants import HostGrant, HostGrants
from allocator.host_rules import is_protected
from allocator.mig_capabilities import Capabilities, FilesUnknown
from allocator.model import InventoryUnavailable, Moment, Refusal, Snapshot
from allocator.processes import PROC, Processes, Signalled
from host.proc import read
from host.user_slices import UNITS
from observability import events
from observability.logging import log
from policy.model import DeviceUuid, Uid

SHORTEST_SECONDS = 60
LONGEST_SECONDS = 90 * 24 * 3600
_COUNT_SECONDS = 60.0  # how much a crash of the machine may give back of a grant
_END_SECONDS = 5.0  # from SIGTERM to SIGKILL for who still has a file open
_SYSTEMCTL_SECONDS = 30.0
_HOLDERS_SECONDS = 30.0
BY_ITSELF = "ds01"


class AccessFailed(Exception):  # noqa: N818  the name says what is wrong
    """It was not done: systemd did not, or which files it comes to is not known; the message says it on one line."""


class Inventory(Protocol):
    """`allocator.withheld.WithheldDevices`. Raises from all: InventoryUnavailable."""

    async def refresh(self) -> None:
        """Look at the devices, unless that was done a moment ago; may take long."""

    def current(self) -> Snapshot:
        """The devices that there are."""

    def settled(self) -> AbstractAsyncContextManager[Snapshot]:
        """Those that are not being split anew; while it is open none begins to be."""


async def systemctl(command: Sequence[str]) -> None:
    """Run one command of `device_policy`. Raises: AccessFailed."""
    try:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
        )
    except OSError as error:
        raise AccessFailed(f"{command[0]} cannot be run: {error.strerror}") from error
    try:
        async with asyncio.timeout(_SYSTEMCTL_SECONDS):
            _, said = await process.communicate()
    except (TimeoutError, asyncio.CancelledError) as error:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        if isinstance(error, asyncio.CancelledError):
            raise
        raise AccessFailed(f"{command[0]} did not answer within {_SYSTEMCTL_SECONDS:g} seconds") from error
    if process.returncode:
        words = " ".join(said.decode(errors="replace").split())
        raise AccessFailed(words[:300] or f"{command[0]} ended with {process.returncode}")


class HostAccess:
    """Carries grants out; one change at a time, and each to its end whatever becomes of who asked for it."""

    def __init__(
        self,
        *,
        grants: HostGrants,
        inventory: Inventory,
        processes: Processes,
        holders: Callable[[], Awaitable[Iterable[OpenElsewhere]]],
        now: Callable[[], Moment],
        utc_seconds: Callable[[], float],
        run: Callable[[Sequence[str]], Awaitable[None]] = systemctl,
        devices: Path = PROC / "devices",
        closed: Path = UNITS / f"user-.slice.d/{BASE_NAME}",
        capabilities: CapabilityNumbers | None = None,
    ) -> None:
        """`holders`: all who have a device file of NVIDIA's open, with whose they are (`Attributor.attribute_open`).

        `closed`: the drop-in that closes everybody's sessions; without it, a grant that ends leaves its user's open as all are.
        """
        self._grants = grants
        self._inventory = inventory
        self._capabilities = Capabilities() if capabilities is None else capabilities
        self._processes = processes
        self._holders = holders
        self._now = now
        self._utc_seconds = utc_seconds
        self._run = run
        self._devices = devices
        self._closed = closed
        self._turn = asyncio.Lock()
        self._work = Finishing()
        self._unapplied: dict[int, str] = {}  # by number, what was in the way last

    def sessions_are_closed(self) -> bool:
        """Whether there is anything to grant."""
        return self._closed.exists()

    async def grant(
        self, *, uid: Uid, name: str, devices: Sequence[str], seconds: int, by: str, reason: str
    ) -> HostGrant | Refusal:
        """Give a user access, at once and for sessions to come; an earlier grant of theirs is replaced.

        Args: devices: names of GPUs and MIG devices; empty for all of NVIDIA's.
        Raises: ValueError: root, a time out of bounds, or no reason. AccessFailed: nothing was given. LedgerUnavailable,
            InventoryUnavailable.
        """
        if uid == 0 or not SHORTEST_SECONDS <= seconds <= LONGEST_SECONDS or not reason.strip():
            raise ValueError("a user who is not root, a minute to 90 days, and a reason are needed")
        write = partial(self._grants.grant, uid=uid, name=name, seconds=seconds, by=by, reason=reason)
        return await self._work.finish(self._grant(write, tuple(devices), by))

    async def _grant(
        self, write: Callable[..., HostGrant], names: Sequence[str], by: str
    ) -> HostGrant | Refusal:
        if names:
            await self._inventory.refresh()  # before its turn: a driver that hangs holds up no end of a grant
        async with self._turn:
            made = await self._write_down(write, names)
            if isinstance(made, Refusal):
                return made
            try:
                await self._apply(made)
            except (AccessFailed, InventoryUnavailable):
                # The slice may have been given it after all: it is taken back now, or by the next sweep.
                await self._take_back(made, by=by, why="could not be carried out")
                raise
            log(
                events.HOST_ACCESS_GRANTED,
                uid=made.uid,
                devices=[device.uuid for device in made.devices],
                by=by,
                reason=made.reason,
                until=made.ends_utc,
            )
            return made

    async def _write_down(self, write: Callable[..., HostGrant], names: Sequence[str]) -> HostGrant | Refusal:
        """The record, if its devices can be had: one that cannot leaves an earlier grant as it is."""
        if not names:
            return await self._record(write, ())
        # INVARIANT: from the look at the devices to the record none of them is taken for a change of MIG, which asks for the record.
        async with self._inventory.settled() as snapshot:
            devices = choose(names, snapshot)
            if isinstance(devices, Refusal):
                return devices
            await self._files(devices, snapshot)
            return await self._record(write, devices)

    async def _record(self, write: Callable[..., HostGrant], devices: tuple[GrantedDevice, ...]) -> HostGrant:
        now, utc_seconds = self._now(), self._utc_seconds()
        return await self._work.durably(partial(write, devices=devices, now=now, utc_seconds=utc_seconds))

    async def revoke(self, uid: Uid, *, by: str, why: str) -> HostGrant | None:
        """Take a user's access away and end what still has a file open; None when there is none.

        Raises: AccessFailed: it is still there; every sweep tries again. LedgerUnavailable.
        """
        return await self._work.finish(self._revoke(uid, by, why))

    async def _revoke(self, uid: Uid, by: str, why: str) -> HostGrant | None:
        async with self._turn:
            found = await self._work.durably(partial(self._grants.of, uid))
            if found is None:
                return None
            # Over from now on, so that a failure, or a crash, leaves something that the next sweep takes away.
            await self._work.durably(partial(self._grants.count, found.number, 0.0, now=self._now()))
            if not await self._take_back(replace(found, left_seconds=0.0), by=by, why=why):
                raise AccessFailed("systemd did not take the devices away; ds01 goes on trying")
            return found

    async def start(self) -> None:
        """At the start of the daemon, after a boot too: what lives is carried out again, what is over is taken away."""
        async with self._turn:
            self._unapplied = {grant.number: "" for grant in await self._live()}
        await self.sweep()

    async def sweep(self) -> None:
        """Take away what is over, carry out what failed before, and note how much is left. To be called every few seconds."""
        await self._work.finish(self._sweep())

    async def close(self) -> None:
        """Finish what was begun, and let go of the record."""
        await self._work.wait()
        await self._work.durably(self._grants.close)
        self._work.close()

    async def _sweep(self) -> None:
        async with self._turn:
            for grant in await self._live():
                left = grant.left(now=self._now(), utc_seconds=self._utc_seconds())
                over = "expired" if left <= 0 else self._why_over(grant)
                if over is not None:
                    await self._take_back(grant, by=BY_ITSELF, why=over)
                    continue
                if grant.number in self._unapplied:
                    await self._try_to_apply(grant)
                counted = self._now().seconds_since(grant.counted)
                if counted >= _COUNT_SECONDS:
                    await self._work.durably(partial(self._grants.count, grant.number, left, now=self._now()))

    async def live(self) -> tuple[HostGrant, ...]:
        """All grants that are not over."""
        async with self._turn:
            return await self._live()

    async def recorded(self) -> tuple[HostGrant, ...]:
        """The same out of turn: for who holds up a grant meanwhile, in `Inventory.settled`'s lock."""
        return await self._live()

    def index(self, device: DeviceUuid) -> str | None:
        """What a device is called now; None: it is not there, or nobody can say."""
        with suppress(InventoryUnavailable):
            found = self._inventory.current().devices.get(device)
            return None if found is None else found.index
        return None

    # Everything below runs in its turn.

    def _why_over(self, grant: HostGrant) -> str | None:
        """Why a grant is over before its time. Without a look at the devices nothing is known against it."""
        with suppress(InventoryUnavailable):
            return why_over(grant.devices, self._inventory.current())
        return None

    async def _live(self) -> tuple[HostGrant, ...]:
        return await self._work.durably(self._grants.live)

    async def _apply(self, grant: HostGrant) -> None:
        text = await self._known_devices()
        self._unapplied.setdefault(grant.number, "")
        devices = grant.devices
        nodes = await self._files(devices, self._inventory.current()) if devices else drivers(text)
        await self._run(set_property(grant.uid, base(text), nodes))
        self._unapplied.pop(grant.number, None)

    async def _files(self, devices: Sequence[GrantedDevice], snapshot: Snapshot) -> tuple[Node, ...]:
        try:
            return await asyncio.to_thread(files, devices, snapshot, self._capabilities)
        except FilesUnknown as error:
            raise AccessFailed(str(error)) from error

    async def _try_to_apply(self, grant: HostGrant) -> None:
        try:
            await self._apply(grant)
        except InventoryUnavailable:
            pass  # told by who looks at the devices; the next sweep tries again
        except AccessFailed as error:
            if self._unapplied.get(grant.number) != str(error):  # at each sweep, for as long as it lasts
                log(events.HOST_ACCESS_FAILED, uid=grant.uid, problem=str(error))
            self._unapplied[grant.number] = str(error)

    async def _take_back(self, grant: HostGrant, *, by: str, why: str) -> bool:
        """Whether the slice is closed again; if not, the grant stays in the record as over, for the next sweep."""
        try:
            await self._run(await self._without(grant.uid))
        except AccessFailed as error:
            log(events.HOST_ACCESS_FAILED, uid=grant.uid, problem=str(error))
            await self._work.durably(partial(self._grants.count, grant.number, 0.0, now=self._now()))
            return False
        ended = await self._end_holders(grant.uid)
        await self._work.durably(partial(self._grants.end, grant.number, by=by, why=why, now=self._now()))
        self._unapplied.pop(grant.number, None)
        log(events.HOST_ACCESS_REVOKED, uid=grant.uid, by=by, reason=why, ended=ended)
        return True

    async def _without(self, uid: Uid) -> Sequence[str]:
        if not self.sessions_are_closed():
            return free_property(uid)
        return set_property(uid, base(await self._known_devices()))

    async def _known_devices(self) -> str:
        try:
            return await asyncio.to_thread(read, self._devices)
        except OSError as error:
            raise AccessFailed(f"{self._devices} cannot be read") from error

    async def _end_holders(self, uid: Uid) -> list[int]:
        """End what of a user's slice has a file open still: an open file stays usable whatever the slice may open."""
        try:
            async with asyncio.timeout(_HOLDERS_SECONDS):
                found = await self._holders()
        except (OSError, TimeoutError) as error:
            problem = f"who has a device open still cannot be told: {error or 'no answer in time'}"
            log(events.HOST_ACCESS_FAILED, uid=uid, problem=problem)
            return []
        return await asyncio.to_thread(self._end, [one for one in found if _is_of(one, uid)])

    def _end(self, held: Sequence[OpenElsewhere]) -> list[int]:
        identities = (one.facts.identity for one in held)
        sent = [one for one in identities if self._processes.send(one, signal.SIGTERM) is Signalled.SENT]
        for one in self._processes.wait_ended(sent, seconds=_END_SECONDS):
            self._processes.send(one, signal.SIGKILL)
        return [one.pid for one in sent]


def _is_of(one: OpenElsewhere, uid: Uid) -> bool:
    """Whether a process is in the user's slice, or the user's own in a service that is closed as slices are."""
    found = one.attribution
    if found.kind is not Kind.USER or is_protected(one.facts.executable, found.unit):
        return False
    closed = found.owner == uid and found.unit.removesuffix(".service") in SERVICES
    return found.slice_uid == uid or closed
