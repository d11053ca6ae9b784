"""Attacks that are more than requests one after the other: races, forged stamps, floods. One function each, by name."""

from __future__ import annotations

from tests.attacks.plays import binds, floods, host, images, oracles, races, shares, sources, stamps, streams
from tests.attacks.plays.played import PLAYS, Played

__all__ = [
    "PLAYS",
    "Played",
    "binds",
    "floods",
    "host",
    "images",
    "oracles",
    "races",
    "shares",
    "sources",
    "stamps",
    "streams",
]
