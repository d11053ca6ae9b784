"""Seccomp, AppArmor, SELinux and the masked paths stay as the engine sets them."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_strings, shown
from policy.grants import Handling
from policy.model import Json, Reason, SetField

RULE_ID = "security_opt"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

KEPT = frozenset({"no-new-privileges", "no-new-privileges=true", "no-new-privileges:true"})
# Often written by templates, and most of what they run works without.
DROPPED = frozenset(
    f"{name}{sign}{value}"
    for name, value in (("seccomp", "unconfined"), ("apparmor", "unconfined"), ("label", "disable"))
    for sign in "=:"
)


def decide(ask: Ask) -> Iterable[Finding]:
    """Drop or refuse, as policy says; inline profiles and writable cgroups are always refused."""
    host = ask.host_config
    asked = as_strings(host.get("SecurityOpt"))
    dropping = ask.grants.security_opt is Handling.DROP
    for option in asked:
        if option not in KEPT and not (dropping and option in DROPPED):
            yield _refused("SecurityOpt", option, "no-new-privileges", "leave out --security-opt")
    kept: list[Json] = [option for option in asked if option in KEPT]
    if len(kept) < len(asked):
        left = ", ".join(shown(option) for option in asked if option not in KEPT)
        yield SetField(path=("HostConfig", "SecurityOpt"), value=kept, note=f"SecurityOpt {left} left out")
    for name in ("MaskedPaths", "ReadonlyPaths"):
        # SECURITY: absent means the engine's list; an empty list means that nothing is masked.
        if host.get(name) is not None and not dropping:
            yield _refused(
                name, shown(host[name]), "the engine's own list", "leave out systempaths=unconfined"
            )
        elif name in host:
            yield SetField(path=("HostConfig", name), value=None, note=f"{name} left as the engine sets it")


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
