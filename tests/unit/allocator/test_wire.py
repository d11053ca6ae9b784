"""Reading the NVML process's answers: whole, or not at all."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from allocator.model import DeviceState, InventoryUnavailable, Link, Problem
from allocator.readings import Measures
from allocator.wire import is_last, parse, unanswered
from tests.fakes.fake_nvml import gpu, snapshot

GPU = {
    "uuid": "GPU-1",
    "kind": "gpu",
    "index": "0",
    "profile": "A100",
    "memory_mib": None,
    "processes": None,
    "state": "ok",
}


def test_unknown_stays_unknown() -> None:
    """Memory and processes that NVML does not tell are None."""
    (device,) = parse(json.dumps({"devices": [GPU]}).encode()).devices.values()
    assert (device.memory_mib, device.processes, device.state) == (None, None, DeviceState.OK)


@pytest.mark.parametrize(
    "line",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"[]", id="no object"),
        pytest.param(b'{"devices": [{}]}', id="no fields"),
        pytest.param(json.dumps({"devices": [GPU | {"state": "fine"}]}).encode(), id="unknown state"),
        pytest.param(json.dumps({"devices": [GPU, GPU]}).encode(), id="one UUID twice"),
        pytest.param(b'{"problem": "Driver Not Loaded", "code": 9}', id="says so"),
        pytest.param(b'{"problem": "Driver Not Loaded"}', id="says half of it"),
        pytest.param(json.dumps({"devices": [GPU | {"processes": [[1]]}]}).encode(), id="half a process"),
        pytest.param(json.dumps({"devices": [GPU | {"measures": {"ecc": [1]}}]}).encode(), id="half a count"),
        pytest.param(
            json.dumps({"devices": [GPU | {"measures": {"speed": 1}}]}).encode(), id="unknown measure"
        ),
        pytest.param(json.dumps({"devices": [], "events": [{"gpu": "x"}]}).encode(), id="half an event"),
        pytest.param(json.dumps({"devices": [], "unidentified": []}).encode(), id="wrong form"),
    ],
)
def test_an_unreadable_answer_is_an_outage(line: bytes) -> None:
    """Nothing is guessed from half an answer."""
    with pytest.raises(InventoryUnavailable):
        parse(line)


@pytest.mark.parametrize(
    ("pair", "link"),
    [
        ({"level": 50, "nvlink": True}, Link.NVLINK),
        ({"level": 0, "nvlink": True}, Link.INTERNAL),
        ({"level": 40, "nvlink": False}, Link.NODE),
        ({"level": 10, "nvlink": None}, Link.SINGLE),
        ({"level": None, "nvlink": True}, Link.NVLINK),
    ],
)
def test_the_nearest_link_counts(pair: dict[str, object], link: Link) -> None:
    """NVLink goes before what PCIe says; the pair is sorted."""
    said = {"devices": [], "pairs": [pair | {"gpus": ["GPU-2", "GPU-1"]}]}
    assert parse(json.dumps(said).encode()).links == {("GPU-1", "GPU-2"): link}


def test_a_pair_of_which_nothing_is_known_is_left_out() -> None:
    """Unknown is no distance."""
    said = {"devices": [], "pairs": [{"gpus": ["GPU-2", "GPU-1"], "level": None, "nvlink": None}]}
    assert parse(json.dumps(said).encode()).links is None


@pytest.mark.parametrize(
    ("code", "complete"), [(15, True), (None, False), (999, False), (16, False)], ids=str
)
def test_only_a_lost_gpu_is_known_to_be_gone(code: int | None, complete: bool) -> None:
    """One that did not answer, or with another error, may have the devices that are missing."""
    said = {"devices": [], "unidentified": {"3": code}}
    read = parse(json.dumps(said).encode())
    assert (read.complete, list(read.unidentified)) == (complete, ["3"])


@pytest.mark.parametrize(
    ("line", "last"),
    [(b'{"ends": true}', True), (b'{"ends": false}', False), (b"{}", False), (b"[]", False), (b"x", False)],
)
def test_a_child_says_that_it_ends(line: bytes, last: bool) -> None:
    """Only by a plain yes."""
    assert is_last(line) is last


def test_devices_that_nobody_answers_for_are_not_free() -> None:
    """Nothing measured is left of them; what was lost or in quarantine stays so."""
    lost, bad = gpu(1, state=DeviceState.LOST), gpu(2, state=DeviceState.QUARANTINED, remark="XID 79")
    used = gpu(0, pids=(7,), measures=Measures(utilisation_percent=3.0))
    after = unanswered(snapshot(used, lost, bad), "no answer")
    (first, second, third) = after.devices.values()
    assert (first.state, first.pids, first.measures) == (DeviceState.UNRESPONSIVE, None, Measures())
    assert (second.state, third.state, third.remark) == (DeviceState.LOST, DeviceState.QUARANTINED, "XID 79")
    assert not after.complete
    assert replace(first, state=DeviceState.OK).uuid == used.uuid


def test_an_outage_keeps_its_kind() -> None:
    """By the code of NVML."""
    with pytest.raises(InventoryUnavailable) as caught:
        parse(b'{"problem": "Driver/library version mismatch", "code": 18, "ends": true}')
    assert caught.value.problem is Problem.MISMATCH
