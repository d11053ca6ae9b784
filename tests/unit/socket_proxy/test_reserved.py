"""What policy reserves, told to the allocator."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from allocator.bodies import parse_declared
from allocator.tellings import parse_host_rules
from host.users import Account, look_up_name
from policy.build import build_policy
from policy.model import Json
from socket_proxy.refusals import Unavailable
from socket_proxy.reserved import Declaring

POLICY = """
version: 1
groups: {course: {members: [x]}}
gpu:
  reservations:
    - {for: course, gpus: 2, when: "Tue 10:00-12:00", lead: 1h}
    - {user: root, profile: 1g.5gb, when: "daily 10:00-12:00"}
    - {user: nobody-of-this-name, when: "daily 10:00-12:00"}
"""


class Told:
    """An allocator that remembers."""

    def __init__(self) -> None:
        self.told: list[Mapping[str, Json]] = []
        self.rules: Mapping[str, Json] = {}
        self.fails: set[str] = set()

    async def declare(self, reservations: Sequence[Mapping[str, Json]]) -> None:
        if "declare" in self.fails:
            raise Unavailable("a reservation cannot be read")
        self.told = list(reservations)

    async def tell_host_rules(self, rules: Mapping[str, Json]) -> None:
        if "rules" in self.fails:
            raise Unavailable("a rule cannot be read")
        self.rules = rules


def account(name: str) -> Account | None:
    return look_up_name("root") if name == "root" else None


async def test_groups_by_name_and_users_by_uid() -> None:
    """A user whom the machine does not know has no reservation."""
    allocator, policy = Told(), build_policy({"policy.yaml": POLICY})
    await Declaring(allocator=allocator, policy=lambda: policy, account=account).tell()
    rest = {"when": "daily 10:00-12:00", "lead_seconds": 900}
    assert allocator.told == [
        {
            "name": "course",
            "group": "course",
            "count": 2,
            "profile": "full",
            "when": "Tue 10:00-12:00",
            "lead_seconds": 3600,
        },
        {"name": "root", "uid": 0, "count": 1, "profile": "1g.5gb", **rest},
    ]


async def test_the_rules_for_the_host_are_told() -> None:
    """As the allocator reads them; without a word of policy processes are reported."""
    allocator = Told()
    text = POLICY + (
        "  host_processes: stop\n  unleased: warn\n  grace: 5m\n"
        "  exempt: [{user: root, until: 2027-01-31T00:00:00Z, reason: test}]\n"
    )
    policy = build_policy({"policy.yaml": text})
    await Declaring(allocator=allocator, policy=lambda: policy, account=account).tell()
    assert allocator.rules == {
        "host_processes": "stop",
        "unleased": "warn",
        "grace_seconds": 300,
        "exempt": [{"user": "root", "until": 1801353600, "reason": "test"}],
    }
    read = parse_host_rules(allocator.rules)
    assert read == policy.document.gpu
    silent = build_policy({"policy.yaml": "version: 1\n"})
    await Declaring(allocator=allocator, policy=lambda: silent, account=account).tell()
    assert (allocator.rules["host_processes"], allocator.rules["unleased"]) == ("report", "report")


async def test_what_cannot_be_told_holds_up_nothing_else() -> None:
    """Neither the reservations the rules, nor the rules the reservations."""
    policy = build_policy({"policy.yaml": POLICY})
    for failing, told, rules in (("declare", 0, True), ("rules", 2, False)):
        allocator = Told()
        allocator.fails = {failing}
        await Declaring(allocator=allocator, policy=lambda: policy, account=account).tell()
        assert (len(allocator.told), bool(allocator.rules)) == (told, rules)


async def test_the_allocator_takes_the_largest_that_a_policy_may_say() -> None:
    """Else a single line of it would keep all the others from it."""
    allocator = Told()
    days = ",".join(["Mon"] * 27)
    text = (
        "version: 1\ngroups: {course: {members: [x]}}\ngpu:\n  grace: 999999d\n"
        "  exempt: [{user: root, until: 1900-01-01, reason: past}, {user: root, until: 9999-12-30, reason: far}]\n"
        "  reservations:\n"
        f'    - {{for: course, gpus: 1024, when: "{days} 10:00-12:00", lead: 7d, profile: 7g.40gb+me}}\n'
    )
    policy = build_policy({"policy.yaml": text})
    await Declaring(allocator=allocator, policy=lambda: policy, account=account).tell()
    assert parse_host_rules(allocator.rules) == policy.document.gpu
    (found,) = parse_declared({"reservations": allocator.told}, source="policy")
    assert (found.count, found.lead_seconds) == (1024, 7 * 86400)
