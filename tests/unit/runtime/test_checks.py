"""Every part of a bundle that could bring something of the host, with an approval and without."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policy.approval import Approval, ApprovedMount, Source
from policy.model import ContainerId, DeviceUuid, LeaseId, Uid
from runtime.bundle import Bundle, DeviceRule, Hook, Mount, Node
from runtime.checks import Pin, Plan, Refused, plan

ID = ContainerId("a" * 64)
OTHER = ContainerId("b" * 64)
ROOT = "/var/lib/docker"
SETKEY = Hook(path="/proc/9/exe", args=["libnetwork-setkey", "-exec-root=/x"])
NVIDIA = Hook(
    path="/usr/bin/nvidia-container-runtime-hook", args=["nvidia-container-runtime-hook", "prestart"]
)
CDI = Hook(path="/usr/bin/nvidia-cdi-hook", args=["nvidia-cdi-hook", "update-ldcache"])
SOCKET = "/run/ds01/users/alice/docker.sock"


def bind(source: str, target: str, *options: str) -> Mount:
    return Mount(destination=target, type="bind", source=source, options=["rbind", "rprivate", *options])


def kernel(kind: str, target: str, *options: str) -> Mount:
    return Mount(destination=target, type=kind, source=kind, options=["nosuid", *options])


KERNEL = (
    kernel("proc", "/proc"),
    kernel("tmpfs", "/dev"),
    kernel("devpts", "/dev/pts"),
    kernel("sysfs", "/sys", "ro"),
    kernel("cgroup", "/sys/fs/cgroup", "ro"),
    kernel("mqueue", "/dev/mqueue"),
    kernel("tmpfs", "/dev/shm"),
)
DOCKERS = tuple(
    bind(f"{ROOT}/containers/{ID}/{name}", f"/etc/{name}") for name in ("resolv.conf", "hostname", "hosts")
)
RULES = (
    DeviceRule(allow=False, access="rwm"),
    DeviceRule(allow=True, type="c", major=1, minor=3, access="rwm"),
    DeviceRule(allow=True, type="c", major=5, minor=0, access="rwm"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=False, type="c", major=10, minor=229, access="rwm"),
)
PLAIN = Bundle(
    mounts=(*KERNEL, *DOCKERS),
    cgroup=f"/ds01/1000/{ID}",
    env=("PATH=/bin", "NVIDIA_VISIBLE_DEVICES=void"),
    capabilities=frozenset({"CAP_CHOWN", "CAP_SETUID"}),
    hooks=(SETKEY,),
    namespaces=dict.fromkeys(("mount", "network", "uts", "pid", "ipc"), ""),
    device_rules=RULES,
    masked=True,
)
APPROVAL = Approval(
    container=ID,
    engine_id="e",
    uid=Uid(1000),
    mounts=(
        ApprovedMount(kind=Source.PATH, source="/home/alice/d", target="/d"),
        ApprovedMount(kind=Source.PATH, source="/data", target="/ro", read_only=True),
        ApprovedMount(kind=Source.VOLUME, source="v", target="/v"),
        ApprovedMount(kind=Source.SOCKET, source=SOCKET, target="/var/run/docker.sock"),
    ),
    nodes=("/dev/fuse", "/dev/snd"),
    joined=(OTHER,),
)
GPU = DeviceUuid("GPU-1")
LEASED = replace(APPROVAL, lease=LeaseId("L1"), devices=(GPU, DeviceUuid("MIG-2")))


def judge(bundle: Bundle, approval: Approval | None = APPROVAL) -> Plan:
    return plan(bundle, approval, container=ID, data_root=ROOT)


def with_mounts(*mounts: Mount) -> Bundle:
    return replace(PLAIN, mounts=(*PLAIN.mounts, *mounts))


def refusal(bundle: Bundle, approval: Approval | None = APPROVAL) -> str:
    with pytest.raises(Refused) as caught:
        judge(bundle, approval)
    return str(caught.value)


@pytest.mark.parametrize("approval", [APPROVAL, None], ids=["approved", "not approved"])
def test_what_every_container_has_starts(approval: Approval | None) -> None:
    """The kernel's file systems, dockerd's own files, its network hook, its rules for null and its kind."""
    assert judge(PLAIN, approval) == Plan()


def test_approved_sources_are_pinned_and_volumes_stay() -> None:
    """By their places in the bundle; where volumes lie, only root can put something else."""
    first = len(PLAIN.mounts)
    made = judge(
        with_mounts(
            bind("/home/alice/d", "/d"),
            bind(f"{ROOT}/volumes/v/_data", "/v"),
            bind("/data", "/ro", "ro"),
            bind(SOCKET, "/var/run/docker.sock"),
        )
    )
    path, data, _, socket = APPROVAL.mounts
    assert made.pins == (
        Pin(place=first, mount=path),
        Pin(place=first + 2, mount=data),
        Pin(place=first + 3, mount=socket),
    )


@pytest.mark.parametrize(
    ("mount", "words"),
    [
        (bind("/etc", "/d"), "not the source that was approved"),
        (bind("/home/alice/d", "/e"), "was not approved"),
        (bind("/home/alice/d/sub", "/d"), "not the source"),
        (bind("/data", "/ro"), "approved read-only"),
        (bind("/data", "/ro", "ro", "rw"), "approved read-only"),
        (bind(f"{ROOT}/volumes/w/_data", "/v"), "not the volume"),
        (bind(f"{ROOT}/volumes/v/_data/../../w/_data", "/v"), "not the volume"),
        (bind("/run/ds01/users/bob/docker.sock", "/var/run/docker.sock"), "not the source"),
        (bind("/home/alice/d", "/d", "rshared"), "would reach the host"),
        (bind("/home/alice/d", "/d", "shared"), "would reach the host"),
        (Mount(destination="/x", type="tmpfs", source="/etc", options=["bind"]), "was not approved"),
        (Mount(destination="/x", type="overlay", source="overlay"), "is not known"),
        (Mount(destination="/x", type="nfs", source="h:/x"), "is not known"),
        (Mount(destination="/x", type="", source="/etc"), "is not known"),
        (kernel("cgroup", "/sys/fs/cgroup"), "privileged"),
        (kernel("cgroup2", "/sys/fs/cgroup"), "privileged"),
        (kernel("sysfs", "/sys", "ro", "rw"), "privileged"),
        (bind(f"{ROOT}/containers/{'c' * 64}/hosts", "/etc/hosts"), "was not approved"),
        (bind(f"{ROOT}/containers/{ID}/config.v2.json", "/x"), "was not approved"),
        (bind(f"{ROOT}/containers/{ID}/../x/hosts", "/etc/hosts"), "was not approved"),
        (bind(f"{ROOT}/volumes/w/_data", "/w"), "was not approved"),
        (bind(ROOT, "/x"), "was not approved"),
        (bind("/usr/bin/docker-init", "/sbin/docker-init"), "was not approved"),
        (bind("/usr/lib/libcuda.so", "/usr/lib/libcuda.so", "ro"), "was not approved"),
    ],
)
def test_a_mount_that_was_not_approved_does_not_start(mount: Mount, words: str) -> None:
    """Another source, another target, more rights, another volume, another's files of dockerd's."""
    told = refusal(with_mounts(mount))
    assert words in told
    assert told.startswith("ds01: ")
    assert "(rule start); " in told


@pytest.mark.parametrize(
    "mount",
    [
        bind("/home/alice/d", "/d"),
        bind(SOCKET, "/var/run/docker.sock"),
        bind(f"{ROOT}/volumes/v/_data", "/v"),
        bind(f"{ROOT}/containers/{OTHER}/hosts", "/etc/hosts"),
        bind("/usr/lib/libcuda.so", "/usr/lib/libcuda.so", "ro"),
    ],
)
def test_without_an_approval_nothing_of_the_host_is_mounted(mount: Mount) -> None:
    """What an approval of this container would let pass."""
    assert "no record that this container may have" in refusal(with_mounts(mount), None)


@pytest.mark.parametrize("approval", [APPROVAL, None], ids=["approved", "not approved"])
def test_an_anonymous_volume_needs_no_name_in_the_approval(approval: Approval | None) -> None:
    """dockerd made it for this container, by the image's wish; a build's steps have them as well."""
    assert judge(with_mounts(bind(f"{ROOT}/volumes/{'0a' * 32}/_data", "/anon")), approval) == Plan()


def test_files_of_a_joined_container_are_dockerds_own() -> None:
    """Who shares a network shares hosts and names; who shares IPC shares its memory."""
    shared = [bind(f"{ROOT}/containers/{OTHER}/{name}", "/x") for name in ("hosts", "hostname", "mounts/shm")]
    assert judge(with_mounts(*shared)) == Plan()


@pytest.mark.parametrize("approval", [APPROVAL, None], ids=["approved", "not approved"])
def test_the_init_program_must_be_roots(approval: Approval | None) -> None:
    """`--init` mounts a program of the engine's, read-only."""
    made = judge(with_mounts(bind("/usr/bin/docker-init", "/sbin/docker-init", "ro")), approval)
    assert made == Plan(root_only=("/usr/bin/docker-init",))


