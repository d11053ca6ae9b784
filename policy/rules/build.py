"""The classic builder, within the same bounds as a container."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.buildkit.builder import is_buildkit
from policy.cpus import PERIOD_US
from policy.dockerapi.model import Operation
from policy.fields import as_object, shown
from policy.model import Kind, Reason, Reference, SetQuery

RULE_ID = "build"
OPERATIONS = frozenset({Operation.IMAGE_BUILD})
NEEDS_FACTS = False

# `rm` is on where it is not said. The container of a step is nobody's, and in no limit: none outlives its build.
DROPPED = ("squash", "isolation", "ulimits", "cpusetcpus", "cpusetmems", "cpushares", "cachefrom", "rm")
DENIED = ("remote", "securityopt", "outputs", "session")
NETWORKS = frozenset({"", "default", "bridge", "none"})
_IDS = re.compile(r'\["sha256:[0-9a-f]{64}"(?:,"sha256:[0-9a-f]{64}")*\]', re.ASCII)
_FULL_ID = re.compile(r"[0-9a-f]{64}", re.ASCII)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse what reaches out of the build; set its memory and CPU."""
    query = {key: values[0] for key, values in ask.request.query.items() if values}
    if is_buildkit(ask.request.query):  # the rule `buildkit`, and `policy.buildkit` behind it
        return
    if query.get("version", "1") not in {"", "1"}:
        yield _refused("version", query["version"], "1 or 2", "leave it out")
    if not _may_join(ask, query.get("networkmode", "")):
        yield _refused(
            "networkmode",
            query["networkmode"],
            "default, none or a network of your own",
            "leave out --network",
        )
    for key in DENIED:
        if query.get(key, "") not in {"", "[]", "{}", "null"}:
            yield _refused(key, query[key], "nothing", "send the build context from your machine")
    if "BUILDKIT_SYNTAX" in as_object(json.loads(query.get("buildargs", "") or "{}")):
        yield _refused("buildargs", "BUILDKIT_SYNTAX", "arguments of the Dockerfile", "leave it out")
    for key in DROPPED:
        if key in ask.request.query and not _is_own_cache(ask, key):
            yield SetQuery(key=key, values=())
    yield from _bounds(ask, query)


def _is_own_cache(ask: Ask, key: str) -> bool:
    """In the second look: the ids that the proxy puts where it has dropped the client's names."""
    if key != "cachefrom" or ask.facts is not None:
        return False
    return _IDS.fullmatch(next(iter(ask.request.query["cachefrom"]), "")) is not None


def _may_join(ask: Ask, network: str) -> bool:
    """Own networks by name; in the second look by full id, since the first has judged whose that is."""
    if ask.facts is None:
        return network in NETWORKS or _FULL_ID.fullmatch(network) is not None
    if network in NETWORKS:
        return True
    fact = ask.facts.objects.get(Reference(kind=Kind.NETWORK, text=network))
    # What is absent or another's is the ownership rule's to answer.
    is_host = network == "host" or (fact is not None and fact.shared and fact.name == "host")
    return not is_host and not network.startswith("container:")


def _bounds(ask: Ask, query: dict[str, str]) -> Iterable[Finding]:
    limits = ask.grants.limits
    memory = str(_within(query.get("memory", ""), limits.memory_bytes))
    quota = limits.cpu_millis * PERIOD_US // 1000
    bounds = {
        "memory": memory,
        "memswap": memory,
        "shmsize": str(_within(query.get("shmsize", ""), limits.shm_bytes)),
        "cpuperiod": str(PERIOD_US),
        "cpuquota": str(_within(query.get("cpuquota", ""), max(1000, quota))),
        "forcerm": "1",
    }
    for key, value in bounds.items():
        yield SetQuery(key=key, values=(value,))


def _within(text: str, limit: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else 0
    return number if 0 < number <= limit else limit


def _refused(field: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(rule=RULE_ID, field=field, asked=shown(asked), limit=limit, next_step=next_step)
