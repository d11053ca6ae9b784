"""`docker top` runs the host's ps as root, so its arguments are a short list."""

from __future__ import annotations

import re
from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import shown
from policy.model import Reason

RULE_ID = "top"
OPERATIONS = frozenset({Operation.CONTAINER_TOP})
NEEDS_FACTS = False

PLAIN = frozenset({"", "-ef", "aux", "-aux", "-e", "-el", "-eF", "-efl", "auxf", "-eo"})
# Columns that show more than processes' own figures (environments come by the `e` modifier) are not listed.
COLUMNS = frozenset(
    {
        "pid",
        "ppid",
        "user",
        "uid",
        "group",
        "gid",
        "comm",
        "args",
        "cmd",
        "time",
        "etime",
        "pcpu",
        "pmem",
        "rss",
        "vsz",
        "stat",
        "tty",
        "nlwp",
        "start",
    }
)
_CHOSEN = re.compile(r"(?:-e|-A)?\s*-?o\s*([a-z,]+)|-eo\s+([a-z,]+)", re.ASCII)


def decide(ask: Ask) -> Iterable[Finding]:
    """Refuse what is not listed."""
    for text in ask.request.query.get("ps_args", ()):
        chosen = _CHOSEN.fullmatch(text.strip())
        columns = set((chosen[1] or chosen[2] or "").split(",")) if chosen else set()
        if text.strip() not in PLAIN and not (columns and columns <= COLUMNS):
            yield Reason(
                rule=RULE_ID,
                field="ps_args",
                asked=shown(text),
                limit="-ef, aux, or -o with names of columns",
                next_step="leave the arguments out",
            )