PARTS = replace(
    APPROVAL,
    mounts=(
        ApprovedMount(kind=Source.VOLUME, source="v", target="/part", subpath=True),
        ApprovedMount(kind=Source.IMAGE, source="busybox", target="/image"),
        ApprovedMount(kind=Source.IMAGE, source="busybox", target="/piece", subpath=True),
    ),
)
LAYERS = f"{ROOT}/overlay2/{'0f' * 32}/merged"


@pytest.mark.parametrize(
    ("source", "target"),
    [
        (f"{ROOT}/tmp/safe-mount19", "/part"),
        (f"{ROOT}/tmp/safe-mount19", "/piece"),
        (LAYERS, "/image"),
        (f"{ROOT}/rootfs/overlayfs/{'0f' * 32}", "/image"),
    ],
)
def test_parts_of_volumes_and_images_come_from_where_dockerd_puts_them(source: str, target: str) -> None:
    """Only dockerd knows where; nobody else gets there."""
    assert judge(with_mounts(bind(source, target)), PARTS) == Plan()
    assert "no record" in refusal(with_mounts(bind(source, target)), None)


@pytest.mark.parametrize(
    ("source", "target"),
    [
        ("/tmp/safe-mount19", "/part"),
        (f"{ROOT}/tmp/safe-mount19/x", "/part"),
        (f"{ROOT}/volumes/v/_data", "/part"),
        (f"{ROOT}/tmp/safe-mount19", "/image"),
        (LAYERS, "/part"),
        (LAYERS, "/piece"),
        (f"{ROOT}/overlay2/../volumes/v/_data", "/image"),
        (f"{ROOT}/containers/{ID}", "/image"),
        ("/etc", "/image"),
        (ROOT, "/image"),
    ],
)
def test_and_from_nowhere_else(source: str, target: str) -> None:
    """Not from a place that anybody chose."""
    assert "that was approved" in refusal(with_mounts(bind(source, target)), PARTS)


