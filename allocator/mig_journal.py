"""What was meant to be done to a GPU's partition, written before it is tried, so that a crash in between is finished later."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from policy.model import DeviceUuid

if TYPE_CHECKING:
    from allocator.ledger import Ledger
    from allocator.model import Moment


Place = tuple[DeviceUuid, int]  # a GPU, and the memory slice that an instance on it begins at


class StepKind(StrEnum):
    """The steps of `allocator.mig`."""

    DESTROY = "destroy"
    CREATE = "create"
    SET_MODE = "set_mode"


class StepState(StrEnum):
    """INTENDED is the only state in which something may be half done."""

    INTENDED = "intended"
    DONE = "done"
    FAILED = "failed"  # NVML refused it; nothing was changed
    ABANDONED = "abandoned"  # found not begun after a crash; the next apply plans anew


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One step. `instance` is known for what is destroyed, `start` for what is created, `enabled` for a change of mode.

    devices: MIG devices that nobody may lease while it is INTENDED, or DONE and not in the CDI spec.
    """

    number: int = 0  # given by the ledger
    kind: StepKind
    gpu: DeviceUuid
    profile: str = ""
    instance: int | None = None
    start: int | None = None
    enabled: bool | None = None
    devices: tuple[DeviceUuid, ...] = ()
    state: StepState = StepState.INTENDED
    who: str
    why: str = ""

    @property
    def place(self) -> Place | None:
        """Where it makes an instance, whose devices are withheld like `devices`; None: it makes none."""
        if self.kind is not StepKind.CREATE or self.start is None:
            return None
        return self.gpu, self.start


class MigJournal:
    """The table `mig_steps`. Every method is one transaction. Raises from all: LedgerUnavailable."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def intend(self, entry: Entry, now: Moment) -> int:
        """Returns: the number under which its end is written. Durable when this returns."""
        with self._ledger.transaction() as base:
            done = base.execute(
                "INSERT INTO mig_steps (kind, gpu, profile, instance, start, enabled, devices, state, who, why, utc, boottime_ms,"
                " boot_id, in_spec) VALUES (?, ?, ?, ?, ?, ?, ?, 'intended', ?, ?, ?, ?, ?, 0)",
                (
                    *(entry.kind, entry.gpu, entry.profile, entry.instance, entry.start, entry.enabled),
                    *(" ".join(entry.devices), entry.who, entry.why, now.utc, now.boottime_ms, now.boot_id),
                ),
            )
            return int(done.lastrowid or 0)

    def end(self, number: int, state: StepState, why: str = "") -> None:
        """Write how it ended.

        A destroyed instance's devices count as gone: a UUID that comes back is a new generation, and no boot makes it again.
        """
        with self._ledger.transaction() as base:
            base.execute("UPDATE mig_steps SET state = ?, why = ? WHERE number = ?", (state, why, number))
            if state is StepState.DONE:
                rows = base.execute(
                    "SELECT devices FROM mig_steps WHERE number = ? AND kind = 'destroy'", (number,)
                )
                gone = [(uuid,) for (text,) in rows.fetchall() for uuid in text.split()]
                base.executemany("UPDATE devices SET present = 0 WHERE uuid = ?", gone)
                base.execute(
                    "DELETE FROM mig_instances WHERE (gpu, start) IN"
                    " (SELECT gpu, start FROM mig_steps WHERE number = ? AND kind = 'destroy')",
                    (number,),
                )

    def unfinished(self) -> tuple[Entry, ...]:
        """Steps that a crash may have cut short, oldest first."""
        return self._select("WHERE state = 'intended'")

    def unwritten(self) -> tuple[Entry, ...]:
        """Steps that were done and that the CDI spec does not show yet, oldest first."""
        return self._select("WHERE state = 'done' AND in_spec = 0")

    def wrote_spec(self) -> None:
        """The CDI spec was written, and shows every step that was done."""
        with self._ledger.transaction() as base:
            base.execute("UPDATE mig_steps SET in_spec = 1 WHERE state = 'done' AND in_spec = 0")

    def last(self, count: int) -> tuple[Entry, ...]:
        """The latest steps, oldest first."""
        return self._select("WHERE number > (SELECT coalesce(max(number), 0) FROM mig_steps) - ?", count)

    def _select(self, condition: str, *values: object) -> tuple[Entry, ...]:
        rows = self._ledger.read(
            "SELECT number, kind, gpu, profile, instance, start, enabled, devices, state, who, why"  # noqa: S608  constants
            f" FROM mig_steps {condition} ORDER BY number",
            *values,
        )
        return tuple(
            Entry(
                number=number,
                kind=StepKind(kind),
                gpu=DeviceUuid(gpu),
                profile=profile,
                instance=instance,
                start=start,
                enabled=None if enabled is None else bool(enabled),
                devices=tuple(map(DeviceUuid, devices.split())),
                state=StepState(state),
                who=who,
                why=why,
            )
            for number, kind, gpu, profile, instance, start, enabled, devices, state, who, why in rows
        )
