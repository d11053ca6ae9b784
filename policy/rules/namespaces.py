"""Containers share no namespace with the host: process ids, IPC, host name and users."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_int, as_text, shown, size_text
from policy.grants import Handling
from policy.model import Reason, SetField

RULE_ID = "namespaces"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

IPC_MODE = ("HostConfig", "IpcMode")


def decide(ask: Ask) -> Iterable[Finding]:
    """`container:X` passes here; that X is the actor's own is the ownership rule's to say."""
    host = ask.host_config
    pid = as_text(host.get("PidMode"))
    if pid and not _is_container(pid):
        yield _refused("PidMode", pid, "private or container:NAME", "leave out --pid")
    for name in ("UTSMode", "UsernsMode"):
        if as_text(host.get(name)):
            yield _refused(name, as_text(host[name]), "private", f"leave out {name}")
    yield from _ipc(ask)


def _ipc(ask: Ask) -> Iterable[Finding]:
    """Private unless shared among own containers; the host's becomes private with much shared memory."""
    limit = ask.grants.limits.shm_bytes
    mode, shm = as_text(ask.host_config.get("IpcMode")), as_int(ask.host_config.get("ShmSize"))
    note = f"ShmSize lowered to {size_text(limit)}, the limit of {ask.grants.label}" if shm > limit else ""
    if mode == "host" and ask.grants.ipc_host is Handling.DENY:
        yield _refused("IpcMode", mode, "private", f"use --shm-size {size_text(limit)}")
    elif mode == "host":
        told = f"--ipc=host replaced by private shared memory of {size_text(limit)}"
        yield SetField(path=IPC_MODE, value="private", note=told)
        yield SetField(path=("HostConfig", "ShmSize"), value=limit)
    elif _is_container(mode):
        return  # shared memory belongs to the container that is joined
    elif mode in {"", "private", "shareable", "none"}:
        yield SetField(path=IPC_MODE, value=mode or "private")
        yield SetField(path=("HostConfig", "ShmSize"), value=shm if 0 < shm <= limit else limit, note=note)
    else:
        yield _refused("IpcMode", mode, "private, shareable, none or container:NAME", "leave out --ipc")


def _is_container(mode: str) -> bool:
    return mode.startswith("container:") and len(mode) > len("container:")


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
