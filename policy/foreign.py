"""What of an inspect tells which GPUs a container has that ds01 did not make, and whose it may be. Pure.

SECURITY: nothing else of it is passed on: an environment holds secrets. A name is enough where the value says nothing.
"""

from __future__ import annotations

from collections.abc import Mapping

from policy import ownership
from policy.fields import as_list, as_object, as_strings, as_text
from policy.gpus import SCRUBBED_PREFIX, VISIBLE
from policy.model import Json

# SOURCE: ds01 before this one; AIME mlc 1 and 2, `docker create --label aime.mlc=USER --name NAME._.UID`.
LEGACY_LABELS = (ownership.USER, "aime.mlc.USER", "aime.mlc")
# SOURCE: docker compose and dev containers put the folder on the host that a container was started from.
PROJECT_LABELS = ("com.docker.compose.project.working_dir", "devcontainer.local_folder")
# SOURCE: NVIDIA container toolkit, accept-nvidia-visible-devices-as-volume-mounts.
DEVICE_MOUNTS = "/var/run/nvidia-container-devices/"
# SOURCE: an image with CUDA_VERSION and no NVIDIA_REQUIRE_CUDA is a legacy one, which gets all GPUs.
CUDA_VERSION, REQUIRE_CUDA = "CUDA_VERSION", "NVIDIA_REQUIRE_CUDA"

# dockerd's and ds01's own. With them nothing but a request for devices has NVIDIA's hook read environment and mounts.
PLAIN_RUNTIMES = frozenset({"runc", "crun", "ds01", "io.containerd.runc.v2"})

# SECURITY: the longest value that is passed on. A build gives its steps any label, and nobody's telling may grow by them.
_LABELS = {
    ownership.SEAL: 256,
    **dict.fromkeys(LEGACY_LABELS, 64),  # the names of users
    **dict.fromkeys(PROJECT_LABELS, 1024),
}
_HOST = ("Runtime", "DeviceRequests", "Devices", "DeviceCgroupRules")


def excerpt(inspect: Mapping[str, Json]) -> dict[str, Json]:
    """Those fields in their places, without what is empty.

    SOURCE: Engine API 1.24 to 1.51, ContainerInspect. Raises: TypeError: an answer of another shape.
    """
    config, host = as_object(inspect.get("Config")), as_object(inspect.get("HostConfig"))
    labels = {key: as_text(value) for key, value in as_object(config.get("Labels")).items()}
    env, mounts = as_strings(config.get("Env")), [as_object(one) for one in as_list(inspect.get("Mounts"))]
    hooked = as_text(host.get("Runtime")) not in PLAIN_RUNTIMES or is_hooked(host)
    return {
        "Config": _filled(
            {
                "Env": [*_switches(env)] if hooked else [],
                "Labels": {key: value for key, value in labels.items() if len(value) <= _LABELS.get(key, 0)},
            }
        ),
        "HostConfig": _filled({key: host.get(key) for key in _HOST}),
        "Mounts": [*filter(None, (_mount(one, hooked=hooked) for one in mounts))],
    }


def is_hooked(host: Mapping[str, Json]) -> bool:
    """Whether a HostConfig asks for devices that NVIDIA's hook hands over. Raises: TypeError."""
    requests = [as_object(item) for item in as_list(host.get("DeviceRequests"))]
    return any(as_text(request.get("Driver")) != "cdi" for request in requests)


def _mount(mount: Mapping[str, Json], *, hooked: bool) -> dict[str, Json]:
    """A bind mount's source tells of an owner, a target in the toolkit's directory of a device; all else of nothing."""
    binds = as_text(mount.get("Type")) == "bind"
    names = as_text(mount.get("Destination")).startswith(DEVICE_MOUNTS) and hooked
    wanted = (("Type", "Source") if binds else ()) + (("Destination",) if names else ())
    return _filled({key: mount.get(key) for key in wanted})


def _filled(values: Mapping[str, Json]) -> dict[str, Json]:
    return {key: value for key, value in values.items() if value}


def _switches(env: list[str]) -> list[str]:
    found: list[str] = []
    for entry in env:
        name = entry.partition("=")[0]
        if name == VISIBLE:
            found.append(entry)
        elif name in {CUDA_VERSION, REQUIRE_CUDA} or name.startswith(SCRUBBED_PREFIX):
            found.append(name)
    return found
