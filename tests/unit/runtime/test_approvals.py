"""An approval counts if the proxy signed it for this container on this engine, and if only root can have put it there."""

from __future__ import annotations

import os
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.trusted import Untrusted
from policy.approval import Approval
from policy.model import ContainerId, Uid
from runtime.approvals import Approvals, ApprovalUnusable

if TYPE_CHECKING:
    from tests.unit.runtime.conftest import SignedApprovals

ID, OTHER = ContainerId("a" * 64), ContainerId("b" * 64)
APPROVAL = Approval(container=ID, engine_id="e" * 32, uid=Uid(1000))


def test_a_signed_one_is_found(approvals: SignedApprovals) -> None:
    """By its container's id; of others nothing is known."""
    approvals.write(APPROVAL)
    assert approvals.reader.find(ID) == APPROVAL
    assert approvals.reader.find(OTHER) is None


def test_anothers_file_is_not_a_containers_own(approvals: SignedApprovals) -> None:
    """Renamed or copied, it says whose it is."""
    approvals.write(APPROVAL, name=OTHER)
    with pytest.raises(ApprovalUnusable, match="another"):
        approvals.reader.find(OTHER)


def test_another_engines_does_not_count(approvals: SignedApprovals) -> None:
    """Container ids are an engine's own."""
    approvals.write(replace(APPROVAL, engine_id="f" * 32))
    with pytest.raises(ApprovalUnusable, match="another"):
        approvals.reader.find(ID)


def test_a_changed_or_foreign_signature_does_not_count(approvals: SignedApprovals) -> None:
    """One byte of the text, one of the signature, another key."""
    path = approvals.write(APPROVAL)
    content = path.read_bytes()
    for changed in (
        content.replace(b"1000", b"1001"),
        content[:5] + (b"0" if content[5:6] != b"0" else b"1") + content[6:],
    ):
        path.write_bytes(changed)
        with pytest.raises(ApprovalUnusable, match="signature"):
            approvals.reader.find(ID)
    approvals.private = Ed25519PrivateKey.generate()
    approvals.write(APPROVAL)
    with pytest.raises(ApprovalUnusable, match="signature"):
        approvals.reader.find(ID)


def test_a_file_that_others_can_write_does_not_count(approvals: SignedApprovals) -> None:
    """Nor one that is a link, is empty, or is no text of ds01's."""
    path = approvals.write(APPROVAL)
    path.chmod(0o666)
    with pytest.raises(ApprovalUnusable, match="others may write"):
        approvals.reader.find(ID)
    path.rename(approvals.directory / "x")
    path.symlink_to(approvals.directory / "x")
    with pytest.raises(ApprovalUnusable, match="symbolic"):
        approvals.reader.find(ID)
    path.unlink()
    path.touch(mode=0o600)
    with pytest.raises(ApprovalUnusable):
        approvals.reader.find(ID)


def test_without_a_key_nothing_counts(approvals: SignedApprovals) -> None:
    """Not even what counted a moment ago."""

    def missing() -> str:
        raise Untrusted("stamp.pub is missing")

    approvals.write(APPROVAL)
    reader = Approvals(
        approvals.directory,
        key=missing,  # type: ignore[arg-type]  # it never gives one
        engine_id=lambda: "e" * 32,
        owners=frozenset({os.geteuid()}),
    )
    with pytest.raises(Untrusted):
        reader.find(ID)
