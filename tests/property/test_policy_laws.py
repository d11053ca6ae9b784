"""Laws of deciding and rewriting, on creates made of what the rules care about."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from policy.ask import Ask
from policy.dockerapi.model import Incoming, Operation, Request
from policy.dockerapi.read import read
from policy.dockerapi.write import write
from policy.document import Document, PolicyInvalid, parse
from policy.evaluate import combine, evaluate
from policy.model import Decision, Effect, SetField
from policy.rules import RULES
from tests.fakes.policy_world import ALICE, POLICY, facts, policy, rewrite, second_look

RULE_IDS = {rule.id for rule in RULES}
NUMBERS = st.sampled_from([-1, 0, 1, 10_000, 4 * 1024**3, 10**13])
PATHS = st.sampled_from(
    ["/home/alice/a/", "/data", "/etc", "/var/run/docker.sock", "vol", "/home/bob", "/home/alice/../bob"]
)
TARGETS = st.sampled_from(["/x", "/x/", "/y/../z", "/proc", "/var/run/docker.sock"])
BINDS = st.lists(
    st.tuples(PATHS, TARGETS, st.sampled_from(["", ":ro", ":z", ":rw,rslave"])).map(
        lambda b: f"{b[0]}:{b[1]}{b[2]}"
    ),
    max_size=2,
)
MOUNT = st.fixed_dictionaries(
    {"Type": st.sampled_from(["bind", "volume", "tmpfs", "image"]), "Source": PATHS, "Target": TARGETS},
    optional={
        "ReadOnly": st.booleans(),
        "BindOptions": st.fixed_dictionaries(
            {"CreateMountpoint": st.booleans()},
            optional={"Propagation": st.sampled_from(["shared", "rprivate"])},
        ),
        "VolumeOptions": st.fixed_dictionaries(
            {"Labels": st.dictionaries(st.sampled_from(["a", "ds01.uid"]), st.just("1"))}
        ),
        "TmpfsOptions": st.fixed_dictionaries({"SizeBytes": NUMBERS}),
    },
)
GPU = st.fixed_dictionaries(
    {},
    optional={
        "Driver": st.sampled_from(["", "nvidia", "cdi", "other"]),
        "Count": st.integers(-2, 3),
        "DeviceIDs": st.lists(st.sampled_from(["0", "all", "nvidia.com/gpu=1", "void"]), max_size=2),
        "Capabilities": st.just([["gpu"]]),
    },
)
HOST = st.fixed_dictionaries(
    {},
    optional={
        "Memory": NUMBERS,
        "MemorySwap": NUMBERS,
        "NanoCpus": NUMBERS,
        "CpuQuota": NUMBERS,
        "CpuPeriod": NUMBERS,
        "PidsLimit": NUMBERS,
        "ShmSize": NUMBERS,
        "Privileged": st.booleans(),
        "Binds": BINDS,
        "Mounts": st.lists(MOUNT, max_size=2),
        "IpcMode": st.sampled_from(["", "host", "shareable", "none"]),
        "PidMode": st.sampled_from(["", "host"]),
        "CgroupParent": st.sampled_from(["", "/x", "/ds01/1000", "ds01-1001.slice"]),
        "CgroupnsMode": st.sampled_from(["host", "private"]),
        "Runtime": st.sampled_from(["", "runc", "nvidia", "kata"]),
        "DeviceRequests": st.lists(GPU, max_size=2),
        "Devices": st.lists(
            st.sampled_from(
                [{"PathOnHost": "/dev/nvidia0"}, {"PathOnHost": "/dev/nvidiactl"}, {"PathOnHost": "/dev/sda"}]
            ),
            max_size=2,
        ),
        "CapAdd": st.lists(st.sampled_from(["CHOWN", "SYS_PTRACE", "SYS_ADMIN"]), max_size=2),
        "CapDrop": st.lists(st.sampled_from(["ALL", "CAP_MKNOD", "KILL"]), max_size=2),
        "SecurityOpt": st.lists(st.sampled_from(["seccomp=unconfined", "no-new-privileges"]), max_size=2),
        "RestartPolicy": st.fixed_dictionaries(
            {"Name": st.sampled_from(["no", "always", "on-failure"]), "MaximumRetryCount": st.integers(0, 9)}
        ),
        "LogConfig": st.fixed_dictionaries(
            {
                "Type": st.sampled_from(["", "local", "none", "gelf"]),
                "Config": st.sampled_from([{}, {"max-size": "1g"}, {"max-size": "10k", "max-file": "2"}]),
            }
        ),
        "PortBindings": st.sampled_from(
            [{}, {"80/tcp": [{"HostPort": "8080"}]}, {"80/tcp": [{"HostIp": "0.0.0.0"}]}]
        ),
        "Ulimits": st.lists(
            st.fixed_dictionaries(
                {"Name": st.sampled_from(["nofile", "memlock", "core"]), "Soft": NUMBERS, "Hard": NUMBERS}
            ),
            max_size=2,
        ),
        "MaskedPaths": st.just([]),
        "StorageOpt": st.just({"size": "1G"}),
    },
)
BODY = st.fixed_dictionaries(
    {"Image": st.just("busybox"), "HostConfig": HOST},
    optional={
        "Env": st.lists(
            st.sampled_from(
                [
                    "A=1",
                    "NVIDIA_VISIBLE_DEVICES=all",
                    "NVIDIA_VISIBLE_DEVICES",
                    "NVIDIA_DRIVER_CAPABILITIES=all",
                ]
            ),
            max_size=3,
        ),
        "Labels": st.dictionaries(st.sampled_from(["a", "ds01.owner", "DS01.x"]), st.just("v")),
        "StopTimeout": NUMBERS,
        "Healthcheck": st.fixed_dictionaries({"Interval": st.sampled_from([0, 1_000_000, 10**11])}),
    },
)


def read_create(body: dict[str, Any]) -> Request:
    head = (("content-type", "application/json"),)
    text = json.dumps(body).encode()
    return read(
        Incoming(method="POST", target="/v1.41/containers/create", headers=head, body=text),
        engine_max=(1, 41),
    )


def decision_on(asked: Request) -> Decision:
    return evaluate(POLICY, ALICE, asked, facts(asked))


@settings(max_examples=300, deadline=None)
@given(BODY)
def test_what_is_allowed_is_rewritten_to_a_fixpoint(body: dict[str, Any]) -> None:
    """The rewritten create reads back as itself, passes the second look, and no field is set twice."""
    asked = read_create(body)
    decision = decision_on(asked)
    if decision.effect is not Effect.ALLOW:
        assert {reason.rule for reason in decision.reasons} <= RULE_IDS
        return
    paths = [one.path for one in decision.obligations if isinstance(one, SetField)]
    assert len(paths) == len(set(paths))
    written = rewrite(asked, decision)
    out = write(written)
    incoming = Incoming(method=out.method, target=out.target, headers=out.headers, body=out.body)
    assert read(incoming, engine_max=(1, 41)) == written
    assert second_look(written) == ()


@settings(max_examples=150, deadline=None)
@given(BODY, st.randoms(use_true_random=False))
def test_order_and_duplicates_of_rules_do_not_matter(body: dict[str, Any], random: Any) -> None:
    """Rules in any order, some twice, come to the same effect and reasons."""
    asked = read_create(body)
    mixed = [*RULES, *random.sample(RULES, 5)]
    random.shuffle(mixed)
    rules = [rule for rule in mixed if Operation.CONTAINER_CREATE in rule.operations]
    ask = Ask(grants=POLICY.for_actor(ALICE), actor=ALICE, request=asked, facts=facts(asked))
    one, other = decision_on(asked), combine(rules, ask)
    assert (one.effect, one.reasons, one.missing) == (other.effect, other.reasons, other.missing)


TIGHTER = policy(
    "defaults: {role: user, limits: {memory: 1GiB, cpus: 1, pids: 50, shm: 64MiB, gpus: 1, containers: 5, restarts: 0},"
    " allow: {security_opt: deny, ipc_host: deny}}"
)


@settings(max_examples=200, deadline=None)
@given(BODY)
def test_a_tighter_policy_never_allows_more(body: dict[str, Any]) -> None:
    """What the wider policy refuses, the tighter one refuses too (I7)."""
    asked = read_create(body)
    if evaluate(TIGHTER, ALICE, asked, facts(asked)).effect is Effect.ALLOW:
        assert decision_on(asked).effect is Effect.ALLOW


YAML_TEXT = st.one_of(
    st.text(max_size=80),
    st.lists(
        st.sampled_from(
            [
                "version: 1",
                "defaults:",
                "  limits:",
                "    gpus: 1",
                "&a",
                "*a",
                "- x",
                "{",
                "}",
                "[",
                "no: 1",
                "? a",
                "!!set",
                "\t",
                "groups: {a: [1]}",
                "users: {1: {}}",
                "<<: x",
                "role: user",
            ]
        ),
        max_size=8,
    ).map("\n".join),
)


@settings(max_examples=400, deadline=None)
@given(YAML_TEXT)
def test_any_text_is_a_document_or_mistakes(text: str) -> None:
    """Nothing but PolicyInvalid comes out of the reader, and it names at least one mistake."""
    try:
        found = parse(text)
    except PolicyInvalid as invalid:
        assert invalid.mistakes  # noqa: PT017  both ends of the law are in view
    else:
        assert isinstance(found, Document)
