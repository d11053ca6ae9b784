"""Extra groups of a container's processes: numbers only if the user has them on the host too."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_strings, shown
from policy.model import Reason

RULE_ID = "groups"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Names are the image's own and pass; a number counts on bind mounts (docker, disk, video)."""
    own = {str(gid) for gid in (*ask.actor.gids, ask.actor.gid)}
    for group in as_strings(ask.host_config.get("GroupAdd")):
        if group.strip().lstrip("+-").isdigit() and group not in own:
            yield Reason(
                rule=RULE_ID,
                field="HostConfig.GroupAdd",
                asked=shown(group),
                limit="groups you are in",
                next_step="leave out --group-add, or ask to be added to the group",
            )
