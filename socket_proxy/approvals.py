"""Approvals on disk: what each create was let have of the host, signed, before its answer goes out.

The guard reads them at every start (`runtime.approvals`). A container without one may have nothing of the host, so a create
that is cut short between dockerd's answer and the file leaves a container that can do no harm.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
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
)
from policy.model import ContainerId, Json
from socket_proxy.keys import Keys
from socket_proxy.transaction import Transaction

_CONTAINER = re.compile(r"[0-9a-f]{64}")


class Approvals:
    """One file for each container."""

    def __init__(self, directory: Path, keys: Keys) -> None:
        """Keep them in `directory`, which is made if it is missing. Raises: OSError."""
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._directory = directory
        self._keys = keys

    async def record(self, transaction: Transaction, container: ContainerId) -> None:
        """Write what the create of `container` was let have. Durable when this returns.

        Raises: OSError: not written. ValueError: the request holds what nobody looked at; it must not start.
        """
        body = transaction.request.body or {}
        fulfilled = transaction.fulfilled
        own = approved_mounts(body, fulfilled.binds, user_socket=transaction.user_socket)
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

    def kept(self) -> frozenset[ContainerId]:
        """The containers that have one."""
        names = (path.name for path in self._directory.iterdir())
        return frozenset(ContainerId(name) for name in names if _CONTAINER.fullmatch(name))

    def drop(self, container: ContainerId) -> None:
        """The container is gone. Repeatable; a file that stays behind approves nothing that exists."""
        try:
            (self._directory / container).unlink(missing_ok=True)
        except OSError as error:
            log(events.APPROVAL_FAILED, container=container, problem=str(error))
