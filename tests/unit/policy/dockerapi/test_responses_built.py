"""Prune reports and errors that ds01 builds have dockerd's form."""

from __future__ import annotations

import json

from policy.dockerapi.responses import (
    REAL_NAMES,
    build_prune,
    container_prune,
    error_line,
    image_delete,
    image_prune,
    network_prune,
    volume_prune,
)
from policy.model import Uid
from policy.names import ViewerNames


def test_prune_reports_list_what_was_removed() -> None:
    """Each kind lists its objects and the bytes reclaimed under the Engine API's keys."""
    assert container_prune(["a"], reclaimed_bytes=5) == b'{"ContainersDeleted":["a"],"SpaceReclaimed":5}'
    assert image_prune([{"Deleted": "sha256:1"}, {"Untagged": "x:1"}], REAL_NAMES, reclaimed_bytes=2) == (
        b'{"ImagesDeleted":[{"Untagged":"x:1"},{"Deleted":"sha256:1"}],"SpaceReclaimed":2}'
    )
    assert network_prune(["n"]) == b'{"NetworksDeleted":["n"]}'
    assert volume_prune(["v"], reclaimed_bytes=1) == b'{"VolumesDeleted":["v"],"SpaceReclaimed":1}'


def test_prune_of_nothing_says_so() -> None:
    """Nothing removed is null, for volumes an empty list, as dockerd says it."""
    assert container_prune([]) == b'{"ContainersDeleted":null,"SpaceReclaimed":0}'
    assert image_prune([], REAL_NAMES) == b'{"ImagesDeleted":null,"SpaceReclaimed":0}'
    assert network_prune([]) == b'{"NetworksDeleted":null}'
    assert volume_prune([]) == b'{"VolumesDeleted":[],"SpaceReclaimed":0}'
    assert build_prune() == b'{"CachesDeleted":null,"SpaceReclaimed":0}'


def test_removed_images_go_by_their_plain_names() -> None:
    """In the report of `docker rmi`, and in that of a prune."""
    report = [{"Untagged": "ds01.invalid/u1001/app:1"}, {"Deleted": "sha256:1"}]
    names = ViewerNames(Uid(1001))
    assert image_delete(report, names) == b'[{"Untagged":"app:1"},{"Deleted":"sha256:1"}]\n'
    assert b"app:1" in image_prune(report, names)
    assert b"ds01.invalid" not in image_prune(report, names)
    assert b"u1001" in image_delete(report, ViewerNames(Uid(1002)))


def test_an_error_in_a_stream_is_said_twice_as_dockerd_does() -> None:
    """Old clients read `error`, new ones `errorDetail`; one line."""
    line = error_line('no "x"\n')
    assert json.loads(line) == {"errorDetail": {"message": 'no "x"\n'}, "error": 'no "x"\n'}
    assert line.endswith(b"\r\n")
    assert line.count(b"\n") == 1
