"""A bundle is read as runc reads it, and only its sources are written."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from runtime.bundle import BundleUnreadable, Mount, read_bundle, rewrite

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="bundles are root's")

# As dockerd 20.10.24 writes it, shortened.
CONFIG: dict[str, Any] = {
    "ociVersion": "1.0.2-dev",
    "process": {
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["NVIDIA_VISIBLE_DEVICES=all", "A=é", "NVIDIA_VISIBLE_DEVICES=void"],
        "capabilities": {"bounding": ["CAP_CHOWN"], "ambient": ["CAP_KILL"]},
    },
    "root": {"path": "/var/lib/docker/overlay2/x/merged"},
    "mounts": [
        {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
        {"destination": "/d", "type": "bind", "source": "/home/alice/d", "options": ["rbind", "ro"]},
    ],
    "hooks": {"prestart": [{"path": "/proc/1/exe", "args": ["libnetwork-setkey"]}], "poststop": None},
    "linux": {
        "cgroupsPath": "/ds01/1000/c",
        "resources": {
            "devices": [{"allow": False, "access": "rwm"}],
            "memory": {"limit": 2**62, "swap": 2**64 - 1},
        },
        "namespaces": [{"type": "mount"}, {"type": "network", "path": "/proc/7/ns/net"}],
        "devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}],
        "maskedPaths": ["/proc/kcore"],
        "readonlyPaths": ["/proc/bus"],
    },
}


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    write(tmp_path, CONFIG)
    return tmp_path


def write(directory: Path, config: object) -> None:
    (directory / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    (directory / "config.json").chmod(0o644)


def test_what_counts_is_read(bundle: Path) -> None:
    """Every set of capabilities, every kind of hook, the last of two variables."""
    found = read_bundle(bundle)
    assert [mount.destination for mount in found.mounts] == ["/proc", "/d"]
    assert found.cgroup == "/ds01/1000/c"
    assert found.capabilities == {"CAP_CHOWN", "CAP_KILL"}
    assert [hook.args for hook in found.hooks] == [["libnetwork-setkey"]]
    assert found.namespaces == {"mount": "", "network": "/proc/7/ns/net"}
    assert (found.nodes[0].path, found.nodes[0].major) == ("/dev/fuse", 10)
    assert (found.device_rules[0].allow, found.device_rules[0].major) == (False, None)
    assert (found.masked, found.visible_devices) == (True, "void")


@pytest.mark.parametrize("missing", ["maskedPaths", "readonlyPaths"])
def test_an_unmasked_container_is_told(bundle: Path, missing: str) -> None:
    """Either list, absent or empty."""
    values: tuple[list[str] | None, ...] = ([], None)
    for value in values:
        write(bundle, {**CONFIG, "linux": {**CONFIG["linux"], missing: value}})
        assert not read_bundle(bundle).masked


@pytest.mark.parametrize(
    ("mount", "is_bind"),
    [
        (Mount(destination="/x", type="bind"), True),
        (Mount(destination="/x", type="tmpfs", options=["nosuid", "rbind"]), True),
        (Mount(destination="/x", type="none", options=["bind"]), True),
        (Mount(destination="/x", type="tmpfs", options=["rw"]), False),
        (Mount(destination="/x", type="tmpfs"), False),
    ],
)
def test_a_bind_is_one_by_type_or_option(mount: Mount, *, is_bind: bool) -> None:
    """SOURCE: runc specconv, createLibcontainerMount."""
    assert mount.is_bind is is_bind


@pytest.mark.parametrize(
    ("options", "read_only"),
    [
        (["ro"], True),
        (["rbind", "rro"], True),
        (["ro", "rw"], False),
        (["rro", "rrw"], False),
        (["rro", "rw"], False),
        (["rw"], False),
        (["rnoexec"], False),
        (None, False),
    ],
)
def test_read_only_is_what_stays_so(options: list[str] | None, *, read_only: bool) -> None:
    """A later `rw` would take it back."""
    assert Mount(destination="/x", options=options).is_read_only is read_only


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "{}",
        json.dumps({**CONFIG, "mounts": {}}),
        json.dumps({**CONFIG, "linux": None}),
        json.dumps(
            {
                **CONFIG,
                "linux": {**CONFIG["linux"], "namespaces": [{"type": "pid"}, {"type": "pid", "path": "/x"}]},
            }
        ),
    ],
)
def test_what_cannot_be_read_is_no_bundle(bundle: Path, config: str) -> None:
    """Nothing is guessed at."""
    write(bundle, config)
    with pytest.raises(BundleUnreadable):
        read_bundle(bundle)


def test_a_bundle_of_somebody_else_is_none(bundle: Path) -> None:
    """Missing, a user's, or writable by others."""
    (bundle / "config.json").chmod(0o666)
    with pytest.raises(BundleUnreadable):
        read_bundle(bundle)
    os.chown(bundle / "config.json", 1000, 1000)
    with pytest.raises(BundleUnreadable):
        read_bundle(bundle)
    with pytest.raises(BundleUnreadable):
        read_bundle(bundle / "none")


def test_only_the_sources_change(bundle: Path) -> None:
    """All else is as dockerd wrote it, large numbers and other letters too."""
    rewrite(bundle, sources={1: "/run/ds01/pins/x/0"}, hide_devices=False)
    expected = json.loads(json.dumps(CONFIG))
    expected["mounts"][1]["source"] = "/run/ds01/pins/x/0"
    assert json.loads((bundle / "config.json").read_text()) == expected
    assert (bundle / "config.json").stat().st_mode & 0o777 == 0o644


def test_devices_can_be_hidden(bundle: Path) -> None:
    """Every spelling of the variable says void; others stay."""
    env = ["NVIDIA_VISIBLE_DEVICES", "NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_VISIBLE_DEVICES_X=1"]
    write(bundle, {**CONFIG, "process": {"env": env}})
    rewrite(bundle, sources={}, hide_devices=True)
    void = "NVIDIA_VISIBLE_DEVICES=void"
    assert read_bundle(bundle).env == (void, void, "NVIDIA_VISIBLE_DEVICES_X=1")


def test_a_mount_that_is_not_there_is_not_written(bundle: Path) -> None:
    """A bundle that changed meanwhile is no bundle."""
    with pytest.raises(BundleUnreadable):
        rewrite(bundle, sources={2: "/x"}, hide_devices=False)
