"""Names of containers must not look like ids: a container named like another's short id would answer for it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import shown
from policy.model import Reason

RULE_ID = "names"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.CONTAINER_RENAME, Operation.CONTAINER_DELETE})
NEEDS_FACTS = False

_LIKE_AN_ID = re.compile(r"[0-9a-f]{12}|[0-9a-f]{64}", re.ASCII)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse names of exactly 12 or 64 hex digits, and the removal of link names, which may be another's."""
    if (ask.request.query.get("link") or ("",))[0] not in {"", "0", "false", "False"}:
        yield Reason(
            rule=RULE_ID, field="link", asked="true", limit="false", next_step="remove the container itself"
        )
    for name in ask.request.query.get("name", ()):
        if _LIKE_AN_ID.fullmatch(name.removeprefix("/")):
            yield Reason(
                rule=RULE_ID,
                field="name",
                asked=shown(name),
                limit="names that are not 12 or 64 hex digits",
                next_step="choose another name",
            )
