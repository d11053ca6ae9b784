"""The door to `policy.dockerapi.answers`: what the engine answered, reduced to what one user may see (I4).

Bytes and values in, bytes and values out. Every filter raises `UnreadableAnswer` when the engine's answer has
not the shape it expects; the caller then says 502 and passes nothing on.
Answers about one object of the user's own (top, logs, stats, changes, archive, wait) need no filter.
"""

from policy.dockerapi.answers.build_cache import CacheRecord, cache_of, own_records
from policy.dockerapi.answers.built import (
    build_prune,
    container_prune,
    error_line,
    image_delete,
    image_prune,
    network_prune,
    volume_prune,
)
from policy.dockerapi.answers.errors import (
    NO_SWARM_MESSAGE,
    NO_SWARM_STATUS,
    error,
    message,
    not_found,
    scrub,
    taken,
)
from policy.dockerapi.answers.events import EventFilter, JsonStream
from policy.dockerapi.answers.images import image_history, image_inspect
from policy.dockerapi.answers.inspect import (
    container_create,
    container_inspect,
    container_update,
    created_id,
    exec_inspect,
    network_create,
    stats,
    wait,
)
from policy.dockerapi.answers.lists import (
    container_list,
    image_count,
    image_list,
    network_list,
    volume_inspect,
    volume_list,
)
from policy.dockerapi.answers.mounts import Sources
from policy.dockerapi.answers.networks import network_inspect
from policy.dockerapi.answers.saved import SavedTar
from policy.dockerapi.answers.shared import stats as shared_stats
from policy.dockerapi.answers.shared import wait as shared_wait
from policy.dockerapi.answers.system import Counts, cap_api_version, disk_usage, info, ping_headers, version
from policy.dockerapi.answers.visibility import REAL_NAMES, Names, UnreadableAnswer, Visibility

__all__ = [
    "NO_SWARM_MESSAGE",
    "NO_SWARM_STATUS",
    "REAL_NAMES",
    "CacheRecord",
    "Counts",
    "EventFilter",
    "JsonStream",
    "Names",
    "SavedTar",
    "Sources",
    "UnreadableAnswer",
    "Visibility",
    "build_prune",
    "cache_of",
    "cap_api_version",
    "container_create",
    "container_inspect",
    "container_list",
    "container_prune",
    "container_update",
    "created_id",
    "disk_usage",
    "error",
    "error_line",
    "exec_inspect",
    "image_count",
    "image_delete",
    "image_history",
    "image_inspect",
    "image_list",
    "image_prune",
    "info",
    "message",
    "network_create",
    "network_inspect",
    "network_list",
    "network_prune",
    "not_found",
    "own_records",
    "ping_headers",
    "scrub",
    "shared_stats",
    "shared_wait",
    "stats",
    "taken",
    "version",
    "volume_inspect",
    "volume_list",
    "volume_prune",
    "wait",
]
