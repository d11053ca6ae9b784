"""A container runtime's view of the host: a process with a mount namespace of its own, and root's files."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from host.mounts import MountNamespace
from host.trusted import parse_public_key
from policy import approval as approval_file
from runtime.approvals import Approvals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policy.approval import Approval

ENGINE_ID = "e" * 32


@pytest.fixture
def room() -> Iterator[Path]:
    """A directory that every account can pass through."""
    with tempfile.TemporaryDirectory(prefix="ds01-guard-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def runtime_process() -> Iterator[subprocess.Popen[bytes]]:
    """Where runc would mount."""
    command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", "echo; exec sleep 100"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield process
        process.kill()


@pytest.fixture
def place(runtime_process: subprocess.Popen[bytes]) -> Iterator[MountNamespace]:
    made = MountNamespace(runtime_process.pid)
    yield made
    made.close()


class SignedApprovals:
    """A directory as the proxy writes it, and the guard's reader of it."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o700)
        self.directory = directory
        self.private = Ed25519PrivateKey.generate()
        key = parse_public_key(self.private.public_key().public_bytes_raw())
        self.reader = Approvals(
            directory,
            key=lambda: key,
            engine_id=lambda: ENGINE_ID,
            owners=frozenset({os.geteuid()}),
        )

    def write(self, approval: Approval, *, name: str | None = None) -> Path:
        text = approval_file.write(approval)
        path = self.directory / (name or approval.container)
        path.write_bytes(approval_file.seal(text, self.private.sign(approval_file.message(text))))
        path.chmod(0o600)
        return path


@pytest.fixture
def approvals(room: Path) -> SignedApprovals:
    return SignedApprovals(room / "approvals")
