"""What a bundle may hold: compared with what was approved at the create, or, without an approval, with nothing at all.

Pure. What needs a look at the host is given back as a plan: sources to pin, sources that must be root's alone, a lease.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policy.approval import ApprovedMount, Source
from policy.gpus import SCRUBBED_PREFIX
from policy.model import Uid
from policy.ownership import cgroup_parent
from policy.paths import is_under
from policy.rules.capabilities import DEFAULT

if TYPE_CHECKING:
    from policy.approval import Approval
    from policy.model import ContainerId
    from runtime.bundle import Bundle, DeviceRule, Mount

AGAIN = "create the container again"
_TELL = "tell the admin"
_THROUGH = "create it again through ds01; root can name --runtime runc under break-glass"
_KERNEL_TYPES = frozenset({"proc", "tmpfs", "devpts", "sysfs", "mqueue", "cgroup", "cgroup2"})
_READ_ONLY_TYPES = frozenset({"sysfs", "cgroup", "cgroup2"})
_OUTGOING = frozenset({"shared", "rshared", "unbindable", "runbindable"})
_OWN_FILES = frozenset({"resolv.conf", "hostname", "hosts", "mounts/shm"})
_INIT_TARGETS = frozenset({"/sbin/docker-init", "/dev/init"})
_VOLUME = re.compile(r"([a-zA-Z0-9][a-zA-Z0-9_.-]*)/_data", re.ASCII)
# SOURCE: moby volume/safepath and daemon/images: a part of a volume, and an image's files by storage driver.
_PART = re.compile(r"tmp/safe-mount[0-9]+", re.ASCII)
_LAYERS = re.compile(r"(overlay2|fuse-overlayfs|btrfs|zfs|vfs|rootfs)(/[a-zA-Z0-9_-]+)+", re.ASCII)
_OWNERS = frozenset({Source.PATH, Source.SOCKET})  # what the owner could swap
_ANONYMOUS = re.compile(r"[0-9a-f]{64}", re.ASCII)
_NAMESPACES = frozenset({"mount", "network", "uts", "pid", "ipc"})
_SETKEY = "libnetwork-setkey"
# SOURCE: moby oci/caps/defaults.go; what ds01 leaves of it at a create, and MKNOD, which a build's containers keep.
_CAPABILITIES = frozenset(f"CAP_{name}" for name in (*DEFAULT, "MKNOD"))
# SOURCE: moby oci/defaults.go: zero, null, urandom, random, tty, console; runc adds its own of the same kind.
_HARMLESS_NODES = frozenset({("c", 1, 3), ("c", 1, 5), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1)})


class Refused(Exception):  # noqa: N818  the name says how it ended
    """The container must not start; the text is the user's."""

    def __init__(self, problem: str, next_step: str = AGAIN, *, rule: str = "start") -> None:
        """One sentence, in the form of every other denial."""
        super().__init__(f"ds01: {problem} (rule {rule}); {next_step}")


