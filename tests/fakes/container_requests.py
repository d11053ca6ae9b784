"""Every request that names one container or an exec in it, for the rules about containers that are not wholly one's own."""

from __future__ import annotations

from policy.dockerapi.model import Operation, Request
from policy.dockerapi.routes import ROUTE_OF
from policy.model import Kind
from tests.fakes.policy_world import create, request

NAME = "bob.web"
BODIES: dict[Operation, dict[str, object]] = {
    Operation.CONTAINER_EXEC: {"Cmd": ["id"]},
    Operation.CONTAINER_UPDATE: {},
    Operation.EXEC_START: {},
}
ON_ONE = sorted(
    operation
    for operation, route in ROUTE_OF.items()
    if {"{container}", "{exec}"} & {*route.template.split("/")} and operation is not Operation.CHECKPOINT
)
JOINING = {
    "network": create({"NetworkMode": f"container:{NAME}"}),
    "pid": create({"PidMode": f"container:{NAME}"}),
    "ipc": create({"IpcMode": f"container:{NAME}"}),
    "volumes": create({"VolumesFrom": [NAME]}),
    "link": create({"Links": [f"{NAME}:x"]}),
    "commit": request(Operation.IMAGE_COMMIT, {}, query={"container": (NAME,)}),
    "build": request(Operation.IMAGE_BUILD, query={"networkmode": (f"container:{NAME}",)}),
}


def asked(operation: Operation) -> Request:
    """The plainest of one operation."""
    query = {"name": ("other",)} if operation is Operation.CONTAINER_RENAME else {}
    where = "exec" if "{exec}" in ROUTE_OF[operation].template else "container"
    return request(operation, BODIES.get(operation), query=query, **{where: NAME})


def kind_of(operation: Operation) -> Kind:
    """What its path names."""
    return Kind.EXEC if "{exec}" in ROUTE_OF[operation].template else Kind.CONTAINER
