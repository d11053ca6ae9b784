"""Sealed labels: how ds01 recognises its own work on the engine's objects.

A seal signs the owner's labels and a nonce. A label set whose seal does not verify says nothing: the object is unmanaged,
never "the owner says so" (an image, a commit or root's own docker can put any label anywhere).
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping
from typing import Protocol

from cryptography.exceptions import InvalidSignature

from policy import ownership
from policy.model import Actor, ContainerId, LeaseId, RequestId, Uid
from socket_proxy.keys import Keys

NEVER_STARTED = "created"  # SOURCE: Engine API, ContainerSummary.State
_REMEMBERED = 16384


class Sealer:
    """Makes and checks seals; checks are remembered, since lists show the same labels again and again."""

    def __init__(self, keys: Keys) -> None:
        self._keys = keys
        self._verified: OrderedDict[tuple[str, bytes], bool] = OrderedDict()

    def labels(self, actor: Actor, *, lease: LeaseId | None, request_id: RequestId) -> dict[str, str]:
        """All of the owner's `ds01.*` labels, the seal included."""
        labels = ownership.labels(actor, lease, request_id)
        nonce = secrets.token_hex(16)
        signature = self._keys.private.sign(ownership.seal_message(labels, nonce))
        return {**labels, ownership.SEAL: ownership.format_seal(nonce, signature)}

    def owner(self, labels: Mapping[str, str] | None) -> Uid | None:
        """The uid that the labels prove, or None."""
        if not labels:
            return None
        text = labels.get(ownership.SEAL)
        if not text or any(name not in labels for name in ownership.SEALED) or not self._valid(labels, text):
            return None
        uid = labels.get(ownership.UID, "")
        return Uid(int(uid)) if uid.isascii() and uid.isdecimal() else None

    def _valid(self, labels: Mapping[str, str], text: str) -> bool:
        parsed = ownership.parse_seal(text)
        if parsed is None:
            return False
        nonce, signature = parsed
        message = ownership.seal_message(labels, nonce)
        known = self._verified.get((text, message))
        if known is None:
            known = self._verify(signature, message)
            self._verified[(text, message)] = known
            if len(self._verified) > _REMEMBERED:
                self._verified.popitem(last=False)
        return known

    def _verify(self, signature: bytes, message: bytes) -> bool:
        try:
            self._keys.public.verify(signature, message)
        except InvalidSignature:
            return False
        return True


class Approved(Protocol):
    """What was written of containers that came through ds01: `socket_proxy.approvals`."""

    def has(self, container: ContainerId) -> bool: ...


class SealedContainers:
    """Which containers came through ds01.

    SECURITY: labels are no proof of that by themselves. Their owner can read them, and dockerd gives those of a Dockerfile, or
    of an image that was committed, to the steps of a classic build. No step has an approval, and each is started at once.
    """

    def __init__(self, sealer: Sealer, approvals: Approved | None) -> None:
        """Args: approvals: None where no guard reads them: there a seal has to do."""
        self._sealer = sealer
        self._approvals = approvals

    def owner(self, container: str, labels: Mapping[str, str] | None, *, state: str) -> Uid | None:
        """Whose a container is, or None.

        Args: state: dockerd's word. One that was never started may have been left by a create that a crash cut short.
        """
        owner = self._sealer.owner(labels)
        return owner if state == NEVER_STARTED or owner is None or self.came_through(container) else None

    def came_through(self, container: str) -> bool:
        """Whether ds01 sent its create, of one that was started."""
        return self._approvals is None or self._approvals.has(ContainerId(container))
