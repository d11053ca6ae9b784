"""How defaults, groups and a user's own entry come together."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest

from policy.grants import DefaultNetwork, Handling, Role, TimeOver
from policy.model import GroupGpus, Share, Uid
from tests.fakes.policy_world import ALICE, policy

TWO = """
defaults: {role: user, limits: {gpus: 1, pids: 100}, allow: {capabilities: [SYS_NICE]}}
groups:
  a: {members: [alice], limits: {gpus: 2, memory: 8GiB}, allow: {capabilities: [IPC_LOCK]}}
  b: {unix_group: lab, limits: {gpus: 3, memory: 4GiB}, role: admin}
"""


def test_groups_merge_to_the_larger() -> None:
    """Of two groups the larger number counts, lists are united, the stronger role wins."""
    grants = policy(TWO).for_actor(replace(ALICE, groups=frozenset({"lab"})))
    assert grants.groups == ("a", "b")
    assert (grants.limits.gpus, grants.limits.memory_bytes, grants.limits.pids) == (3, 8 * 1024**3, 100)
    assert grants.capabilities == {"SYS_NICE", "IPC_LOCK"}
    assert grants.role is Role.ADMIN


def test_a_users_entry_replaces() -> None:
    """It can take away what groups give."""
    text = TWO + "users: {alice: {role: none, limits: {gpus: 0}, allow: {capabilities: []}}}"
    grants = policy(text).for_actor(ALICE)
    assert (grants.role, grants.limits.gpus, grants.capabilities) == (Role.NONE, 0, frozenset())


def test_system_accounts_are_refused_unless_listed() -> None:
    """Below uid 1000 only listed names get in; root is admin."""
    daemon = replace(ALICE, uid=Uid(33), name="www-data")
    assert policy("defaults: {role: user}").for_actor(daemon).role is Role.NONE
    assert policy("defaults: {role: user}\nsystem_accounts: [www-data]").for_actor(daemon).role is Role.USER
    assert policy("").for_actor(replace(ALICE, uid=Uid(0), name="root")).role is Role.ADMIN


def test_networks_are_merged_to_the_safer_side() -> None:
    """Of several groups the own network counts; lists are united, and subnets and hosts replaced by what is stated, none included."""
    text = (
        "defaults: {role: user, allow: {default_network: shared, networks: [lan]}}\n"
        "groups:\n  a: {members: [alice], allow: {default_network: own, networks: [host]}}\n"
        "  b: {members: [alice], allow: {default_network: shared, subnets: [], fetch_hosts: [Files.lab]}}"
    )
    grants = policy(text).for_actor(ALICE)
    assert (grants.default_network, grants.networks) == (DefaultNetwork.OWN, frozenset({"lan", "host"}))
    assert grants.subnets == frozenset()
    assert grants.fetch_hosts == frozenset({"files.lab"})
    silent = policy("defaults: {role: user}").for_actor(ALICE)
    assert (silent.default_network, silent.host_network) == (DefaultNetwork.OWN, Handling.DENY)
    assert "172.16.0.0/12" in silent.subnets
    assert silent.fetch_hosts == frozenset({"*"})


def test_the_digest_follows_the_meaning() -> None:
    """Comments and order do not change it; a number does."""
    one, same, other = (
        "defaults: {limits: {gpus: 1, pids: 5}}",
        "defaults: {limits: {pids: 5, gpus: 1}} # x",
        "defaults: {}",
    )
    assert policy(one).digest == policy(same).digest != policy(other).digest


def test_groups_that_share_are_told_by_name() -> None:
    """Each group of the user's that shares, and how much; `none` is as if it were not written."""
    text = (
        "groups:\n  a: {members: [alice], share: {containers: view}}\n  b: {unix_group: lab, share: {containers: use}}\n"
        "  c: {members: [alice], share: {containers: none}}\n  d: {members: [bob], share: {containers: use}}"
    )
    found = policy(text)
    assert found.shares_containers
    assert found.for_actor(ALICE).shares == (("a", Share.VIEW),)
    both = found.for_actor(replace(ALICE, groups=frozenset({"lab"})))
    assert both.shares == (("a", Share.VIEW), ("b", Share.USE))
    assert not policy("groups: {c: {members: [alice], share: {containers: none}}}").shares_containers


def test_gpu_terms_come_together() -> None:
    """Classes of all groups in their order, the larger weight, each group's own limit; the user's own words instead."""
    text = (
        "defaults: {role: user, gpu: {classes: [mig], weight: 9}, limits: {gpu_equivalents: 1/7}}\n"
        "groups:\n  a: {members: [alice], gpu: {classes: [1g.5gb, gpu], group_gpus: 4}, limits: {gpu_equivalents: 3/7}}\n"
        "  b: {unix_group: lab, gpu: {classes: [gpu, mig], weight: 2, group_equivalents: 2}}\n"
    )
    both = policy(text).for_actor(replace(ALICE, groups=frozenset({"lab"})))
    assert both.gpu.classes == ("1g.5gb", "gpu", "mig")
    assert (both.gpu.weight, both.gpu.priority) == (2, 0)
    assert both.gpu.groups == (
        GroupGpus(name="a", devices=4),
        GroupGpus(name="b", equivalents=Fraction(2)),
    )
    assert both.limits.gpu_equivalents == Fraction(3, 7)
    own = policy(
        text + "users: {alice: {gpu: {classes: [gpu], priority: 5}, limits: {gpu_equivalents: unlimited}}}"
    )
    found = own.for_actor(ALICE)
    assert (found.gpu.classes, found.gpu.weight, found.gpu.priority) == (("gpu",), 9, 5)
    assert found.limits.gpu_equivalents == -1


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", TimeOver.STOP),
        ("defaults: {gpu: {time_over: report}}", TimeOver.REPORT),
        (
            "defaults: {gpu: {time_over: report}}\ngroups: {a: {members: [alice], gpu: {time_over: stop}}}",
            TimeOver.STOP,
        ),
        (
            "groups: {a: {members: [alice], gpu: {time_over: stop}}, b: {members: [alice], gpu: {time_over: report}}}",
            TimeOver.REPORT,
        ),
        (
            "groups: {a: {members: [alice], gpu: {time_over: report}}}\nusers: {alice: {gpu: {time_over: stop}}}",
            TimeOver.STOP,
        ),
    ],
)
def test_the_end_of_time_is_a_stop_unless_policy_says_report(text: str, word: TimeOver) -> None:
    """The user's own entry, else the groups', of which report counts, else the default, else stop."""
    assert policy(text).for_actor(ALICE).gpu.time_over is word
