"""Approvals on disk: what each create was let have of the host, signed, before its answer goes out.

The guard reads them at every start (`runtime.approvals`). A container without one may have nothing of the host, so a create
that is cut short between dockerd's answer and the file leaves a container that can do no harm.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature

from host.files import FileUntrusted, read_trusted, write_atomic
from observability import events
from observability.logging import log
from policy import approval as approval_file
from policy.approval import (
    Approval,
    ApprovalInvalid,
    approved_mounts,
    device_nodes,
    inherited_mounts,
    joined_containers,
    volumes_from,
    with_stand_ins,
)
from policy.model import ContainerId, Json
from policy.stand_ins import StandIns
from socket_proxy.keys import Keys
from socket_proxy.transaction import Transaction

_CONTAINER = re.compile(r"[0-9a-f]{64}")
_REMEMBERED = 16384


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPaths:
    """What an approval says of host paths.

    told: their stand-ins. words: how the create had written those that it wrote otherwise, by the clean path of the target.
    """

    told: frozenset[str] = frozenset()
    words: Mapping[str, str] = field(default_factory=dict)


class Approvals:
    """One file for each container."""

    def __init__(self, directory: Path, keys: Keys, stand_ins: StandIns) -> None:
        """Keep them in `directory`, which is made if it is missing. Raises: OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._keys = keys
        self._stand_ins = stand_ins
        self._host_paths: OrderedDict[ContainerId, HostPaths] = OrderedDict()

    async def record(self, transaction: Transaction, container: ContainerId) -> None:
        """Write what the create of `container` was let have. Durable when this returns.

        Raises: OSError: not written. ValueError: the request holds what nobody looked at; it must not start.
        """
        body = transaction.request.body or {}
        fulfilled = transaction.fulfilled
        looked_at = approved_mounts(body, fulfilled.binds, user_socket=transaction.user_socket)
        own = with_stand_ins(
            looked_at, self._stand_ins, uid=transaction.actor.uid, asked=transaction.asked.body or {}
        )
        inherited = await asyncio.to_thread(self._inherited, body)
        approval = Approval(
            container=container,
            engine_id=self._keys.engine_id,
            uid=transaction.actor.uid,
            mounts=(*own, *inherited),
            nodes=device_nodes(body),
            joined=joined_containers(body),
            lease=fulfilled.lease,
            devices=tuple(sorted(fulfilled.devices)),
        )
        await asyncio.to_thread(self.write, approval)

    def write(self, approval: Approval) -> None:
        """Raises: OSError; nothing is written then."""
        text = approval_file.write(approval)
        signature = self._keys.private.sign(approval_file.message(text))
        write_atomic(self._directory / approval.container, approval_file.seal(text, signature))

    def _inherited(self, body: Mapping[str, Json]) -> tuple[approval_file.ApprovedMount, ...]:
        found = {container: self.find(container) for container in volumes_from(body)}
        return inherited_mounts(body, {name: each for name, each in found.items() if each is not None})

    def has(self, container: ContainerId) -> bool:
        """Whether its create came through ds01; nobody but root can write here."""
        return (self._directory / container).exists()

    def find(self, container: ContainerId) -> Approval | None:
        """What a container was let have; None when that cannot be told, which brings nothing."""
        try:
            signature, text = approval_file.unseal(
                read_trusted(self._directory / container, owners=frozenset({self._directory.stat().st_uid}))
            )
            self._keys.public.verify(signature, approval_file.message(text))
            found = approval_file.read(text)
        except (OSError, FileUntrusted, ApprovalInvalid, InvalidSignature):
            return None
        return found if found.container == container else None

    def host_paths(self, container: ContainerId) -> HostPaths:
        """What an approval says of host paths; remembered, for it never changes."""
        known = self._host_paths.get(container)
        if known is None:
            approval = self.find(container)
            if approval is None:
                return HostPaths()
            known = self._host_paths[container] = _host_paths(approval)
            if len(self._host_paths) > _REMEMBERED:
                self._host_paths.popitem(last=False)
        return known

    def words(self, container: ContainerId) -> Mapping[str, str]:
        """How the create of a container had written its host paths."""
        return self.host_paths(container).words

    def told(self) -> frozenset[str]:
        """Every stand-in that some container has. Blocks: it reads all files. Raises: OSError."""
        found = (self.find(container) for container in self.kept())
        return frozenset(told for approval in found if approval for told in _host_paths(approval).told)

    def kept(self) -> frozenset[ContainerId]:
        """The containers that have one."""
        names = (path.name for path in self._directory.iterdir())
        return frozenset(ContainerId(name) for name in names if _CONTAINER.fullmatch(name))

    def drop(self, container: ContainerId) -> None:
        """The container is gone. Repeatable; a file that stays behind approves nothing that exists."""
        self._host_paths.pop(container, None)
        try:
            (self._directory / container).unlink(missing_ok=True)
        except OSError as error:
            log(events.APPROVAL_FAILED, container=container, problem=str(error))


def _host_paths(approval: Approval) -> HostPaths:
    return HostPaths(
        told=frozenset(mount.told for mount in approval.mounts if mount.told),
        words={mount.target: mount.asked for mount in approval.mounts if mount.asked},
    )
