"""Sealed labels: how ds01 recognises its own work on the engine's objects.

A seal signs the owner's labels and a nonce. A label set whose seal does not verify says nothing: the object is unmanaged,
never "the owner says so" (an image, a commit or root's own docker can put any label anywhere).
"""

from __future__ import annotations

import secrets
from collections import OrderedDict
from collections.abc import Mapping

from cryptography.exceptions import InvalidSignature

from policy import ownership
from policy.model import Actor, LeaseId, RequestId, Uid
from socket_proxy.keys import Keys

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