def test_a_target_of_an_approval_takes_nothing_else() -> None:
    """A user's own mount at the place of the init program is judged as the user's."""
    mine = ApprovedMount(kind=Source.PATH, source="/home/alice/i", target="/sbin/docker-init")
    approval = replace(APPROVAL, mounts=(mine,))
    assert "not the source" in refusal(
        with_mounts(bind("/usr/bin/docker-init", "/sbin/docker-init", "ro")), approval
    )
    assert (
        judge(with_mounts(bind("/home/alice/i", "/sbin/docker-init", "ro")), approval).pins[0].mount == mine
    )


def test_of_two_approvals_of_one_target_either_may_be_there() -> None:
    """VolumesFrom and an own mount meet: dockerd takes one, and each was approved, with its own rights."""
    twice = replace(
        APPROVAL,
        mounts=(
            ApprovedMount(kind=Source.PATH, source="/home/alice/a", target="/d", read_only=True),
            ApprovedMount(kind=Source.PATH, source="/home/alice/b", target="/d"),
        ),
    )
    assert judge(with_mounts(bind("/home/alice/b", "/d")), twice).pins[0].mount == twice.mounts[1]
    assert "read-only" in refusal(with_mounts(bind("/home/alice/a", "/d")), twice)


# --- cgroup -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("group", [f"/ds01/1000/{ID}", f"ds01-1000.slice:docker:{ID}"])
def test_the_owners_control_group_starts(group: str) -> None:
    """Under either driver."""
    assert judge(replace(PLAIN, cgroup=group)) == Plan()


@pytest.mark.parametrize(
    "group",
    [
        f"/ds01/1001/{ID}",
        f"/docker/{ID}",
        f"/ds01/1000/../1001/{ID}",
        f"/ds01/1000/{OTHER}",
        f"/ds01/1000/{ID}/x",
        f"/x/ds01/1000/{ID}",
        f"ds01-1001.slice:docker:{ID}",
        f"system.slice:docker:{ID}",
        f"ds01-1000.slice:libpod:{ID}",
        "",
    ],
)
def test_any_other_control_group_does_not(group: str) -> None:
    """Another user's, the engine's, one further up, or none."""
    assert "not its owner's" in refusal(replace(PLAIN, cgroup=group))


