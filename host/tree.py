"""Where everything lives: one tree of paths, the same in production and in the lab.

Production spreads the four branches over the file system (/run/ds01, /etc/ds01, /var/lib/ds01, /var/log/ds01);
the lab keeps them under one directory.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """The four branches and every path ds01 uses below them."""

    run: Path
    etc: Path
    lib: Path
    log: Path
    front_door: Path

    @classmethod
    def under(cls, root: Path) -> Tree:
        """The whole tree below one directory, as the lab has it."""
        root = root.absolute()
        return cls(
            run=root / "run",
            etc=root / "etc",
            lib=root / "lib",
            log=root / "log",
            front_door=root / "run" / "docker.sock",
        )

    @classmethod
    def production(cls) -> Tree:
        """The paths of an installed ds01."""
        return cls(
            run=Path("/run/ds01"),
            etc=Path("/etc/ds01"),
            lib=Path("/var/lib/ds01"),
            log=Path("/var/log/ds01"),
            front_door=Path("/run/docker.sock"),
        )

    @property
    def engine_socket(self) -> Path:
        """Dockerd's own socket, for root alone."""
        return self.run / "engine.sock"

    @property
    def admin_socket(self) -> Path:
        return self.run / "admin.sock"

    @property
    def authz_socket(self) -> Path:
        return self.run / "authz.sock"

    @property
    def allocator_socket(self) -> Path:
        return self.run / "allocator.sock"

    @property
    def guard_socket(self) -> Path:
        """Where the container runtime asks whether a container may start."""
        return self.run / "guard.sock"

    @property
    def lifecycle_beat(self) -> Path:
        """Where ds01-lifecycle says that it is at work."""
        return self.run / "lifecycle.json"

    @property
    def pins(self) -> Path:
        """Where the guard mounts what a starting container may have of the host; nobody but root gets there."""
        return self.run / "pins"

    @property
    def break_glass(self) -> Path:
        return self.run / "break-glass.json"

    def user_socket(self, name: str) -> Path:
        return self.run / "users" / name / "docker.sock"

    @property
    def policy(self) -> Path:
        return self.etc / "policy.yaml"

    @property
    def policy_directory(self) -> Path:
        return self.etc / "policy.d"

    @property
    def daemon_settings(self) -> Path:
        return self.etc / "daemon.yaml"

    @property
    def stamp_key(self) -> Path:
        """The private half, readable by the proxy alone."""
        return self.lib / "proxy" / "stamp.key"

    @property
    def stamp_public(self) -> Path:
        return self.lib / "stamp.pub"

    @property
    def engine_id(self) -> Path:
        """The name ds01 gave to the engine behind this tree; stamps are bound to it."""
        return self.lib / "engine-id"

    @property
    def engine_note(self) -> Path:
        """What the proxy learned of the engine, for the plugin and the guard."""
        return self.lib / "engine.json"

    @property
    def approvals(self) -> Path:
        """One file for each container: what its create was let have of the host."""
        return self.lib / "approvals"

    @property
    def sources(self) -> Path:
        """The stand-ins that dockerd is told instead of users' paths; nobody but root gets there."""
        return self.lib / "sources"

    @property
    def records(self) -> Path:
        return self.lib / "proxy" / "records.sqlite"

    @property
    def spool(self) -> Path:
        """Uploads that are looked at before dockerd gets them; on disk, since they can be large."""
        return self.lib / "proxy" / "spool"

    @property
    def ledger(self) -> Path:
        return self.lib / "allocator" / "ledger.sqlite"

    @property
    def host_grants(self) -> Path:
        """Who may use GPUs outside containers."""
        return self.ledger.with_name("host-grants.sqlite")

    @property
    def told(self) -> Path:
        """What users were told of the end of their leases."""
        return self.lib / "lifecycle" / "told.json"

    @property
    def audit(self) -> Path:
        return self.log / "audit.jsonl"
