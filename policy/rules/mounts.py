"""What of the host a container sees: own home and the paths policy names, volumes, and nothing that leads to root.

Host paths are judged as text here; that the path really is what it says is looked at by the proxy (CheckBind).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_bool, as_int, as_list, as_object, as_strings, as_text, shown, size_bytes
from policy.grants import BindPath
from policy.model import CheckBind, EnsureVolume, Json, Reason, SetField
from policy.ownership import is_reserved_label
from policy.paths import DOCKER_SOCKETS, clean_path, is_forbidden_source, is_forbidden_target, is_under
from policy.rules.volume_options import refused_options

RULE_ID = "mounts"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

BINDS = "HostConfig.Binds"
MOUNTS = "HostConfig.Mounts"
NEXT_PATH = "use a path under your home, or a named volume"
PROPAGATIONS = frozenset({"", "private", "rprivate", "rslave"})  # the others carry mounts to the host
BIND_OPTIONS = PROPAGATIONS | {"ro", "rw", "nocopy", "copy", "consistent", "cached", "delegated"}
TMPFS_FLAGS = frozenset({"rw", "ro", "exec", "noexec", "nosuid", "nodev", "noatime"})
TMPFS_VALUES = re.compile(
    r"(size=[0-9]{1,12}[kmgKMG]?|mode=[01]?[0-7]{3}|[ug]id=[0-9]{1,10}|nr_inodes=[0-9]{1,9}k?)", re.ASCII
)
VOLUME_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """One entry of Binds. A source of "" is an anonymous volume."""

    source: str
    target: str
    options: tuple[str, ...] = ()

    def text(self) -> str:
        head = f"{self.source}:{self.target}" if self.source else self.target
        return ":".join([head, *([",".join(self.options)] if self.options else [])])


def decide(ask: Ask) -> Iterable[Finding]:
    """Binds, Mounts, Tmpfs, Volumes, VolumesFrom and VolumeDriver, each in turn."""
    host = ask.host_config
    yield from _binds(ask, as_strings(host.get("Binds")))
    yield from _mounts(ask, [as_object(item) for item in as_list(host.get("Mounts"))])
    for target, options in as_object(host.get("Tmpfs")).items():
        yield from _target(target, "HostConfig.Tmpfs")
        yield from _tmpfs(as_text(options).split(","), "HostConfig.Tmpfs")
    yield from _tmpfs_sizes(ask, as_object(host.get("Tmpfs")))
    for target in as_object(ask.body.get("Volumes")):
        yield from _target(target, "Volumes")
    for entry in as_strings(host.get("VolumesFrom")):
        if entry.partition(":")[2] not in {"", "ro", "rw"}:
            yield _refused("HostConfig.VolumesFrom", entry, "ro or rw", "leave out the mode")
    if (driver := as_text(host.get("VolumeDriver"))) not in {"", "local"}:
        yield _refused("HostConfig.VolumeDriver", driver, "local", "leave out --volume-driver")


def _binds(ask: Ask, texts: list[str]) -> Iterable[Finding]:
    written: list[Json] = []
    for text in texts:
        bind = parse_bind(text)
        if bind is None:
            yield _refused(
                BINDS, text, "SOURCE:TARGET or SOURCE:TARGET:OPTIONS", "write full paths, without colons"
            )
            continue
        for option in bind.options:
            if option not in BIND_OPTIONS:
                yield _refused(
                    BINDS, option, "ro, rw, nocopy, private, rprivate, rslave", "leave the option out"
                )
        yield from _target(bind.target, BINDS)
        source = bind.source
        if source.startswith("/"):
            source = own_socket(ask, source)
            yield from _host_path(
                ask, source, bind.target, read_only="ro" in bind.options, create=True, field=BINDS
            )
        elif source:
            yield EnsureVolume(name=source)
        written.append(replace(bind, source=source).text())
    if written != texts:
        yield SetField(path=("HostConfig", "Binds"), value=written)


def parse_bind(text: str) -> Bind | None:
    """Read one entry as dockerd does; None if it is no bind. Paths come out clean."""
    parts = text.split(":")
    if not 1 <= len(parts) <= 3:
        return None
    source, target, options = ("", *parts, "") if len(parts) == 1 else (*parts, "", "")[:3]
    clean = clean_path(target)
    if clean is None or (len(parts) > 1 and not source):
        return None
    if source.startswith("/"):
        source = clean_path(source) or ""
        if not source:
            return None
    elif source and not VOLUME_NAME.fullmatch(source):
        return None
    return Bind(source=source, target=clean, options=tuple(options.split(",")) if options else ())


def own_socket(ask: Ask, source: str) -> str:
    """Docker's socket stands for the actor's own: docker in docker keeps working, with the actor's rights."""
    return ask.grants.user_socket if source in DOCKER_SOCKETS and ask.grants.user_socket else source