@pytest.mark.parametrize(
    ("group", "starts"),
    [
        (f"/ds01/1001/{ID}", True),
        (f"ds01-1001.slice:docker:{ID}", True),
        (f"/docker/{ID}", False),
        (f"/ds01/x/{ID}", False),
        (f"/ds01/1001/../{ID}", False),
        (f"/ds01/01001/{ID}", False),
    ],
)
def test_without_an_approval_it_is_some_users(group: str, *, starts: bool) -> None:
    """A build's steps run in the group of who builds."""
    if starts:
        assert judge(replace(PLAIN, cgroup=group), None) == Plan()
    else:
        assert "not its owner's" in refusal(replace(PLAIN, cgroup=group), None)


# --- privileges ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("approval", [APPROVAL, None], ids=["approved", "not approved"])
@pytest.mark.parametrize("missing", ["mount", "network", "uts", "pid", "ipc"])
def test_no_namespace_is_the_hosts(approval: Approval | None, missing: str) -> None:
    """None of them is left out."""
    namespaces = {kind: path for kind, path in PLAIN.namespaces.items() if kind != missing}
    assert f"the host's {missing} namespace" in refusal(replace(PLAIN, namespaces=namespaces), approval)


@pytest.mark.parametrize("approval", [APPROVAL, None], ids=["approved", "not approved"])
def test_an_unmasked_container_does_not_start(approval: Approval | None) -> None:
    """No policy can permit it."""
    assert "privileged" in refusal(replace(PLAIN, masked=False), approval)


def test_a_namespace_can_be_joined_if_the_create_was_approved() -> None:
    """Whose it is was the ownership rule's to say; a host network that policy grants has a path too."""
    joined = replace(PLAIN, namespaces={**PLAIN.namespaces, "network": "/proc/7/ns/net"})
    assert judge(joined) == Plan()
    assert "another's network namespace" in refusal(joined, None)


@pytest.mark.parametrize("name", ["CAP_SYS_ADMIN", "CAP_NET_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"])
def test_capabilities_beyond_the_default_need_an_approval(name: str) -> None:
    """What policy grants was judged at the create."""
    more = replace(PLAIN, capabilities=PLAIN.capabilities | {name})
    assert judge(more) == Plan()
    assert name in refusal(more, None)


def test_a_build_keeps_mknod() -> None:
    """Docker's own default set starts."""
    assert judge(replace(PLAIN, capabilities=frozenset({"CAP_MKNOD"})), None) == Plan()


# --- devices ------------------------------------------------------------------------------------------------


def fuse(path: str = "/dev/fuse") -> dict[str, Any]:
    rule = DeviceRule(allow=True, type="c", major=10, minor=229, access="rwm")
    return {
        "nodes": (Node(path=path, type="c", major=10, minor=229),),
        "device_rules": (*RULES, rule),
    }


@pytest.mark.parametrize("path", ["/dev/fuse", "/dev/snd/timer"])
def test_a_listed_device_starts(path: str) -> None:
    """By its path in the container; a directory brings what is in it."""
    assert judge(replace(PLAIN, **fuse(path))) == Plan()
    assert "no record" in refusal(replace(PLAIN, **fuse(path)), None)


@pytest.mark.parametrize("path", ["/dev/sda", "/dev/fusex", "/dev/nvidia0", "/dev/sn"])
def test_another_device_does_not(path: str) -> None:
    """It was not on the list when the container was created."""
    assert f"the device {path}" in refusal(replace(PLAIN, **fuse(path)))


@pytest.mark.parametrize(
    "rule",
    [
        DeviceRule(allow=True, access="rwm"),
        DeviceRule(allow=True, type="a", access="rwm"),
        DeviceRule(allow=True, type="c", access="rwm"),
        DeviceRule(allow=True, type="c", major=195, access="rw"),
        DeviceRule(allow=True, type="c", major=195, minor=0, access="r"),
        DeviceRule(allow=True, type="b", major=1, minor=3, access="rwm"),
        DeviceRule(allow=True, type="c", major=1, minor=1, access="rwm"),
    ],
)
@pytest.mark.parametrize("approval", [APPROVAL, LEASED, None], ids=["approved", "leased", "not approved"])
def test_a_rule_without_its_device_does_not_start(rule: DeviceRule, approval: Approval | None) -> None:
    """A node can be made in the container, or be on a bind."""
    asked = replace(PLAIN, device_rules=(*RULES, rule))
    assert "the device rule" in refusal(asked, approval)


