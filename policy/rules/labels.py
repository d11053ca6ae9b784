"""Who owns an object is ds01's to say: `ds01.*` labels are dropped and set anew on all that is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown
from policy.model import Reason, SealLabels

RULE_ID = "labels"
OPERATIONS = frozenset(
    {
        Operation.CONTAINER_CREATE,
        Operation.VOLUME_CREATE,
        Operation.NETWORK_CREATE,
        Operation.IMAGE_BUILD,
    }
)
NEEDS_FACTS = False

MOST_LABELS = 256
MOST_CHARS = 64 * 1024


def decide(ask: Ask) -> Iterable[Finding]:
    """Seal, and bound what is kept."""
    if ask.request.operation is Operation.IMAGE_BUILD:
        yield SealLabels(path=())
        return
    labels = as_object(ask.body.get("Labels"))
    chars = _chars(labels)
    if len(labels) > MOST_LABELS or chars > MOST_CHARS:
        yield Reason(
            rule=RULE_ID,
            field="Labels",
            asked=shown(f"{len(labels)} labels of {chars} characters"),
            limit=f"{MOST_LABELS} labels of {MOST_CHARS} characters",
            next_step="put large data into a file or a volume",
        )
    yield SealLabels(path=("Labels",))


def _chars(labels: Mapping[str, object]) -> int:
    return sum(
        len(key) + len(as_text(value)) for key, value in labels.items() if isinstance(value, str | None)
    )
