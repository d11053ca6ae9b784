"""What policy files say about GPUs for containers."""

from __future__ import annotations

from fractions import Fraction

import pytest

from allocator.json_values import fraction_of
from policy.build import build_policy
from policy.document import PolicyInvalid, parse


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("version: 1\ndefaults: {limits: {gpu_equivalents: 1.5.5}}", "3/7"),
        ("version: 1\ndefaults: {limits: {gpu_time: 0s}}", "more than nothing"),
        ("version: 1\ndefaults: {limits: {gpu_time: 3661d}}", "at most 3660d"),
        ("version: 1\ndefaults: {limits: {gpu_hold: 3661d}}", "at most 3660d"),
        ("version: 1\ndefaults: {limits: {wait: 2d}}", "limits.wait: must be at most 1d"),
        ("version: 1\ndefaults: {limits: {wait_most: 25h}}", "limits.wait_most: must be at most 1d"),
        ("version: 1\ngpu: {reservations: [{user: a, when: daily 10:00-11:00, lead: 8d}]}", "at most 7d"),
        (
            "version: 1\ngpu: {reservations: [{user: a, when: '" + "Mon," * 30 + "Tue 10:00-12:00'}]}",
            "at most 128 characters",
        ),
        (
            "version: 1\ngpu: {reservations: [" + "{user: a, when: daily 10:00-11:00}," * 1001 + "]}",
            "at most 1000",
        ),
        ("version: 1\ndefaults: {gpu: {classes: []}}", "at least one"),
        ("version: 1\ndefaults: {gpu: {time_over: kill}}", "must be one of report, stop"),
        ("version: 1\ndefaults: {gpu: {classes: [gpu, gpu]}}", "once"),
        ("version: 1\ndefaults: {gpu: {classes: [2g]}}", "2g is no class"),
        ("version: 1\ndefaults: {gpu: {group_gpus: 4}}", "defaults.gpu.group_gpus: unknown key"),
        ("version: 1\nusers: {a: {gpu: {wieght: 2}}}", "did you mean weight?"),
        ("version: 1\ngpu: {reservations: [{gpus: 1, when: daily 10:00-11:00}]}", "either for: a group"),
        ("version: 1\ngpu: {reservations: [{user: a}]}", "needs when"),
        ("version: 1\ngpu: {reservations: [{user: a, when: Tuesday 10-12}]}", "days and times"),
        ('version: 1\ngpu: {reservations: [{user: a, when: "Tue 10:00-12:00", profile: 2g}]}', "MIG profile"),
        (
            'version: 1\ngroups: {course: {members: [x]}}\ngpu: {reservations: [{for: curse, when: "Tue 10:00-12:00"}]}',
            "policy.yaml:3: gpu.reservations: there is no group curse; did you mean course?",
        ),
    ],
)
def test_each_mistake_is_said(text: str, part: str) -> None:
    """One wrong thing, one message that says it."""
    with pytest.raises(PolicyInvalid) as caught:
        parse(text)
    assert part in str(caught.value)


def test_gpu_keys_are_read() -> None:
    """Amounts exactly, times in seconds, and reservations of groups that another file has."""
    found = parse(
        {
            "policy.yaml": """
version: 1
defaults:
  limits: {gpu_equivalents: 3/7, gpus_per_container: unlimited, gpu_time: 1d, gpu_hold: 30m, wait_most: 2h}
  gpu: {classes: [mig, gpu], weight: 2, priority: 1}
gpu:
  reservations:
    - {for: course, gpus: 2, when: "Tue 10:00-12:00", profile: 1g.5gb, lead: 1h}
""",
            "policy.d/course.yaml": "groups: {course: {members: [x], gpu: {group_gpus: 4, group_equivalents: 1.5}}}",
        }
    )
    assert found.defaults.limits == {
        "gpu_equivalents": Fraction(3, 7),
        "gpus_per_container": -1,
        "gpu_seconds": 86400,
        "gpu_hold_seconds": 1800,
        "wait_most_seconds": 7200,
    }
    assert found.defaults.gpu == {"classes": ("mig", "gpu"), "weight": 2, "priority": 1}
    assert found.groups["course"].gpu == {"group_gpus": 4, "group_equivalents": Fraction(3, 2)}
    (item,) = found.reservations
    assert (item.group, item.gpus, item.profile, item.lead_seconds) == ("course", 2, "1g.5gb", 3600)


@pytest.mark.parametrize("text", ["0.143", "2.333", "9999.999", "3/7", "1/99", "0"])
def test_the_allocator_takes_every_number_of_whole_gpus(text: str) -> None:
    """As the proxy writes it; one that it did not take failed every create of its user."""
    policy = build_policy({"policy.yaml": f"version: 1\ndefaults: {{limits: {{gpu_equivalents: {text}}}}}\n"})
    limit = policy.document.defaults.limits["gpu_equivalents"]
    assert fraction_of(str(limit), "equivalents") == limit == Fraction(text)
