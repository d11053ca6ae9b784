"""Which ports of the host a container may take, and on which address."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_bool, as_list, as_object, as_text, shown
from policy.model import Json, Reason, SetField

RULE_ID = "ports"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

PATH = ("HostConfig", "PortBindings")


def decide(ask: Ask) -> Iterable[Finding]:
    """Put policy's address where none is asked; refuse addresses and ports outside policy."""
    asked = as_object(ask.host_config.get("PortBindings"))
    written: dict[str, Json] = {}
    for port, bindings in asked.items():
        rows = [as_object(row) for row in as_list(bindings)]
        written[port] = [_addressed(ask, row) for row in rows]
        for row in rows:
            yield from _judge(ask, _addressed(ask, row))
    if written != asked:
        yield SetField(path=PATH, value=written)
    if as_bool(ask.host_config.get("PublishAllPorts")) and not _everywhere(ask):
        # The engine publishes these on every address, policy's own notwithstanding.
        yield _refused("PublishAllPorts", "true", "ports named one by one", "use -p 8888 and not -P")


def _addressed(ask: Ask, row: Mapping[str, Json]) -> dict[str, Json]:
    return {**row, "HostIp": as_text(row.get("HostIp")) or _default_address(ask)}


def _default_address(ask: Ask) -> str:
    """Loopback if policy lists it, else the first address it lists."""
    addresses = [one.host_ip for one in ask.grants.ports]
    return next((address for address in addresses if _is_loopback(address)), addresses[0])


def _judge(ask: Ask, row: Mapping[str, Json]) -> Iterable[Finding]:
    address, port = as_text(row.get("HostIp")), as_text(row.get("HostPort"))
    ranges = [one for one in ask.grants.ports if one.host_ip == _plain(address) or _is_loopback(address)]
    if not ranges:
        permitted = ", ".join(sorted({one.host_ip for one in ask.grants.ports}))
        yield _refused("PortBindings.HostIp", address, permitted, "leave out the address")
    numbers = _numbers(port)
    if numbers is None or not any(one.first <= numbers[0] and numbers[1] <= one.last for one in ranges):
        permitted = ", ".join(f"{one.first}-{one.last}" for one in ranges or ask.grants.ports)
        if port not in {"", "0"}:  # the engine picks a free one
            yield _refused("PortBindings.HostPort", port, permitted, "choose a port in that range, or none")


def _numbers(text: str) -> tuple[int, int] | None:
    first, _, last = text.partition("-")
    last = last or first
    if not all(part.isascii() and part.isdigit() and len(part) <= 5 for part in (first, last)):
        return None
    return int(first), int(last)


def _plain(address: str) -> str:
    try:
        return str(ipaddress.ip_address(address))
    except ValueError:
        return address


def _is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False


def _everywhere(ask: Ask) -> bool:
    return any(one.host_ip == "0.0.0.0" for one in ask.grants.ports)  # noqa: S104  compared, not bound


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID, field=f"HostConfig.{name}", asked=shown(asked), limit=limit, next_step=next_step
    )
