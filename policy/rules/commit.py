"""An image made from a container carries what the container had, and no configuration sent along."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object
from policy.model import SetField
from policy.ownership import is_reserved_label

RULE_ID = "commit"
OPERATIONS = frozenset({Operation.IMAGE_COMMIT})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Drop `ds01.*` labels of the body; `changes` may set them, and every create overwrites them."""
    labels = as_object(ask.body.get("Labels"))
    kept = {key: value for key, value in labels.items() if not is_reserved_label(key)}
    if kept != labels:
        yield SetField(path=("Labels",), value=kept)
