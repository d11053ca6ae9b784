"""The allocator's parts, made in order and put together; `allocator.app` runs them."""

from __future__ import annotations

import asyncio
import time
from functools import cached_property, partial
from typing import TYPE_CHECKING

from allocator.access_requests import AccessRequests, Account
from allocator.api import Api
from allocator.api_foreign import ForeignRoutes
from allocator.api_mig import MigRoutes
from allocator.api_processes import ProcessRoutes
from allocator.attributor import Attributor
from allocator.cdi import Regeneration
from allocator.foreign_owners import ForeignOwners, Host, look
from allocator.holders import holders
from allocator.host_access import HostAccess
from allocator.host_control import HostControl, Owner
from allocator.host_grants import HostGrant, HostGrants
from allocator.intruders import Intruders
from allocator.kernel_log import LogEar
from allocator.ledger import Ledger
from allocator.mig_apply import Repartition
from allocator.mig_capabilities import Capabilities
from allocator.mig_clients import Clients
from allocator.mig_driver import MigDriver
from allocator.processes import Processes
from allocator.service import Allocator
from allocator.tracking import Told, Tracking
from allocator.worker import NvmlWorker
from host import terminals
from host.clock import boot_id
from host.subuids import lent
from host.users import look_up_name, look_up_uid, uid_min
from policy.model import Uid

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiohttp import web

    from allocator.attributor import OpenElsewhere
    from allocator.model import Moment
    from allocator.settings import Settings
    from policy.model import LeaseId


class Parts:
    """Each made when it is first asked for. Raises from what opens a file: LedgerUnavailable."""

    def __init__(
        self, settings: Settings, *, now: Callable[[], Moment], new_id: Callable[[], LeaseId]
    ) -> None:
        self.settings = settings
        self.now = now
        self.new_id = new_id
        self.told = Told()
        self._first_uid = uid_min()

    @cached_property
    def worker(self) -> NvmlWorker:
        return NvmlWorker(deadline_seconds=self.settings.nvml_deadline_seconds)

    @cached_property
    def service(self) -> Allocator:
        timing = self.settings.timing
        return Allocator(
            ledger=Ledger(self.settings.tree.ledger, half_life_seconds=timing.half_life_seconds),
            inventory=self.worker,
            now=self.now,
            new_id=self.new_id,
            timing=timing,
            zone=self.settings.zone,
            granted=self._recorded,
        )

    @cached_property
    def log_ear(self) -> LogEar:
        return LogEar(self.settings.kernel_log, heard=self.service.hearing.logged)

    @cached_property
    def processes(self) -> Processes:
        return Processes(boot_id=boot_id())

    @cached_property
    def tracking(self) -> Tracking:
        attributor = Attributor(
            processes=self.processes,
            containers=self.told,
            now=self.now,
            subuids=lent,
            first_uid=self._first_uid,
        )
        control = HostControl(
            processes=self.processes,
            account=self._owner,
            tell=terminals.tell,
            now=self.now,
            utc_seconds=time.time,
        )
        return Tracking(
            watch=self.service.watch,
            attributor=attributor,
            control=control,
            intruders=Intruders(
                leases=partial(self.service.leases, None),
                tell_holder=self.service.upkeep.tell_of_intruder,
                containers=self.told,
                foreign=self.service.foreign,
                now=self.now,
            ),
            granted=self._granted,
            scan=holders,
            now=self.now,
        )

    @cached_property
    def access(self) -> HostAccess:
        return HostAccess(
            grants=HostGrants(self.settings.tree.host_grants),
            inventory=self.service.withheld,
            processes=self.processes,
            holders=self._open_elsewhere,
            now=self.now,
            utc_seconds=time.time,
        )

    @cached_property
    def repartition(self) -> Repartition:
        return Repartition(
            driver=MigDriver(deadline_seconds=self.settings.nvml_deadline_seconds),
            journal=self.service.mig_journal,
            devices=self.service.withheld,
            past=self.service.withheld,
            quiesced=partial(self.service.watch.closed, self.worker.close),
            clients=Clients(
                scan=self._open_elsewhere,
                current=self.service.watch.current,
                own=lambda: self.worker.pid,
                capabilities=Capabilities(),
            ).of,
            regenerate=Regeneration(self.settings.cdi_command).run,
        )

    def application(self) -> web.Application:
        """Every route."""
        trusted = self.settings.trusted_uids
        requests = AccessRequests(self.access, account=self._account, now=self.now, utc_seconds=time.time)
        owners = ForeignOwners(partial(look, host=Host(first_uid=self._first_uid)))
        api = Api(
            self.service,
            trusted_uids=trusted,
            now=self.now,
            new_id=self.new_id,
            foreign_owner=owners.of,
            log_problem=lambda: self.log_ear.problem,
        )
        return api.application(
            *ProcessRoutes(
                self.tracking,
                self.told,
                self.service.foreign,
                owners,
                requests,
                find=self.service.find,
                watched=self.service.pace.watch,
                now=self.now,
                trusted_uids=trusted,
            ).routes(),
            *ForeignRoutes(self.service, owners, trusted_uids=trusted, now=self.now).routes(),
            *MigRoutes(self.repartition, trusted_uids=trusted).routes(),
        )

    async def _granted(self) -> frozenset[Uid]:
        return frozenset(grant.uid for grant in await self.access.live())

    async def _recorded(self) -> tuple[HostGrant, ...]:
        return await self.access.recorded()

    async def _open_elsewhere(self) -> tuple[OpenElsewhere, ...]:
        return await self.tracking.open_elsewhere()

    def _owner(self, uid: Uid) -> Owner | None:
        account = look_up_uid(uid)
        return None if account is None else Owner(name=account.name, is_person=uid >= self._first_uid)

    async def _account(self, name: str) -> Account | None:
        account = await asyncio.to_thread(look_up_name, name)
        if account is None:
            return None
        return Account(uid=Uid(account.uid), name=account.name, is_person=account.uid >= self._first_uid)
