"""The choice of addresses for the link to the lab."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lab.network import NetworkUnavailable, choose_pair

_INSIDE = st.builds(
    lambda place, length: IPv4Network((0x0AD60000 + place, length), strict=False),
    st.integers(0, 0xFFFF),
    st.integers(18, 32),
)


@given(used=st.lists(_INSIDE, max_size=8), seed=st.integers(0, 2**32 - 1))
def test_a_pair_touches_nothing_in_use(used: list[IPv4Network], seed: int) -> None:
    """Both ends lie in one /30 that overlaps no used network."""
    pair = choose_pair(used, seed=seed)
    network = IPv4Network((pair.host, 30), strict=False)
    assert {pair.host, pair.inner} == set(network.hosts())
    assert not any(network.overlaps(one) for one in used)


def test_a_default_route_uses_nothing() -> None:
    """0.0.0.0/0 overlaps everything and takes nothing."""
    assert choose_pair([IPv4Network("0.0.0.0/0")], seed=0) == choose_pair([], seed=0)


def test_a_full_range_moves_to_the_next() -> None:
    """When the first range is in use as a whole, the pair comes from the second."""
    pair = choose_pair([IPv4Network("10.214.0.0/16")], seed=7)
    assert pair.host in IPv4Network("10.96.0.0/12")


def test_no_room_is_said() -> None:
    """When all of 10/8 is in use there is no pair."""
    with pytest.raises(NetworkUnavailable, match="no free /30"):
        choose_pair([IPv4Network("10.0.0.0/8")], seed=0)
