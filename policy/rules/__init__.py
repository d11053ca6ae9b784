"""One module per rule; its name is the rule id that users see."""

from policy.ask import Rule, rule_of
from policy.rules import (
    build,
    buildkit,
    capabilities,
    cgroup,
    commit,
    containers,
    devices,
    gpu,
    groups,
    labels,
    log_config,
    mounts,
    names,
    namespaces,
    network_mode,
    network_options,
    networks,
    operation,
    ownership,
    ports,
    privileged,
    registry,
    resources,
    restart_policy,
    runtime,
    security_opt,
    storage,
    sysctls,
    timing,
    top,
    ulimits,
    volume_options,
)

RULES: tuple[Rule, ...] = tuple(
    rule_of(module)
    for module in (
        operation,
        ownership,
        build,
        buildkit,
        capabilities,
        cgroup,
        commit,
        containers,
        devices,
        gpu,
        groups,
        labels,
        log_config,
        mounts,
        names,
        namespaces,
        network_mode,
        network_options,
        networks,
        ports,
        privileged,
        registry,
        resources,
        restart_policy,
        runtime,
        security_opt,
        storage,
        sysctls,
        timing,
        top,
        ulimits,
        volume_options,
    )
)

# Ids of refusals that are no policy rules: parts of ds01 that say no for reasons of their own.
OTHER_IDS = frozenset(
    {
        "bind_mounts",
        "bug",
        "canary",
        "canonical_request",
        "connections",
        "engine",
        "gpu_lease",
        "gpu_limit",
        "identity",
        "image_tags",
        "malformed_request",
        "route_table",
        "stamp",
        "unavailable",
        "unknown_field",
        "volume_names",
    }
)
PAGES = frozenset(rule.id for rule in RULES) | OTHER_IDS
"""Every id that a refusal can name; each has a page in docs/rules."""
