"""The networks this machine is in, from the kernel's tables."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from host.routes import routed

IPV4 = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0101A8C0\t0003\t0\t0\t100\t00000000\t0\t0\t0
eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0
eth0\t0000FEA9\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
"""
IPV6 = """00000000000000000000000000000000 00 00000000000000000000000000000000 00 fe80 00000064 1 0 00000003 eth0
fd000000000000000000000000000000 40 00000000000000000000000000000000 00 :: 00000100 1 0 00000001 eth0
fe800000000000000000000000000000 40 00000000000000000000000000000000 00 :: 00000100 1 0 00000001 eth0
00000000000000000000000000000001 80 00000000000000000000000000000000 00 :: 00000000 3 0 80200001 lo
"""


def test_networks_with_a_route_of_their_own(tmp_path: Path) -> None:
    """Neither default routes nor what every machine has: loopback and link-local."""
    (tmp_path / "4").write_text(IPV4)
    (tmp_path / "6").write_text(IPV6)
    lan, own = ipaddress.ip_network("192.168.1.0/24"), ipaddress.ip_network("fd00::/64")
    assert routed(tmp_path / "4", tmp_path / "6") == {lan, own}
    assert routed(tmp_path / "4", tmp_path / "none") == {lan}


def test_this_machine() -> None:
    """The kernel's own files are read."""
    assert all(network.prefixlen for network in routed())
