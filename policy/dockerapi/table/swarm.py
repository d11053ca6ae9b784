"""Swarm: refused to all, since its tasks start inside dockerd, past ds01 and its plugin."""

from __future__ import annotations

from policy.dockerapi.model import Operation
from policy.dockerapi.table.row import refused

ROUTES = (
    *refused(
        Operation.SWARM_READ,
        "GET /swarm",
        "GET /swarm/unlockkey 1.25",
        "GET /services",
        "GET /services/{service}",
        "GET /services/{service}/logs 1.25",
        "GET /nodes",
        "GET /nodes/{node}",
        "GET /tasks",
        "GET /tasks/{task}",
        "GET /tasks/{task}/logs 1.29",
        "GET /secrets 1.25",
        "GET /secrets/{secret} 1.25",
        "GET /configs 1.30",
        "GET /configs/{config} 1.30",
    ),
    *refused(
        Operation.SWARM_WRITE,
        "POST /swarm/init",
        "POST /swarm/join",
        "POST /swarm/leave",
        "POST /swarm/update",
        "POST /swarm/unlock 1.25",
        "POST /services/create",
        "POST /services/{service}/update",
        "DELETE /services/{service}",
        "POST /nodes/{node}/update",
        "DELETE /nodes/{node}",
        "POST /secrets/create 1.25",
        "POST /secrets/{secret}/update 1.25",
        "DELETE /secrets/{secret} 1.25",
        "POST /configs/create 1.30",
        "POST /configs/{config}/update 1.30",
        "DELETE /configs/{config} 1.30",
    ),
)
