"""NVML's error codes and what the allocator does about each: one table, which needs no NVML. SOURCE: nvml.h, nvmlReturn_t."""

from __future__ import annotations

from enum import StrEnum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from allocator.model import DeviceState, Problem

if TYPE_CHECKING:
    from collections.abc import Mapping


class Action(StrEnum):
    """What an error code asks for."""

    NOTHING = "nothing"  # no error
    RESTART = "restart"  # the session is gone: a new process
    UNKNOWN_VALUE = "unknown_value"  # record the value as unknown, never as 0
    CONFIGURE = "configure"  # not as root, or not in the host's namespaces: a person must mend it
    GAP = "gap"  # nothing at that place, or no longer: go on behind it
    RETRY = "retry"
    NO_GPUS = "no_gpus"  # go on without: refuse GPUs, leave everything else alone
    WAIT = "wait"  # normal for a wait for events
    LOST = "lost"  # off the bus: quarantine, alert, freeze what is granted
    DRAIN = "drain"  # no new lease until it was reset
    FREEZE = "freeze"  # the driver was upgraded beneath us: no new lease until the library matches
    IN_USE = "in_use"  # a destroy or a change of mode must wait
    CLASH = "clash"  # no room at that placement
    OLDER = "older"  # ask with the struct one version below
    COUNT = "count"  # again and again: quarantine


NOT_SUPPORTED: Final = 3
FUNCTION_NOT_FOUND: Final = 13
MISMATCH: Final = 18
UNKNOWN: Final = 999
ACTIONS: Final[Mapping[int, Action]] = MappingProxyType(
    {
        0: Action.NOTHING,
        1: Action.RESTART,
        2: Action.GAP,  # INVALID_ARGUMENT: of an index, or of a handle whose instance is gone
        NOT_SUPPORTED: Action.UNKNOWN_VALUE,
        4: Action.CONFIGURE,
        6: Action.GAP,
        7: Action.RETRY,
        9: Action.NO_GPUS,
        10: Action.WAIT,
        12: Action.NO_GPUS,
        FUNCTION_NOT_FOUND: Action.UNKNOWN_VALUE,
        15: Action.LOST,
        16: Action.DRAIN,
        MISMATCH: Action.FREEZE,
        19: Action.IN_USE,
        23: Action.CLASH,
        25: Action.OLDER,
        28: Action.GAP,
        UNKNOWN: Action.COUNT,
    }
)
_PROBLEMS: Final[Mapping[int, Problem]] = MappingProxyType(
    {
        4: Problem.NO_PERMISSION,
        9: Problem.NO_DRIVER,
        12: Problem.NO_LIBRARY,
        MISMATCH: Problem.MISMATCH,
    }
)
_STATES: Final[Mapping[Action, DeviceState]] = MappingProxyType(
    {Action.LOST: DeviceState.LOST, Action.DRAIN: DeviceState.DRAINING}
)
_MESSAGES: Final[Mapping[Problem, str]] = MappingProxyType(
    {
        Problem.NO_LIBRARY: "there is no libnvidia-ml.so.1; install the NVIDIA driver, if this server has GPUs",
        Problem.NO_DRIVER: "the NVIDIA driver is not loaded; load it, if this server has GPUs",
        Problem.MISMATCH: "the NVIDIA driver was upgraded beneath the running one; reboot, or reload it",
        Problem.NO_PERMISSION: "NVML refuses this process; run ds01-allocator as root on the host",
    }
)


def action(code: int) -> Action:
    """What to do about a code; one that is not in the table is counted, like an unknown error."""
    return ACTIONS.get(code, Action.COUNT)


def state(code: int) -> DeviceState:
    """The state of a GPU whose identity or processes could not be read for `code`: never one that is leased."""
    return _STATES.get(action(code), DeviceState.QUARANTINED)


def problem(code: int) -> Problem:
    """Which kind of outage it is when the whole of NVML answers `code`."""
    return _PROBLEMS.get(code, Problem.FAILED)


def message(code: int, text: str) -> str:
    """One sentence for the admin; `text` is NVML's own."""
    return _MESSAGES.get(problem(code), f"NVML: {text} (code {code})")
