"""Laws of sharing: nobody without a share ever sees, every end takes effect, and names mean one thing to each viewer."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from policy.compile import Policy
from policy.dockerapi.model import Operation
from policy.dockerapi.routes import ROUTE_OF
from policy.evaluate import evaluate
from policy.model import SHARE_ORDER, ContainerId, Effect, Kind, Share, Uid
from policy.sharing import NEEDS, by_policy, permits
from socket_proxy.image_owners import Reader
from tests.fakes.policy_world import ALICE as ACTOR
from tests.fakes.policy_world import BOB as OWNER
from tests.fakes.policy_world import facts, own, policy, request
from tests.fakes.sharing_world import MEMORY, SharingWorld
from tests.fakes.whole_proxy import UIDS, account

USERS = st.sampled_from([Uid(uid) for uid in UIDS.values()])
SHARES = st.sampled_from(SHARE_ORDER)
NAMES = st.sampled_from(["web", "alice.web", "u1001.web", "bob.x", "carol.web", "a", "ab"])
IDS = st.sampled_from([ContainerId(pair * 32) for pair in ("aa", "ab", "ba", "1f", "10")])
GRANTEES = st.sampled_from(["user:1001", "user:1002", "user:1003", "group:one", "group:two"])
MEMBERS = st.lists(st.sampled_from([*UIDS, "nobody"]), min_size=1, max_size=3, unique=True)


def text_of(one: tuple[list[str], Share], two: tuple[list[str], Share]) -> str:
    blocks = (
        f"  {name}: {{members: [{', '.join(members)}], share: {{containers: {share}}}}}"
        for name, (members, share) in (("one", one), ("two", two))
    )
    return "version: 1\ndefaults: {role: user}\ngroups:\n" + "\n".join(blocks)


GROUPS = st.tuples(MEMBERS, SHARES)


class Sharing(RuleBasedStateMachine):
    """Containers come and go, are shared and unshared, time passes, the policy changes, the proxy restarts."""

    def __init__(self) -> None:
        super().__init__()
        self.world = SharingWorld(MEMORY)
        self.granted: dict[tuple[ContainerId, str], tuple[Uid, Share, int]] = {}
        self.groups: dict[str, tuple[list[str], Share]] = {}
        for container in self.world.index.ids(Kind.CONTAINER):
            self.world.index.drop(Kind.CONTAINER, container)

    def teardown(self) -> None:
        self.world.records.close()

    @initialize(one=GROUPS, two=GROUPS)
    def load(self, one: tuple[list[str], Share], two: tuple[list[str], Share]) -> None:
        self.reload(one, two)

    @rule(one=GROUPS, two=GROUPS)
    def change(self, one: tuple[list[str], Share], two: tuple[list[str], Share]) -> None:
        self.reload(one, two)

    def reload(self, one: tuple[list[str], Share], two: tuple[list[str], Share]) -> None:
        self.groups = {"one": one, "two": two}
        self.world.text = text_of(one, two)
        self.world.reload(self.world.text)

    @rule(container=IDS, name=NAMES, owner=USERS)
    def create(self, container: ContainerId, name: str, owner: Uid) -> None:
        taken = self.world.index.named(Kind.CONTAINER, name, owner)  # dockerd gives a name once
        if self.world.index.get(Kind.CONTAINER, container) is None and taken is None:
            self.granted = {key: value for key, value in self.granted.items() if key[0] != container}
            self.world.granted.sweep(lambda other: other != container)
            self.world.put(container, name, owner)

    @rule(container=IDS)
    def remove(self, container: ContainerId) -> None:
        self.world.index.drop(Kind.CONTAINER, container)

    @rule(
        container=IDS,
        grantee=GRANTEES,
        share=st.sampled_from([Share.VIEW, Share.USE]),
        seconds=st.integers(1, 100),
    )
    def grant(self, container: ContainerId, grantee: str, share: Share, seconds: int) -> None:
        entry = self.world.index.get(Kind.CONTAINER, container)
        if entry is not None and entry.owner is not None:
            self.world.granted.grant(
                container, [grantee], share=share, owner=entry.owner, login="", seconds=seconds
            )
            self.granted[container, grantee] = entry.owner, share, self.world.now_ms + seconds * 1000

    @rule(container=IDS, grantee=GRANTEES)
    def unshare(self, container: ContainerId, grantee: str) -> None:
        self.world.granted.end(container, grantee)
        self.granted.pop((container, grantee), None)

    @rule(ms=st.integers(1, 60_000))
    def wait(self, ms: int) -> None:
        self.world.now_ms += ms

    @rule()
    def restart(self) -> None:
        self.world.open()

    @rule()
    def sweep(self) -> None:
        self.world.granted.sweep(lambda each: self.world.index.get(Kind.CONTAINER, each) is not None)

    def expected(self, viewer: Uid, container: str, owner: Uid | None) -> Share:
        """The oracle: by what is written down here alone."""
        login = {uid: name for name, uid in UIDS.items()}
        if owner is None or owner == viewer:
            return Share.NONE
        member = {name for name, (members, _) in self.groups.items() if login[viewer] in members}
        found = [
            share
            for (shared, grantee), (granter, share, until_ms) in self.granted.items()
            if shared == container
            and granter == owner
            and self.world.now_ms < until_ms
            and (grantee == f"user:{viewer}" or grantee.removeprefix("group:") in member)
        ]
        found += [self.groups[name][1] for name in member if login[owner] in self.groups[name][0]]
        return max(found, key=SHARE_ORDER.index, default=Share.NONE)

    @invariant()
    def everybody_has_what_is_shared_and_no_more(self) -> None:
        shared, index = self.world.shared, self.world.index
        for uid in UIDS.values():
            person = account(uid)
            assert person is not None
            groups = frozenset(self.world.policy.for_actor(person.actor()).groups)
            reader = Reader(uid=Uid(uid), groups=groups)
            _now(self.world)
            names: dict[str, str] = {}
            seen = {entry.id: share for entry, share in shared.all(reader)}
            for entry in index.all(Kind.CONTAINER):
                expected = self.expected(Uid(uid), entry.id, entry.owner)
                assert shared.share(reader, entry.id) is expected
                assert seen.get(entry.id, Share.NONE) is expected
                name = shared.name(reader, entry.id)
                assert (name is None) == (expected is Share.NONE)
                if name is None:
                    found = shared.find(reader, entry.id)
                    assert found is None
                    continue
                names[name] = entry.id
                found = shared.find(reader, name)
                assert found is not None, "what a list shows can be used"
                assert (found[0].id, found[1]) == (entry.id, expected)
                assert index.find(Kind.CONTAINER, name, Uid(uid), everything=False) is None
            assert len(names) == len(seen), "two containers never show under one name"
            for entry in index.owned(Kind.CONTAINER, Uid(uid)):
                for text in (entry.id, entry.name.partition(".")[2]):
                    assert shared.find(reader, text) is None, "no share captures an own name"


def _now(world: SharingWorld) -> None:
    """What `refresh` does, without a loop."""
    for uid in UIDS.values():
        person = account(uid)
        world.shared._people[Uid(uid)] = person.actor() if person else None


TestSharing = Sharing.TestCase
TestSharing.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)


def tighter(wide: Policy, tight: Policy) -> bool:
    """Whether no group shares more, and none has more members."""
    return all(
        set(tight.document.groups[name].members) <= set(wide.document.groups[name].members)
        and SHARE_ORDER.index(tight.document.groups[name].share["containers"])
        <= SHARE_ORDER.index(wide.document.groups[name].share["containers"])
        for name in ("one", "two")
    )


MEMBERSHIPS = st.lists(st.sampled_from(["alice", "bob"]), min_size=1, max_size=2, unique=True)


@settings(deadline=None, max_examples=200)
@given(st.tuples(MEMBERSHIPS, SHARES), st.tuples(MEMBERSHIPS, SHARES), st.tuples(SHARES, SHARES), st.data())
def test_a_tighter_policy_never_allows_more(
    one: tuple[list[str], Share],
    two: tuple[list[str], Share],
    lower: tuple[Share, Share],
    data: st.DataObject,
) -> None:
    """Fewer members and smaller shares bring nobody more (I7), for every operation on another's container."""
    wide = policy(text_of(one, two).partition("\n")[2])
    less = [
        (members[: data.draw(st.integers(1, len(members)))], min(share, bound, key=SHARE_ORDER.index))
        for (members, share), bound in zip((one, two), lower, strict=True)
    ]
    tight = policy(text_of(*less).partition("\n")[2])
    assert tighter(wide, tight)
    shares = [by_policy(each.for_actor(OWNER), each.for_actor(ACTOR).groups) for each in (wide, tight)]
    assert SHARE_ORDER.index(shares[1]) <= SHARE_ORDER.index(shares[0])
    for operation in Operation:
        assert permits(shares[1], operation) <= permits(shares[0], operation)


@settings(deadline=None, max_examples=100)
@given(
    st.sampled_from(
        [
            op
            for op, route in ROUTE_OF.items()
            if "{container}" in route.template and op is not Operation.CHECKPOINT
        ]
    ),
    SHARES,
)
def test_a_decision_needs_its_share(operation: Operation, share: Share) -> None:
    """Allowed exactly if the table says so; with nothing shared the container is absent."""
    body = {"Cmd": ["x"]} if operation is Operation.CONTAINER_EXEC else None
    query = {"name": ("other",)} if operation is Operation.CONTAINER_RENAME else {}
    asked = request(operation, body, query=query, container="bob.web")
    fact = replace(own(Kind.CONTAINER, owner=OWNER.uid), share=share)
    known = dict.fromkeys(facts(asked).objects, fact)
    decision = evaluate(policy("defaults: {role: user}"), ACTOR, asked, replace(facts(asked), objects=known))
    if share is Share.NONE:
        assert decision.effect is Effect.NOT_VISIBLE
    else:
        assert (decision.effect is Effect.ALLOW) == (operation in NEEDS and permits(share, operation))
