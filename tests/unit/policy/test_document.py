"""Policy files: what is read, and every way in which they can be wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from policy.document import PolicyInvalid, parse
from policy.grants import Role

DEFAULT = Path(__file__).parents[3] / "packaging" / "policy.yaml"


def mistakes(text: str) -> list[str]:
    with pytest.raises(PolicyInvalid) as raised:
        parse(text)
    return [str(mistake) for mistake in raised.value.mistakes]


def test_the_default_policy_is_valid() -> None:
    """What we ship loads, and lets every account in as a user."""
    assert parse(DEFAULT.read_text()).defaults.role is Role.USER


def test_all_mistakes_come_at_once() -> None:
    """Each has its line and path, and an unknown key its nearest."""
    found = mistakes(
        "version: 1\ndefaults:\n  limits:\n    memroy: 1GiB\n    cpus: many\nusers:\n  bob: {rolle: user}\n"
    )
    assert found == [
        "policy.yaml:4: defaults.limits.memroy: unknown key; did you mean memory?",
        "policy.yaml:5: defaults.limits.cpus: must be a number of CPUs of at least 0.01, like 8 or 0.5",
        "policy.yaml:7: users.bob.rolle: unknown key; did you mean role?",
    ]


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "empty"),
        ("a: [", "not YAML"),
        ("version: 2", "must be 1"),
        ("defaults: {role: user}", "version"),
        ("version: 1\nversion: 1", "twice"),
        ("version: 1\nusers: {no: {role: user}}", "quotes"),
        ("version: 1\nusers: &a {x: *a}", "anchors"),
        ("version: 1\nusers: !!python/object:os.system {}", "tags"),
        ("version: 1\nx: " + "[" * 50 + "]" * 50, "deep"),
        ("version: 1\ndefaults: {allow: {binds: [{path: /}]}}", "system's own"),
        ("version: 1\ndefaults: {allow: {binds: [{path: /var}]}}", "system's own"),
        ("version: 1\ndefaults: {allow: {capabilities: [SYS_ADMIN]}}", "never"),
        ("version: 1\ndefaults: {allow: {devices: [/dev/nvidia0]}}", "GPU"),
        ("version: 1\ndefaults: {allow: {networks: [bridge]}}", "root has made"),
        ("version: 1\ndefaults: {allow: {default_network: bridge}}", "own, shared"),
        ("version: 1\ndefaults: {allow: {host_network: never}}", "drop, deny"),
        ("version: 1\ndefaults: {allow: {subnets: [172.16.0.1/12]}}", "subnet"),
        ('version: 1\ndefaults: {allow: {fetch_hosts: ["http://x/"]}}', "host"),
        ('version: 1\ndefaults: {allow: {fetch_hosts: ["*.x.org"]}}', "host"),
        ("version: 1\ndefaults: {limits: {memory: 16}}", "size"),
        ("version: 1\ndefaults: {limits: {gpus: -1}}", "whole number"),
        ("version: 1\ndefaults: {limits: {gpus: true}}", "whole number"),
        ("version: 1\ngroups: {a: {role: user}}", "nobody"),
        ("version: 1\ngroups: {a: {members: [x], share: {containers: all}}}", "none, view, use"),
        ("version: 1\ngroups: {a: {members: [x], share: {container: view}}}", "did you mean containers?"),
        ("version: 1\ngroups: {a: {members: [x], shares: {containers: view}}}", "did you mean share?"),
        ("version: 1\ngroups: {a: {members: [x], share: view}}", "must be a block"),
        ("version: 1\nusers: {a: {share: {containers: view}}}", "users.a.share: unknown key"),
        ("version: 1\ndefaults: {share: {containers: view}}", "defaults.share: unknown key"),
        ("version: 1\n--- \nversion: 1", "not YAML"),
        ("version: 1\x00", "not YAML"),
    ],
)
def test_each_mistake_is_said(text: str, part: str) -> None:
    """One wrong thing, one message that says it."""
    assert part in "\n".join(mistakes(text))


def test_several_files_are_one_policy() -> None:
    """Groups and users may be spread; the same one twice is a mistake."""
    found = parse(
        {"policy.yaml": "version: 1\nusers: {a: {role: user}}", "b.yaml": "users: {b: {role: none}}"}
    )
    assert sorted(found.users) == ["a", "b"]
    with pytest.raises(PolicyInvalid, match=r"b.yaml:1: users.a: also in policy.yaml"):
        parse({"policy.yaml": "version: 1\nusers: {a: {role: user}}", "b.yaml": "users: {a: {role: none}}"})