def _host_path(
    ask: Ask,
    source: str,
    target: str,
    *,
    read_only: bool,
    create: bool,
    field: str,
) -> Iterable[Finding]:
    if source == ask.grants.user_socket and source:
        return
    path = _listed(ask, source)
    if path is None:
        yield _refused(field, source, _permitted(ask), NEXT_PATH)
    elif path.read_only and not read_only:
        yield _refused(field, source, f"{path.path} read-only", "add :ro")
    else:
        yield CheckBind(
            source=source,
            target=target,
            read_only=read_only,
            create=create,
            setuid_ok=path.setuid_ok,
            field=field,
        )


def _listed(ask: Ask, source: str) -> BindPath | None:
    """The entry that counts for a source: the longest path that holds it; None if there is none."""
    if is_forbidden_source(source):
        return None
    holding = [path for path in _paths(ask) if is_under(source, path.path)]
    return max(holding, key=lambda path: len(path.path), default=None)


def _paths(ask: Ask) -> list[BindPath]:
    """Policy's paths, and the home; SECURITY: never a home that holds others' (like /, or /home itself)."""
    home = clean_path(ask.actor.home)
    listed = [path for path in ask.grants.binds if path.path != "~"]
    if home is None or home.count("/") < 2 or is_forbidden_source(home) or home == "/nonexistent":
        return listed
    settings = next((path for path in ask.grants.binds if path.path == "~"), BindPath(path="~"))
    return [*listed, replace(settings, path=home)]


def _permitted(ask: Ask) -> str:
    return ", ".join(shown(path.path) for path in _paths(ask)) or "named volumes"


def _mounts(ask: Ask, mounts: list[Mapping[str, Json]]) -> Iterable[Finding]:
    written: list[Json] = []
    for mount in mounts:
        clean = {**mount}
        yield from _target(as_text(mount.get("Target")), MOUNTS)
        if (target := clean_path(as_text(mount.get("Target")))) is not None:
            clean["Target"] = target
        match as_text(mount.get("Type")):
            case "bind":
                yield from _bind_mount(ask, clean)
            case "volume":
                yield from _volume_mount(clean)
            case "tmpfs":
                yield from _tmpfs_mount(ask, clean)
            case "image":  # the image is a reference, which the ownership rule judges
                yield from _subpath(as_object(mount.get("ImageOptions")))
            case other:
                yield _refused(f"{MOUNTS}.Type", other, "bind, volume, tmpfs or image", "use one of those")
        written.append(clean)
    if written != mounts:
        yield SetField(path=("HostConfig", "Mounts"), value=written)


