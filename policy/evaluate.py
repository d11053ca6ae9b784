"""Ask every rule that applies; deny wins, silence denies, a rule that raises denies.

`evaluate` is the proxy's question, with facts. `check` is the plugin's second look at what the proxy wrote.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from policy import gpus
from policy.ask import Ask, Finding, Missing, Permit, Rule
from policy.compile import Policy
from policy.dockerapi.model import Operation, Request
from policy.dockerapi.sources import with_stand_ins, without_stand_ins
from policy.fields import as_object, as_text, shown
from policy.model import (
    PLAIN_RUNTIME,
    Actor,
    Decision,
    Effect,
    Facts,
    JoinOwnNetwork,
    Obligation,
    Reason,
    Reference,
    SealLabels,
    SetField,
    SetHeader,
    SetQuery,
)
from policy.obligations import get
from policy.ownership import LABELS, LEASE, OWNER, SEAL, SEALED, UID, is_reserved_label
from policy.rules import RULES
from policy.stand_ins import StandIns

RulesByOperation = Mapping[Operation, tuple[Rule, ...]]


def by_operation(rules: Iterable[Rule]) -> RulesByOperation:
    """Index rules, so that a ping pays only for the rules that look at a ping."""
    rules = tuple(rules)
    return {op: tuple(rule for rule in rules if op in rule.operations) for op in Operation}


_BY_OPERATION = by_operation(RULES)


def evaluate(policy: Policy, actor: Actor, request: Request, facts: Facts) -> Decision:
    """Decide one request. Never raises."""
    ask = Ask(grants=policy.for_actor(actor), actor=actor, request=request, facts=facts)
    return combine(_BY_OPERATION[request.operation], ask)


def combine(rules: Sequence[Rule], ask: Ask) -> Decision:
    """Deny if any rule gives a reason or raises; else not visible if any misses; else allow if any permits."""
    reasons: set[Reason] = set()
    missing: list[Reference] = []
    obligations: list[Obligation] = []
    permitted = False
    for rule in rules:
        for finding in _findings(rule, ask):
            match finding:
                case Permit():
                    permitted = True
                case Reason():
                    reasons.add(finding)
                case Missing(reference=reference):
                    missing.append(reference)
                case _:
                    if finding not in obligations:
                        obligations.append(finding)
    if reasons:
        return Decision(effect=Effect.DENY, reasons=tuple(sorted(reasons, key=_reason_key)))
    if missing:
        first = min(missing, key=lambda reference: (reference.kind, reference.text))
        return Decision(effect=Effect.NOT_VISIBLE, missing=first)
    if not permitted:
        return Decision(effect=Effect.DENY, reasons=(_silence(ask),))
    return Decision(effect=Effect.ALLOW, obligations=tuple(obligations))


def _findings(rule: Rule, ask: Ask) -> tuple[Finding, ...]:
    if rule.needs_facts and ask.facts is None:
        return ()
    try:
        return tuple(rule.decide(ask))
    except Exception:  # noqa: BLE001  SECURITY: a rule that breaks must deny, whatever broke it
        return (
            Reason(
                rule=rule.id,
                field=ask.request.operation,
                asked="a request this rule cannot read",
                limit="requests every rule can read",
                next_step="tell the admin, naming this rule",
            ),
        )


def _silence(ask: Ask) -> Reason:
    return Reason(
        rule="operation",
        field=ask.request.operation,
        asked="this call",
        limit="calls that a rule permits",
        next_step="ask the admin if you need it",
    )


def _reason_key(reason: Reason) -> tuple[str, str, str, str]:
    return (reason.rule, reason.field, reason.asked, reason.limit)


def check(
    policy: Policy,
    actor: Actor,
    request: Request,
    *,
    leases: tuple[str, ...],
    runtime: str = PLAIN_RUNTIME,
    stand_ins: StandIns | None = None,
) -> tuple[Reason, ...]:
    """What is wrong with a request that claims to be rewritten; empty if nothing is.

    INVARIANT: rewriting is a fixpoint, so an obligation that would still change the request is a reason to refuse.
    Args: leases: lease ids named by the stamp. runtime: what a create must name on this engine.
        stand_ins: what a create must name instead of host paths, if anything.
    """
    told = request
    if stand_ins is not None and request.operation is Operation.CONTAINER_CREATE:
        request = without_stand_ins(request, stand_ins)
    ask = Ask(grants=policy.for_actor(actor), actor=actor, request=request, facts=None)
    found: list[Reason] = []
    permitted = False
    for rule in _BY_OPERATION[request.operation]:
        for finding in _findings(rule, ask):
            match finding:
                case Permit():
                    permitted = True
                case Reason():
                    found.append(finding)
                case SetField() | SetQuery() | SetHeader() | SealLabels():
                    found.extend(_undone(rule, ask, finding))
                case JoinOwnNetwork():
                    found.append(_not_rewritten(rule.id, "NetworkMode", "the default network"))
                case _:
                    pass
    if not permitted and not found:
        found.append(_silence(ask))
    if request.operation is Operation.CONTAINER_CREATE:
        found.extend(_check_create(request, leases, runtime))
        if stand_ins is not None:
            found.extend(_check_told(ask, told, stand_ins))
    return tuple(dict.fromkeys(found))


def _undone(
    rule: Rule, ask: Ask, obligation: SetField | SetQuery | SetHeader | SealLabels
) -> Iterable[Reason]:
    """A reason, if carrying out the obligation would change the request."""
    body = ask.body
    match obligation:
        case SetField(path=("Env",)) | SetField(path=("HostConfig", "Runtime" | "DeviceRequests")):
            return  # written by the grant; _check_create looks at it whole
        case SetField(path=path, value=value):
            now, done = get(body, path), (get(body, path) or None) == (value or None)
            field = ".".join(path)
        case SetQuery(key=key, values=values):
            now, done, field = (
                list(ask.request.query.get(key, ())),
                ask.request.query.get(key, ()) == values,
                key,
            )
        case SetHeader(name=name, value=value):
            now, done, field = ask.request.headers.get(name), ask.request.headers.get(name, "") == value, name
        case SealLabels(path=()):
            return  # labels of a built image prove nothing: images are owned by record
        case SealLabels(path=path):
            yield from _check_labels(ask, path)
            return
    if not done:
        yield _not_rewritten(rule.id, field, now)


def _check_labels(ask: Ask, path: tuple[str, ...]) -> Iterable[Reason]:
    labels = as_object(get(ask.body, path))
    field = ".".join(path)
    expected = {OWNER: ask.actor.name, UID: str(ask.actor.uid)}
    for key, value in expected.items():
        if labels.get(key) != value:
            yield _not_rewritten("labels", f"{field}.{key}", labels.get(key))
    for key in (*SEALED, SEAL):
        # Absent labels would be taken from the image.
        if key not in labels:
            yield _not_rewritten("labels", f"{field}.{key}", None)
    for key in labels:
        if is_reserved_label(key) and key not in LABELS:
            yield _not_rewritten("labels", f"{field}.{shown(key)}", labels[key])


def _check_create(request: Request, leases: tuple[str, ...], runtime: str) -> Iterable[Reason]:
    """The invariants of a create that no single rule states: an explicit HostConfig, and GPUs only under a lease."""
    body = request.body or {}
    if not isinstance(body.get("HostConfig"), Mapping):
        yield _not_rewritten("gpu", "HostConfig", None)
        return
    if (runs := as_text(as_object(body["HostConfig"]).get("Runtime"))) != runtime:
        yield _not_rewritten("runtime", "HostConfig.Runtime", runs)
        return
    named = as_text(as_object(body.get("Labels")).get(LEASE))
    if gpus.is_ungranted(body, runtime=runtime):
        if named:
            yield _not_rewritten("gpu", f"Labels.{LEASE}", named)
    elif gpus.granted_devices(body, runtime=runtime) is None:
        yield _not_rewritten(
            "gpu", "HostConfig.DeviceRequests", as_object(body["HostConfig"]).get("DeviceRequests")
        )
    elif not leases or named not in leases:
        yield _not_rewritten("gpu", f"Labels.{LEASE}", named)


def _check_told(ask: Ask, told: Request, stand_ins: StandIns) -> Iterable[Reason]:
    """Every host path stands in for itself, as this actor's, and as it is mounted; no other path reaches dockerd."""
    socket = ask.grants.user_socket
    if with_stand_ins(ask.request, stand_ins, uid=ask.actor.uid, user_socket=socket) != told:
        yield _not_rewritten("mounts", "HostConfig.Binds", "a host path itself")


def _not_rewritten(rule: str, field: str, now: object) -> Reason:
    return Reason(
        rule=rule,
        field=field,
        asked=shown(now),
        limit="the form that ds01 writes",
        next_step="use your ds01 socket and not the engine's own",
    )
