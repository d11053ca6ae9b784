"""What networks this machine is in, as the kernel routes: a container network in one of them would take its traffic."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_IPV4, _IPV6 = Path("/proc/net/route"), Path("/proc/net/ipv6_route")


def routed(ipv4: Path = _IPV4, ipv6: Path = _IPV6) -> frozenset[Network]:
    """Every network with a route of its own; default routes are none. Raises: OSError. SOURCE: proc(5)."""
    found = (*_ipv4(ipv4.read_text()), *(_ipv6(ipv6.read_text()) if ipv6.exists() else ()))
    return frozenset(network for network in found if network.prefixlen and not _is_of_every_machine(network))


def _is_of_every_machine(network: Network) -> bool:
    return network.is_link_local or network.is_multicast or network.is_loopback


def _ipv4(text: str) -> Iterator[Network]:
    """Interface, destination and mask stand in columns 1, 2 and 8; numbers are in the machine's own byte order."""
    for line in text.splitlines()[1:]:
        columns = line.split()
        destination, mask = (socket.inet_ntoa(struct.pack("=I", int(columns[at], 16))) for at in (1, 7))
        yield ipaddress.IPv4Network((destination, mask))


def _ipv6(text: str) -> Iterator[Network]:
    """Destination and length of the prefix come first, in hexadecimal; the interface last."""
    for line in text.splitlines():
        destination, length, *_ = line.split()
        yield ipaddress.IPv6Network((bytes.fromhex(destination), int(length, 16)))
