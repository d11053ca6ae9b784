"""Where the engine may fetch from for a user's build: `ADD https://...` is fetched by dockerd, as root and from the host's network.

One list of rules serves both builders: the classic one, whose Dockerfile ds01 reads, and BuildKit, which holds them
against each source itself (a source policy). So the patterns are written in what Python's `re` and Go's RE2 both read, and
are held against whole addresses, `https://host/path`, and what BuildKit calls a repository, `git://host/path`.

A name may still lead anywhere, and so may a redirection: what is looked at is the address as it is written.
SOURCE: RFC 6890 (special addresses), 6761, 6762 and 8375 (special names), ICANN's reserved `internal`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from policy.fields import shown
from policy.model import Reason

ANY: Final = "*"  # any host but this machine and private networks
RULE_ID: Final = "build"

_BEFORE = r"^(?i:https?|git)://(?:[^/?#]*@)?"
_AFTER = r"(?::[^/?#@]*)?(?:[/?#]|$)"
# SECURITY: a host whose last part begins with a digit is an address to some resolvers, in any of `127.1`, `0x7f.1`, `2130706433`.
_NAME = r"(?i:(?:[a-z0-9_-]+\.)+[a-z][a-z0-9-]*)\.?"
_BYTE = r"(?:0|[1-9][0-9]{0,2})"
_IPV4 = rf"(?:{_BYTE}\.){{3}}{_BYTE}"
_IPV6 = r"\[[23](?i:[0-9a-f]{3}:[0-9a-f:]*)\]"  # 2000::/3, which is all that is routed
_HERE = (
    r"(?:0|10|127)\..*",
    r"100\.(?:6[4-9]|[7-9][0-9]|1[01][0-9]|12[0-7])\..*",
    r"169\.254\..*",
    r"172\.(?:1[6-9]|2[0-9]|3[01])\..*",
    r"192\.168\..*",
    r"192\.0\.0\..*",
    r"198\.1[89]\..*",
    r"(?:22[4-9]|2[3-9][0-9])\..*",
    r"\[2002:.*",  # 6to4: an IPv4 address in other clothes
    r"(?i:(?:[a-z0-9_-]+\.)*(?:localhost|localdomain|local|internal|home\.arpa))\.?",
)
_PASSWORD = re.compile(r"//[^/?#]*@")  # SECURITY: the refusal goes into the audit
_UPLOAD = r"^http://buildkit-session/[A-Za-z0-9]{1,128}$"  # a context that comes through the client's session


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """What becomes of the addresses that a pattern is found in. Of several the last counts."""

    allow: bool
    pattern: str


def rules(hosts: frozenset[str]) -> tuple[Rule, ...]:
    """What policy's list of hosts means."""
    return tuple(_rules(hosts))


def _rules(hosts: frozenset[str]) -> Iterator[Rule]:
    yield Rule(allow=False, pattern=_BEFORE)
    if ANY in hosts:
        yield Rule(allow=True, pattern=f"{_BEFORE}(?:{_NAME}|{_IPV4}|{_IPV6}){_AFTER}")
        # `.*` above runs on to the end of the host alone: what stands before `_AFTER` holds none of its characters.
        here = "|".join(_HERE).replace(".*", "[^/?#:@]*")
        yield Rule(allow=False, pattern=f"{_BEFORE}(?:{here}){_AFTER}")
    yield Rule(allow=True, pattern=_UPLOAD)
    if named := sorted(hosts - {ANY}):
        listed = "|".join(_quoted(host) for host in named)
        yield Rule(allow=True, pattern=f"{_BEFORE}(?i:{listed})\\.?{_AFTER}")


def may_fetch(hosts: frozenset[str], address: str) -> bool:
    """Whether the engine may fetch from there. What is no address of these kinds is not fetched at all."""
    allowed = True
    for rule in rules(hosts):
        if re.search(rule.pattern, address, re.ASCII):
            allowed = rule.allow
    return allowed and "\n" not in address


def refusal(hosts: frozenset[str], address: str) -> Reason | None:
    """Why the engine may not fetch from there; None if it may."""
    if may_fetch(hosts, address):
        return None
    limit = ", ".join("public hosts" if host == ANY else host for host in sorted(hosts)) or "none"
    return Reason(
        rule=RULE_ID,
        field="ADD",
        asked=shown(_PASSWORD.sub("//", address)),
        limit=limit,
        next_step="download it and use COPY, or ask the admin to list the host (fetch_hosts)",
    )


def _quoted(host: str) -> str:
    """A host as a pattern. `re.escape` writes what RE2 does not read."""
    return "".join(f"\\{char}" if char in ".[]" else char for char in host)
