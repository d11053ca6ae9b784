"""Every spelling of a GPU wish becomes one lease; without a wish the container sees no GPU, whatever its image says."""

from __future__ import annotations

from collections.abc import Iterable

from policy import gpus
from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_strings
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
    limits = ask.grants.limits
    number = wish.count or len(wish.device_ids)
    if number > limits.gpus:
        yield Reason(
            rule=RULE_ID,
            field="HostConfig.DeviceRequests",
            asked=f"{number} GPUs",
            limit=f"{limits.gpus} for {ask.grants.label}",
            next_step=f"try --gpus {limits.gpus}" if limits.gpus else "ask the admin for GPU access",
        )
        return
    yield LeaseGpus(
        count=wish.count,
        device_ids=wish.device_ids,
        limit=limits.gpus,
        wait_seconds=limits.wait_seconds,
        capabilities=wish.capabilities,
    )