def _bind_mount(ask: Ask, mount: dict[str, Json]) -> Iterable[Finding]:
    """Judge a bind; leaves in `mount` the form to write."""
    source = clean_path(as_text(mount.get("Source")))
    if source is None:
        yield _refused(f"{MOUNTS}.Source", as_text(mount.get("Source")), "a full path", NEXT_PATH)
        return
    source = mount["Source"] = own_socket(ask, source)
    options = dict(as_object(mount.get("BindOptions")))
    if (propagation := as_text(options.get("Propagation"))) not in PROPAGATIONS:
        yield _refused(f"{MOUNTS}.Propagation", propagation, "private, rprivate or rslave", "leave it out")
    create = as_bool(options.pop("CreateMountpoint", None))
    if "BindOptions" in mount and create:
        mount["BindOptions"] = options  # the proxy makes the folder, as the user; dockerd would as root
        if not options:
            del mount["BindOptions"]
    yield from _host_path(
        ask,
        source,
        as_text(mount.get("Target")),
        read_only=as_bool(mount.get("ReadOnly")),
        create=create,
        field=MOUNTS,
    )


def _volume_mount(mount: dict[str, Json]) -> Iterable[Finding]:
    name = as_text(mount.get("Source"))
    if name and not VOLUME_NAME.fullmatch(name):
        yield _refused(f"{MOUNTS}.Source", name, "a volume's name", "use letters, digits, _ . and -")
    options = dict(as_object(mount.get("VolumeOptions")))
    yield from _subpath(options)
    driver = as_object(options.get("DriverConfig"))
    if as_text(driver.get("Name")) not in {"", "local"}:
        yield _refused(f"{MOUNTS}.DriverConfig.Name", as_text(driver["Name"]), "local", "leave it out")
    yield from refused_options(as_object(driver.get("Options")), f"{MOUNTS}.DriverConfig.Options", RULE_ID)
    labels = as_object(options.get("Labels"))
    kept = {key: value for key, value in labels.items() if not is_reserved_label(key)}
    if kept != labels:
        options = {key: value for key, value in options.items() if key != "Labels"} | (
            {"Labels": kept} if kept else {}
        )
        mount["VolumeOptions"] = options
        if not options:
            del mount["VolumeOptions"]
    if name:
        yield EnsureVolume(name=name)


def _subpath(options: Mapping[str, Json]) -> Iterable[Finding]:
    subpath = as_text(options.get("Subpath"))
    if subpath.startswith("/") or ".." in subpath.split("/"):
        yield _refused(
            f"{MOUNTS}.Subpath", subpath, "a path below the volume", "leave out '..' and the first /"
        )


def _tmpfs_mount(ask: Ask, mount: dict[str, Json]) -> Iterable[Finding]:
    options = as_object(mount.get("TmpfsOptions"))
    pairs = ["=".join(as_strings(pair)) for pair in as_list(options.get("Options"))]
    yield from _tmpfs(pairs, f"{MOUNTS}.TmpfsOptions.Options")
    limit = ask.grants.limits.memory_bytes
    if as_int(options.get("SizeBytes")) > limit:
        mount["TmpfsOptions"] = {**options, "SizeBytes": limit}


def _tmpfs(options: list[str], field: str) -> Iterable[Finding]:
    for option in options:
        if option and option not in TMPFS_FLAGS and not TMPFS_VALUES.fullmatch(option):
            yield _refused(field, option, "size, mode, uid, gid, ro, exec", "leave the option out")


def _tmpfs_sizes(ask: Ask, asked: Mapping[str, Json]) -> Iterable[Finding]:
    """No tmpfs is larger than the memory it would fill."""
    limit = ask.grants.limits.memory_bytes

    def bounded(option: str) -> str:
        number = option.removeprefix("size=")
        return f"size={limit}" if number != option and size_bytes(number) > limit else option

    written: dict[str, Json] = {
        target: ",".join(bounded(option) for option in as_text(options).split(","))
        for target, options in asked.items()
    }
    if written != asked:
        yield SetField(path=("HostConfig", "Tmpfs"), value=written, note="Tmpfs lowered to the memory limit")


def _target(target: str, field: str) -> Iterable[Finding]:
    clean = clean_path(target)
    if clean is None:
        yield _refused(field, target, "a full path as target", "write a path that begins with /")
    elif is_forbidden_target(clean):
        yield _refused(field, clean, "targets outside /proc, /sys and /dev", "choose another target")


def _refused(field: str, asked: Json, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
