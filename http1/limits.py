"""Bounds on everything that a client controls."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """One value for each thing a client could make large or slow. Streams have no time limit."""

    head_bytes: int = 64 * 1024  # request line and headers, or response head
    header_count: int = 200
    trailer_bytes: int = 8 * 1024
    json_body_bytes: int = 900 * 1024  # what `read_body` callers use: above 1 MiB a plugin sees no body
    head_seconds: float = 30.0  # from the first byte of a head to its last (slowloris)
    idle_seconds: float = 300.0  # a kept-alive connection without a request
    linger_seconds: float = 2.0  # after an early answer: time to read it before the connection closes
    drain_bytes: int = 256 * 1024  # unread request body that is thrown away to keep a connection alive
    connections: int = 1024  # per listener, hijacked ones included
    connections_per_uid: int = 512  # per listener and peer uid, so that one user cannot fill a shared socket
    turn_away_seconds: float = 5.0  # how long a connection over the limit waits for another to end
    high_water_bytes: int = 64 * 1024  # stop reading from the sender above this
    low_water_bytes: int = 16 * 1024  # read on below this
    upstream_idle_connections: int = 64
    connect_seconds: float = 10.0
