"""Approvals as the guard believes them: root's file, the proxy's signature, this container and this engine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from host.files import FileUntrusted, read_trusted
from policy import approval as approval_file
from policy.approval import Approval, ApprovalInvalid

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from host.trusted import Ed25519Key
    from policy.model import ContainerId


class ApprovalUnusable(Exception):  # noqa: N818  the name says what is wrong
    """There is a file, and it proves nothing."""


class Approvals:
    """The directory that the proxy writes."""

    def __init__(
        self,
        directory: Path,
        *,
        key: Callable[[], Ed25519Key],
        engine_id: Callable[[], str],
        owners: frozenset[int] = frozenset({0}),
    ) -> None:
        """`key` and `engine_id` give the present ones or raise Untrusted."""
        self._directory = directory
        self._key = key
        self._engine_id = engine_id
        self._owners = owners

    def find(self, container: ContainerId) -> Approval | None:
        """What the create of `container` was let have, None when no such create was let through.

        SECURITY: a signature over another container's file, or over one of another engine, proves nothing here.
        Raises: ApprovalUnusable, Untrusted.
        """
        try:
            signature, text = approval_file.unseal(
                read_trusted(self._directory / container, owners=self._owners)
            )
            if not self._key().verify(signature, approval_file.message(text)):
                raise ApprovalUnusable("its signature is not ds01's")
            found = approval_file.read(text)
        except FileNotFoundError:
            return None
        except (OSError, FileUntrusted, ApprovalInvalid) as error:
            raise ApprovalUnusable(str(error)) from error
        if (found.container, found.engine_id) != (container, self._engine_id()):
            raise ApprovalUnusable("it is another container's")
        return found
