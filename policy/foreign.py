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

_LABELS = frozenset({ownership.SEAL, *LEGACY_LABELS, *PROJECT_LABELS})
_HOST = ("Runtime", "DeviceRequests", "Devices", "DeviceCgroupRules")


def excerpt(inspect: Mapping[str, Json]) -> dict[str, Json]:
    """Those fields in their places, without what is empty.

    SOURCE: Engine API 1.24 to 1.51, ContainerInspect. Raises: TypeError: an answer of another shape.
    """
    config, host = as_object(inspect.get("Config")), as_object(inspect.get("HostConfig"))
    labels = {key: as_text(value) for key, value in as_object(config.get("Labels")).items()}
    return {
        "Config": _filled(
            {
                "Env": [*_switches(as_strings(config.get("Env")))],
                "Labels": {key: value for key, value in labels.items() if key in _LABELS},
            }
        ),
        "HostConfig": _filled({key: host.get(key) for key in _HOST}),
        "Mounts": [*filter(None, (_mount(as_object(one)) for one in as_list(inspect.get("Mounts"))))],
    }


def _mount(mount: Mapping[str, Json]) -> dict[str, Json]:
    """A bind mount's source tells of an owner, a target in the toolkit's directory of a device; all else of nothing."""
    binds = as_text(mount.get("Type")) == "bind"
    names = as_text(mount.get("Destination")).startswith(DEVICE_MOUNTS)
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