class RefusedElsewhere(Refused):
    """In the words of another daemon, which has said rule and next step."""

    def __init__(self, text: str) -> None:
        """Args: text: whole."""
        Exception.__init__(self, text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pin:
    """A source to open, look at and pin. `place`: of the mount in the bundle."""

    place: int
    mount: ApprovedMount


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What must hold on the host for the bundle to start.

    pins: the owner's sources. root_only: sources that nobody but root may be able to change.
    hide_devices: NVIDIA_VISIBLE_DEVICES says nothing here, and is made to say so.
    """

    pins: tuple[Pin, ...] = ()
    root_only: tuple[str, ...] = ()
    hide_devices: bool = False


def plan(bundle: Bundle, approval: Approval | None, *, container: ContainerId, data_root: str) -> Plan:
    """Judge a bundle as text.

    Args: approval: what the create was let have; None: ds01 let no such create through.
    Raises: Refused.
    """
    _check_plainness(bundle)
    _check_cgroup(bundle, approval, container)
    if approval is None:
        _check_nothing_special(bundle)
    _check_devices(bundle, approval)
    pins: list[Pin] = []
    root_only: list[str] = []
    for place, mount in enumerate(bundle.mounts):
        match _judge(mount, approval, container=container, data_root=data_root):
            case ApprovedMount() as approved:
                pins.append(Pin(place=place, mount=approved))
            case str() as source:
                root_only.append(source)
            case None:
                pass
    return Plan(
        pins=tuple(pins),
        root_only=tuple(root_only),
        hide_devices=approval is None and bundle.visible_devices not in {None, "void"},
    )


# --- what holds for every container -------------------------------------------------------------------------


def _check_plainness(bundle: Bundle) -> None:
    """Not privileged, and nothing of the kernel's is shared with the host but what policy can permit."""
    if not bundle.masked:
        raise Refused("the container is privileged: /proc and /sys are not masked", "leave out --privileged")
    if missing := _NAMESPACES - bundle.namespaces.keys():
        raise Refused(f"the container shares the host's {min(missing)} namespace", "leave the option out")
    for mount in bundle.mounts:
        options = set(mount.options or ())
        if not mount.is_bind and mount.type not in _KERNEL_TYPES:
            raise Refused(f"a mount of the type {mount.type!r} at {mount.destination} is not known", _TELL)
        if mount.type in _READ_ONLY_TYPES and not mount.is_read_only:
            raise Refused(
                f"the container is privileged: {mount.destination} is writable", "leave out --privileged"
            )
        if options & _OUTGOING:
            raise Refused(f"mounts at {mount.destination} would reach the host", "leave out the propagation")


def _check_cgroup(bundle: Bundle, approval: Approval | None, container: ContainerId) -> None:
    """The control group is the owner's; without an approval, it is some user's, as a build's is."""
    if approval is not None:
        permitted = _cgroups(str(approval.uid), container)
    else:
        found = re.match(r"/ds01/([0-9]{1,10})/|ds01-([0-9]{1,10})\.slice:", bundle.cgroup, re.ASCII)
        permitted = _cgroups(found[1] or found[2], container) if found else ()
    if bundle.cgroup not in permitted:
        raise Refused(f"the container would run in {bundle.cgroup}, which is not its owner's", _THROUGH)


def _cgroups(uid: str, container: ContainerId) -> tuple[str, ...]:
    """How dockerd names a container's group below its parent, by driver. SOURCE: moby daemon/oci_linux.go."""
    number = Uid(int(uid))
    return (
        f"{cgroup_parent(number, 'cgroupfs')}/{container}",
        f"{cgroup_parent(number, 'systemd')}:docker:{container}",
    )


# --- what an approval is needed for -------------------------------------------------------------------------


def _check_nothing_special(bundle: Bundle) -> None:
    """A container that no approved create made: a build's step, one that root made, or one whose create was cut short."""
    if more := bundle.capabilities - _CAPABILITIES:
        raise _unapproved(f"the capability {min(more)}")
    if joined := [kind for kind, path in bundle.namespaces.items() if path]:
        raise _unapproved(f"another's {min(joined)} namespace")


def _check_devices(bundle: Bundle, approval: Approval | None) -> None:
    """Device nodes, rules of the device control group, and hooks: of policy's list, or of the lease."""
    leased = approval is not None and approval.lease is not None
    for hook in bundle.hooks:
        if not leased and (hook.args or [""])[0] != _SETKEY:
            raise _unapproved(f"the hook {hook.path}")
    nodes = approval.nodes if approval else ()
    for node in bundle.nodes:
        if not leased and not any(is_under(node.path, path) for path in nodes):
            raise _unapproved(f"the device {node.path}")
    made = {(node.type, node.major, node.minor) for node in bundle.nodes}
    for rule in bundle.device_rules:
        if rule.allow and not _is_harmless(rule) and (rule.type, rule.major, rule.minor) not in made:
            raise _unapproved(f"the device rule {rule.type} {rule.major}:{rule.minor} {rule.access}")
    if approval is not None:
        _check_visible(bundle, approval)


def _is_harmless(rule: DeviceRule) -> bool:
    known = (rule.type, rule.major, rule.minor) in _HARMLESS_NODES
    return known or set(rule.access) <= {"m"}  # making a node without the right to open it


def _check_visible(bundle: Bundle, approval: Approval) -> None:
    """What the toolkit's hook will read is the lease; `void` where there is none, and where CDI brings the devices."""
    permitted = {"void"} | ({",".join(sorted(approval.devices))} if approval.lease else set())
    if bundle.visible_devices not in permitted:
        raise Refused(f"the container asks for the GPUs {bundle.visible_devices}, which are not its lease's")
    # SECURITY: a toolkit with `swarm-resource` in its settings reads these instead, and an image can bring them.
    named = next((entry.partition("=")[0] for entry in bundle.env if entry.startswith(SCRUBBED_PREFIX)), None)
    if approval.lease and named is not None:
        raise Refused(
            f"its image sets {named}, which may name other GPUs than its lease's; use one without it"
        )


# --- mounts -------------------------------------------------------------------------------------------------


def _judge(
    mount: Mount, approval: Approval | None, *, container: ContainerId, data_root: str
) -> ApprovedMount | str | None:
    """One mount: approved and to be pinned, root's alone to be checked (its source), or fine as it is."""
    if not mount.is_bind:
        return None
    approved = _approved(mount, approval)
    if approved is not None:
        if approved.kind in _OWNERS:
            return approved
        _check_dockers(mount, approved, data_root)
        return None
    if _is_dockers_own(mount, approval, container, data_root) or _is_anonymous(mount, data_root):
        return None
    if mount.destination in _INIT_TARGETS and mount.is_read_only:
        return mount.source
    if approval is not None and approval.lease is not None and mount.source == mount.destination:
        return mount.source  # the driver's files, as CDI mounts them
    if approval is None:
        raise _unapproved(f"{mount.source} at {mount.destination}")
    raise Refused(f"{mount.source} at {mount.destination} was not approved when the container was created")


def _approved(mount: Mount, approval: Approval | None) -> ApprovedMount | None:
    """The approval of this target. Raises: Refused: there is one, for something else."""
    found = [one for one in approval.mounts if one.target == mount.destination] if approval else []
    if not found:
        return None
    # A target of VolumesFrom may be taken by the container's own mount: dockerd decides, both were approved.
    fitting = [one for one in found if one.kind not in _OWNERS or (one.told or one.source) == mount.source]
    if not fitting:
        raise Refused(f"{mount.source} at {mount.destination} is not the source that was approved")
    permitted = [one for one in fitting if mount.is_read_only or not one.read_only]
    if not permitted:
        raise Refused(f"{mount.source} at {mount.destination} was approved read-only")
    return permitted[0]


def _check_dockers(mount: Mount, approved: ApprovedMount, data_root: str) -> None:
    """Volumes and images lie where nobody but root can change names, so text suffices. Raises: Refused: another one."""
    below = mount.source.removeprefix(f"{data_root}/")
    if approved.subpath:
        fits = _PART.fullmatch(below) is not None
    elif approved.kind is Source.IMAGE:
        fits = _LAYERS.fullmatch(below) is not None
    else:
        fits = below == f"volumes/{approved.source}/_data"
    if below == mount.source or not fits:
        raise Refused(f"{mount.source} at {mount.destination} is not the {approved.kind} that was approved")


def _is_anonymous(mount: Mount, data_root: str) -> bool:
    """A volume that dockerd made for this container and named with 64 digits, by the image's wish or a bare `-v`."""
    below = mount.source.removeprefix(f"{data_root}/volumes/")
    found = _VOLUME.fullmatch(below) if below != mount.source else None
    return found is not None and _ANONYMOUS.fullmatch(found[1]) is not None


def _is_dockers_own(mount: Mount, approval: Approval | None, container: ContainerId, data_root: str) -> bool:
    """Dockerd's files for the container, or for one whose namespaces it was let share."""
    owners = (container, *(approval.joined if approval else ()))
    return any(
        mount.source == f"{data_root}/containers/{owner}/{name}" for owner in owners for name in _OWN_FILES
    )


def _unapproved(what: str) -> Refused:
    return Refused(f"ds01 has no record that this container may have {what}", _THROUGH)
