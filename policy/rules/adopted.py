"""A container that ds01 did not make, and an admin gave to its owner, may be looked at, stopped, saved and removed.

Its create was never decided on: a start would go past the guard and the owner's limits, a copy would reach whatever is
mounted, and programs are run in it only if the same rules would have let it be made (ADR 0023).
"""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.dockerapi.references import NAMING_CONTAINERS
from policy.fields import shown
from policy.model import Adopted, Kind, Reason, Reference

RULE_ID = "adopted"
OPERATIONS = NAMING_CONTAINERS
NEEDS_FACTS = True

PERMITTED = frozenset(
    {
        Operation.CONTAINER_LIST,  # as a reference in `before` and `since`
        Operation.CONTAINER_INSPECT,
        Operation.CONTAINER_TOP,
        Operation.CONTAINER_LOGS,
        Operation.CONTAINER_CHANGES,
        Operation.CONTAINER_STATS,
        Operation.CONTAINER_WAIT,
        Operation.CONTAINER_RESIZE,
        Operation.CONTAINER_STOP,
        Operation.CONTAINER_KILL,
        Operation.CONTAINER_PAUSE,
        Operation.CONTAINER_UNPAUSE,
        Operation.CONTAINER_RENAME,
        Operation.CONTAINER_DELETE,
        Operation.CONTAINER_EXPORT,  # its own layers, and nothing that is mounted
        Operation.IMAGE_COMMIT,
        Operation.EXEC_INSPECT,
        Operation.EXEC_RESIZE,
    }
)
# Not attach: its stream could be that of a later run, started past the guard (socket_proxy.adopted_execs).
INSIDE = frozenset({Operation.CONTAINER_EXEC, Operation.EXEC_START})


def decide(ask: Ask) -> Iterable[Finding]:
    """One reason for each adopted container that the request would do more with."""
    operation = ask.request.operation
    for reference, fact in ask.facts.objects.items() if ask.facts else ():
        if fact is None or fact.adopted is None or ask.grants.admin or operation in PERMITTED:
            continue
        if operation not in INSIDE:
            yield _refused(reference, "to look at, stop, commit, export and remove it", _ANEW)
        elif fact.adopted.closed:
            yield _refused(reference, _closed(fact.adopted), _ANEW)


_ANEW = "docker commit it, and create a container of that image; what is mounted, mount there"


def _closed(adopted: Adopted) -> str:
    return f"to run no program in it, since you could not have it made: {adopted.closed}"


def _refused(reference: Reference, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID,
        field=Kind.CONTAINER,
        asked=f"{shown(reference.text)}, made before ds01,",
        limit=limit,
        next_step=next_step,
    )
