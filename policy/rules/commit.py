"""An image made from a container carries what the container had, and no configuration sent along."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object
from policy.model import SetField, SetQuery
from policy.ownership import is_reserved_label

RULE_ID = "commit"
UNSEALED = 'LABEL ds01.seal=""'
OPERATIONS = frozenset({Operation.IMAGE_COMMIT})
NEEDS_FACTS = False


def decide(ask: Ask) -> Iterable[Finding]:
    """Drop `ds01.*` labels of the body, and break the seal that the container's labels hand to the image.

    SECURITY: an image that carried a valid seal would hand it to every build step of whoever builds on it.
    """
    changes = ask.request.query.get("changes", ())
    if changes[-1:] != (UNSEALED,):
        yield SetQuery(key="changes", values=(*changes, UNSEALED))
    labels = as_object(ask.body.get("Labels"))
    kept = {key: value for key, value in labels.items() if not is_reserved_label(key)}
    if kept != labels:
        yield SetField(path=("Labels",), value=kept)
