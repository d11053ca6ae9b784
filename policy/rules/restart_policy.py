"""A restart policy starts containers with no API call, so its retries are bounded, and GPUs are never restarted so."""

from __future__ import annotations

from collections.abc import Iterable

from policy import gpus
from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_int, as_object, as_text, shown
from policy.model import Json, Kind, Reason, SetField

RULE_ID = "restart_policy"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.CONTAINER_UPDATE})
NEEDS_FACTS = False

NO: dict[str, Json] = {"Name": "no"}


def decide(ask: Ask) -> Iterable[Finding]:
    """`always` and `unless-stopped` become a bounded number of retries; those with GPUs become `no`."""
    creating = ask.request.operation is Operation.CONTAINER_CREATE
    asked = as_object((ask.host_config if creating else ask.body).get("RestartPolicy"))
    path = ("HostConfig", "RestartPolicy") if creating else ("RestartPolicy",)
    name, retries = as_text(asked.get("Name")), as_int(asked.get("MaximumRetryCount"))
    if name not in {"", "no", "always", "unless-stopped", "on-failure"}:
        yield Reason(
            rule=RULE_ID,
            field=".".join(path),
            asked=shown(name),
            limit="no, on-failure, always or unless-stopped",
            next_step="leave out --restart",
        )
    elif name in {"", "no"}:
        if creating:
            yield SetField(path=path, value=NO)
    elif _has_gpus(ask, creating=creating):
        yield SetField(
            path=path, value=NO, note="RestartPolicy set to no: containers with GPUs start only when asked"
        )
    else:
        yield from _bounded(ask, path, name, retries)


def _has_gpus(ask: Ask, *, creating: bool) -> bool:
    if creating:
        return gpus.read_wish(ask.body, gpus_default=1) is not None
    objects = ask.facts.objects.values() if ask.facts else ()
    return any(fact is not None and fact.kind is Kind.CONTAINER and fact.lease for fact in objects)


def _bounded(ask: Ask, path: tuple[str, ...], name: str, retries: int) -> Iterable[Finding]:
    most = ask.grants.limits.restarts
    if most == 0:
        yield SetField(path=path, value=NO, note="RestartPolicy set to no, as policy has it")
        return
    count = retries if name == "on-failure" and 0 < retries <= most else most
    note = "" if name == "on-failure" and retries == count else f"RestartPolicy set to on-failure:{count}"
    yield SetField(path=path, value={"Name": "on-failure", "MaximumRetryCount": count}, note=note)
