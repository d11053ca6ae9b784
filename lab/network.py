"""The lab's own network: a namespace by name, and one pair of interfaces to the host.

Inside, dockerd has bridges and packet filter to itself. The host reaches published ports at the inner address; there
is no way out to other machines.
"""

from __future__ import annotations

import ipaddress
import json
import subprocess
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from lab.tree import LabTree

NAMES = Path("/run/netns")
BRIDGE_ADDRESS = "10.212.0.1/24"
BRIDGE_POOL = "10.213.0.0/16"
_PAIRS = IPv4Network("10.214.0.0/16")  # the hosts' pairs are taken from here unless something uses it already
_FALLBACK = IPv4Network("10.96.0.0/12")


class NetworkUnavailable(Exception):  # noqa: N818  names the state
    """The namespace or the interfaces could not be made."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two ends of the link; `inner` is where published ports answer."""

    host: IPv4Address
    inner: IPv4Address


def choose_pair(used: Iterable[IPv4Network], *, seed: int) -> Pair:
    """The first /30 from place `seed` on that touches no used network. Raises: NetworkUnavailable."""
    taken = [network for network in used if network.prefixlen > 0]
    for pool in (_PAIRS, _FALLBACK):
        count = 1 << (30 - pool.prefixlen)
        for step in range(min(count, 16384)):
            start = int(pool.network_address) + 4 * ((seed + step) % count)
            candidate = IPv4Network((start, 30))
            if not any(candidate.overlaps(network) for network in taken):
                return Pair(host=candidate[1], inner=candidate[2])
    raise NetworkUnavailable("no free /30 in 10.214.0.0/16 or 10.96.0.0/12 for the link to the lab")


def up(tree: LabTree) -> Pair:
    """Make the namespace and the link. Raises: NetworkUnavailable."""
    pair = choose_pair(_used(), seed=int(tree.id, 16))
    _ip("netns", "add", tree.netns)
    _ip("link", "add", tree.link, "type", "veth", "peer", "name", "uplink", "netns", tree.netns)
    _ip("addr", "add", f"{pair.host}/30", "dev", tree.link)
    _ip("link", "set", tree.link, "up")
    _ip("-n", tree.netns, "addr", "add", f"{pair.inner}/30", "dev", "uplink")
    for inside in ("lo", "uplink"):
        _ip("-n", tree.netns, "link", "set", inside, "up")
    return pair


def down(tree: LabTree) -> None:
    """Take link and namespace away, whatever is left of them."""
    for command in (("link", "del", tree.link), ("netns", "del", tree.netns)):
        subprocess.run(["ip", *command], capture_output=True, check=False)


def iptables(tree: LabTree) -> str:
    """The packet filter that works here. Raises: NetworkUnavailable."""
    for program in ("iptables", "iptables-nft", "iptables-legacy"):
        command = ["ip", "netns", "exec", tree.netns, program, "-w", "-t", "nat", "-L", "-n"]
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            return program
    raise NetworkUnavailable(
        "neither iptables-nft nor iptables-legacy works in a network namespace of this kernel"
    )


def _used() -> list[IPv4Network]:
    routes = json.loads(_ip("-4", "-j", "route", "show", "table", "all") or "[]")
    targets = (route["dst"] for route in routes)
    return [ipaddress.IPv4Network(target, strict=False) for target in targets if target != "default"]


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise NetworkUnavailable(f"ip {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout
