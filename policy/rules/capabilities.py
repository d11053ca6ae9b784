"""Linux capabilities beyond Docker's default set are policy's to give; MKNOD is taken from all."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_list, as_strings, shown
from policy.grants import Handling
from policy.model import Json, Reason, SetField

RULE_ID = "capabilities"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

# SOURCE: moby oci/caps/defaults.go, without MKNOD, which makes device nodes on bind mounts.
DEFAULT = frozenset(
    {
        "AUDIT_WRITE",
        "CHOWN",
        "DAC_OVERRIDE",
        "FOWNER",
        "FSETID",
        "KILL",
        "NET_BIND_SERVICE",
        "NET_RAW",
        "SETFCAP",
        "SETGID",
        "SETPCAP",
        "SETUID",
        "SYS_CHROOT",
    }
)
NEEDLESS = frozenset({"SYS_PTRACE"})  # the default seccomp profile permits ptrace since Linux 4.8


def decide(ask: Ask) -> Iterable[Finding]:
    """Keep what is granted, leave out what is needless, refuse the rest."""
    host = ask.host_config
    asked = as_strings(host.get("CapAdd"))
    refused = [name for name in asked if not _granted(ask, name)]
    dropped = [name for name in refused if _may_drop(ask, name)]
    for name in refused:
        if name not in dropped:
            yield _refused(
                "CapAdd", name, "the default set" + _also(ask), f"leave out --cap-add {shown(name)}"
            )
    if dropped:
        kept: list[Json] = [name for name in asked if name not in dropped]
        note = f"CapAdd {', '.join(dropped)} left out: tracing own processes works without it"
        yield SetField(path=("HostConfig", "CapAdd"), value=kept, note=note)
    if as_list(host.get("Capabilities")):
        yield _refused("Capabilities", shown(host["Capabilities"]), "CapAdd and CapDrop", "use --cap-drop")
    yield from _drop_mknod(ask, as_strings(host.get("CapDrop")))


def _drop_mknod(ask: Ask, dropped: list[str]) -> Iterable[Finding]:
    names = {_plain(name) for name in dropped}
    if not names & {"MKNOD", "ALL"} and "MKNOD" not in ask.grants.capabilities:
        yield SetField(path=("HostConfig", "CapDrop"), value=[*dropped, "MKNOD"])


def _plain(name: str) -> str:
    return name.upper().removeprefix("CAP_")


def _granted(ask: Ask, name: str) -> bool:
    return _plain(name) in DEFAULT or _plain(name) in ask.grants.capabilities


def _may_drop(ask: Ask, name: str) -> bool:
    return _plain(name) in NEEDLESS and ask.grants.security_opt is Handling.DROP


def _also(ask: Ask) -> str:
    names = sorted(ask.grants.capabilities)
    return f" and {', '.join(names)}" if names else ""


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
