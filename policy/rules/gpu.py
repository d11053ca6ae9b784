"""Every spelling of a GPU wish becomes one lease; without a wish the container sees no GPU, whatever its image says."""

from __future__ import annotations

from collections.abc import Iterable

from policy import gpus
from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_strings
from policy.grants import Limits
from policy.model import LeaseGpus, Reason, SetField

RULE_ID = "gpu"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Lease, refuse, or force `void`."""
    limits = ask.grants.limits
    wish = gpus.read_wish(ask.body, gpus_default=max(1, min(limits.gpus_default, limits.gpus)), rule=RULE_ID)
    match wish:
        case None:
            env = gpus.scrubbed_env(as_strings(ask.body.get("Env")))
            yield SetField(path=("Env",), value=env)
            yield SetField(path=("HostConfig", "DeviceRequests"), value=[])
        case Reason():
            yield wish
        case gpus.Wish():
            yield from _lease(ask, wish)


def _lease(ask: Ask, wish: gpus.Wish) -> Iterable[Finding]:
    limits, terms = ask.grants.limits, ask.grants.gpu
    reason = _over(ask, wish)
    if reason is not None:
        yield reason
        return
    yield LeaseGpus(
        count=wish.count,
        device_ids=wish.device_ids,
        profile=wish.profile,
        memory_mib=wish.memory_mib,
        classes=terms.classes,
        limit=limits.gpus,
        equivalents=None if limits.gpu_equivalents < 0 else limits.gpu_equivalents,
        groups=terms.groups,
        seconds=_shorter(wish.seconds, limits.gpu_seconds),
        hold_seconds=_shorter(None, limits.gpu_hold_seconds),
        wait_seconds=limits.wait_seconds if wish.wait_seconds is None else wish.wait_seconds,
        wait_most_seconds=_longest_wait(limits),
        weight=terms.weight,
        priority=terms.priority,
        capabilities=wish.capabilities,
    )


def _over(ask: Ask, wish: gpus.Wish) -> Reason | None:
    """What a wish asks above the policy's numbers, whatever is free."""
    limits = ask.grants.limits
    number = wish.count or len(wish.device_ids)
    per_container = limits.gpus if limits.gpus_per_container < 0 else limits.gpus_per_container
    most = min(limits.gpus, per_container)
    if number > most:
        return Reason(
            rule=RULE_ID,
            field="HostConfig.DeviceRequests",
            asked=f"{number} GPUs",
            limit=f"{most} for {ask.grants.label}",
            next_step=f"try --gpus {most}" if most else "ask the admin for GPU access",
        )
    longest = _longest_wait(limits)
    if wish.wait_seconds is not None and wish.wait_seconds > longest:
        return Reason(
            rule=RULE_ID,
            field=f"Labels.{gpus.WAIT_LABEL}",
            asked=f"{wish.wait_seconds}s",
            limit=f"{longest}s for {ask.grants.label}",
            next_step=f"write {gpus.WAIT_LABEL}={longest}s",
        )
    if wish.seconds is not None and 0 <= limits.gpu_seconds < wish.seconds:
        return Reason(
            rule=RULE_ID,
            field=f"Labels.{gpus.TIME_LABEL}",
            asked=f"{wish.seconds}s",
            limit=f"{limits.gpu_seconds}s for {ask.grants.label}",
            next_step=f"write {gpus.TIME_LABEL}={limits.gpu_seconds}s, or leave it out",
        )
    return None


def _longest_wait(limits: Limits) -> int:
    """How long a create may wait if it says so, in seconds: what is waited for unasked is never too long."""
    return max(limits.wait_seconds, limits.wait_most_seconds)


def _shorter(said: int | None, limit: int) -> int | None:
    """The time that counts; below 0 there is no limit."""
    if limit < 0:
        return said
    return limit if said is None else min(said, limit)
