"""Prune reports that ds01 builds have dockerd's form."""

from __future__ import annotations

from policy.dockerapi.responses import build_prune, container_prune, image_prune, network_prune, volume_prune


def test_prune_reports_list_what_was_removed() -> None:
    """Each kind lists its objects and the bytes reclaimed under the Engine API's keys."""
    assert container_prune(["a"], reclaimed_bytes=5) == b'{"ContainersDeleted":["a"],"SpaceReclaimed":5}'
    assert image_prune(["x:1"], ["sha256:1"], reclaimed_bytes=2) == (
        b'{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:1"}],"SpaceReclaimed":2}'
    )
    assert network_prune(["n"]) == b'{"NetworksDeleted":["n"]}'
    assert volume_prune(["v"], reclaimed_bytes=1) == b'{"VolumesDeleted":["v"],"SpaceReclaimed":1}'


def test_prune_of_nothing_says_so() -> None:
    """Nothing removed is null, for volumes an empty list, as dockerd says it."""
    assert container_prune([]) == b'{"ContainersDeleted":null,"SpaceReclaimed":0}'
    assert image_prune([], []) == b'{"ImagesDeleted":null,"SpaceReclaimed":0}'
    assert network_prune([]) == b'{"NetworksDeleted":null}'
    assert volume_prune([]) == b'{"VolumesDeleted":[],"SpaceReclaimed":0}'
    assert build_prune() == b'{"CachesDeleted":null,"SpaceReclaimed":0}'
