"""What a rule is asked, and what it may answer.

A rule is a module under `policy.rules` with RULE_ID, OPERATIONS, NEEDS_FACTS and `decide`; `Rule` is the same
as a value, so that combining can be tested with stubs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from policy.dockerapi.model import Operation, Request
from policy.fields import as_object
from policy.grants import Grants
from policy.model import Actor, Facts, Json, Obligation, Reason, Reference


@dataclass(frozen=True, slots=True, kw_only=True)
class Permit:
    """The finding without which nothing is allowed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missing:
    """The request names something the actor cannot see."""

    reference: Reference


Finding = Permit | Missing | Reason | Obligation


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """One request with all a rule may look at. `facts` is None in the plugin's second look."""

    grants: Grants
    actor: Actor
    request: Request
    facts: Facts | None

    @property
    def body(self) -> Mapping[str, Json]:
        return self.request.body or {}

    @property
    def host_config(self) -> Mapping[str, Json]:
        return as_object(self.body.get("HostConfig"))


class RuleModule(Protocol):
    """The shape of a module under `policy.rules`."""

    @property
    def RULE_ID(self) -> str: ...  # noqa: N802  module constants are spelled so
    @property
    def OPERATIONS(self) -> frozenset[Operation]: ...  # noqa: N802  as above
    @property
    def NEEDS_FACTS(self) -> bool: ...  # noqa: N802  as above
    @property
    def decide(self) -> Callable[[Ask], Iterable[Finding]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule as a value."""

    id: str
    operations: frozenset[Operation]
    needs_facts: bool
    decide: Callable[[Ask], Iterable[Finding]]


def rule_of(module: RuleModule) -> Rule:
    """Read a rule off its module."""
    return Rule(
        id=module.RULE_ID,
        operations=module.OPERATIONS,
        needs_facts=module.NEEDS_FACTS,
        decide=module.decide,
    )
