"""The gRPC methods that dockerd serves behind /grpc, and what is done with each. What is not here is refused.

SOURCE: moby v28.5, builder/builder-next and buildkit/control: Control, LLBBridge, Content, TraceService; grpc.health.v1.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum

CONTROL = "/moby.buildkit.v1.Control"
SOLVE = f"{CONTROL}/Solve"
STATUS = f"{CONTROL}/Status"
BRIDGE = "/moby.buildkit.v1.frontend.LLBBridge"
CONTENT = "/containerd.services.content.v1.Content"


class Handling(StrEnum):
    """What happens to a call."""

    PASS = "pass"  # noqa: S105  of no user in particular
    SOLVE = "solve"  # a build: decided, rewritten
    STATUS = "status"  # of a build of one's own
    BRIDGE = "bridge"  # inside a build of one's own, by its `buildkit-controlapi-buildid`
    BRIDGE_SOLVE = "bridge_solve"  # the same, decided and rewritten
    DISK_USAGE = "disk_usage"  # one's own records
    PRUNE = "prune"  # one's own records
    HISTORY = "history"  # one's own builds
    UPDATE_HISTORY = "update_history"  # a build of one's own
    CONTENT = "content"  # what the history of one's own builds names
    SWALLOW = "swallow"  # answered by ds01 with an empty message, never sent


HANDLING: Mapping[str, Handling] = {
    f"{CONTROL}/Info": Handling.PASS,
    f"{CONTROL}/ListWorkers": Handling.PASS,
    SOLVE: Handling.SOLVE,
    STATUS: Handling.STATUS,
    f"{CONTROL}/DiskUsage": Handling.DISK_USAGE,
    f"{CONTROL}/Prune": Handling.PRUNE,
    f"{CONTROL}/ListenBuildHistory": Handling.HISTORY,
    f"{CONTROL}/UpdateBuildHistory": Handling.UPDATE_HISTORY,
    f"{BRIDGE}/Ping": Handling.BRIDGE,
    f"{BRIDGE}/Solve": Handling.BRIDGE_SOLVE,
    f"{BRIDGE}/Return": Handling.BRIDGE,
    f"{BRIDGE}/Inputs": Handling.BRIDGE,
    f"{BRIDGE}/Evaluate": Handling.BRIDGE,
    f"{BRIDGE}/ReadFile": Handling.BRIDGE,
    f"{BRIDGE}/ReadDir": Handling.BRIDGE,
    f"{BRIDGE}/StatFile": Handling.BRIDGE,
    f"{BRIDGE}/Warn": Handling.BRIDGE,
    f"{CONTENT}/Info": Handling.CONTENT,
    f"{CONTENT}/Read": Handling.CONTENT,
    "/grpc.health.v1.Health/Check": Handling.PASS,
    # SECURITY: spans of one user would stand in the traces of whose trace id they name.
    "/opentelemetry.proto.collector.trace.v1.TraceService/Export": Handling.SWALLOW,
}

INSTEAD: Mapping[str, str] = {
    f"{CONTROL}/Session": "open the session by POST /session, as docker buildx does with the docker driver",
    f"{BRIDGE}/NewContainer": "start the container with docker run; ds01 does not start one inside a build",
    f"{BRIDGE}/ReleaseContainer": "start the container with docker run; ds01 does not start one inside a build",
    f"{BRIDGE}/ExecProcess": "start the container with docker run; ds01 does not start one inside a build",
    f"{BRIDGE}/ResolveImageConfig": "look at the image with docker image inspect",
    f"{BRIDGE}/ResolveSourceMeta": "look at the image with docker image inspect",
}
"""The next step for methods that exist and are refused to all."""
OTHERWISE = "use docker buildx build, docker compose build, or DOCKER_BUILDKIT=0 docker build"