# --- GPUs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hook", [NVIDIA, CDI, Hook(path="/bin/sh"), Hook(path="/x", args=[])])
def test_a_hook_needs_a_lease(hook: Hook) -> None:
    """Only dockerd's own, for the network, runs without one."""
    asked = replace(PLAIN, hooks=(SETKEY, hook))
    for approval in (APPROVAL, None):
        assert "the hook" in refusal(asked, approval)
    assert judge(asked, LEASED) == Plan()


@pytest.mark.parametrize("visible", ["GPU-1,MIG-2", "void"])
def test_a_lease_shows_its_devices(visible: str) -> None:
    """To the toolkit's hook by the variable, or by CDI without it."""
    leased = replace(PLAIN, env=("NVIDIA_VISIBLE_DEVICES=all", f"NVIDIA_VISIBLE_DEVICES={visible}"))
    assert judge(leased, LEASED) == Plan()


@pytest.mark.parametrize("visible", ["all", "GPU-1", "GPU-1,MIG-2,GPU-3", "0", ""])
@pytest.mark.parametrize("approval", [APPROVAL, LEASED], ids=["no lease", "leased"])
def test_no_other_device_is_asked_for(visible: str, approval: Approval) -> None:
    """Not one more, not one less."""
    asked = replace(PLAIN, env=(f"NVIDIA_VISIBLE_DEVICES={visible}",))
    assert "asks for the GPUs" in refusal(asked, approval)


def test_no_variable_of_swarm_names_another_device() -> None:
    """An image may bring one, which some toolkits read in place of the other. Without a lease there is nothing to read it."""
    env = ("NVIDIA_VISIBLE_DEVICES=GPU-1,MIG-2", "DOCKER_RESOURCE_GPU=all")
    assert "its image sets DOCKER_RESOURCE_GPU" in refusal(replace(PLAIN, env=env), LEASED)
    void = ("NVIDIA_VISIBLE_DEVICES=void", "DOCKER_RESOURCE_GPU=all")
    assert judge(replace(PLAIN, env=void), APPROVAL) == Plan()


def test_a_variable_that_is_missing_is_not_void() -> None:
    """Left out, it means all to the toolkit; ds01 always sets it."""
    assert "asks for the GPUs" in refusal(replace(PLAIN, env=()))


def test_without_an_approval_the_variable_is_made_void() -> None:
    """A base image brings it into every step of a build, and the build goes on."""
    assert judge(replace(PLAIN, env=("NVIDIA_VISIBLE_DEVICES=all",)), None) == Plan(hide_devices=True)
    assert judge(replace(PLAIN, env=()), None) == Plan()


def test_a_lease_by_cdi_brings_nodes_and_files_of_the_driver() -> None:
    """Files must be root's alone; everything else about them is the engine's, which has them from root's specification."""
    cdi = replace(
        PLAIN,
        nodes=(Node(path="/dev/nvidia0", type="c", major=195, minor=0),),
        device_rules=(*RULES, DeviceRule(allow=True, type="c", major=195, minor=0, access="rwm")),
        hooks=(SETKEY, CDI),
        mounts=(*PLAIN.mounts, bind("/usr/lib/libcuda.so", "/usr/lib/libcuda.so", "ro")),
    )
    assert judge(cdi, LEASED) == Plan(root_only=("/usr/lib/libcuda.so",))
    moved = replace(cdi, mounts=(*PLAIN.mounts, bind("/usr/lib/libcuda.so", "/x", "ro")))
    assert "was not approved" in refusal(moved, LEASED)


def test_a_stand_in_is_what_was_approved_for_its_target() -> None:
    """Where dockerd was told one, the path itself is not what it was told, nor is another's stand-in."""
    told = "/var/lib/ds01/sources/1000/3rw/home/alice/d"
    mine = ApprovedMount(kind=Source.PATH, source="/home/alice/d", target="/d", told=told)
    approval = replace(APPROVAL, mounts=(mine,))
    assert judge(with_mounts(bind(told, "/d")), approval).pins[0].mount == mine
    for other in ("/home/alice/d", told.replace("1000", "1001"), told + "/x"):
        assert "is not the source that was approved" in refusal(with_mounts(bind(other, "/d")), approval)
