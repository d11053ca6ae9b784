"""`ds01 explain <request id or container>`: one decision in full, from the audit trail."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from cli.outcome import Exit, Failed
from cli.screen import columns, paint, plain
from policy.rules import PAGES

# SOURCE: moby, daemon/names: RestrictedNameChars; ids of requests and containers are of the same characters.
_SUBJECT = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


def subject(text: str) -> str:
    """The id as it stands at the end of a denial, or a container's name or id. Raises: Failed: USAGE."""
    if not _SUBJECT.fullmatch(text):
        raise Failed(
            Exit.USAGE,
            f"{plain(text)!r} is no request id and no container; the id stands at the end of a denial, like 7f3ac0d1e2b4",
        )
    return text


def explain(record: Mapping[str, Any]) -> str:
    """Who, when, what, the outcome, then each reason with the page of its rule."""
    refused = record.get("decision") == "refuse"
    outcome = f"refused with {plain(record.get('status'))}" if refused else "allowed"
    rows = [
        ["request", plain(record.get("request_id"))],
        ["when", plain(record.get("time"))],
        ["who", _who(record)],
        ["asked", _asked(record)],
        ["outcome", paint(outcome, "bad" if refused else "good")],
    ]
    if record.get("message"):
        rows.append(["answer", plain(record["message"])])
    if record.get("leases"):
        rows.append(["leases", ", ".join(map(plain, record["leases"]))])
    rows += [["changed", plain(note).removeprefix("ds01: ")] for note in record.get("changed") or ()]
    reasons = record.get("reasons") or [{"rule": rule} for rule in record.get("rules") or ()]
    lines = columns(rows)
    for reason in reasons:
        lines += ["", *_reason(reason if isinstance(reason, Mapping) else {"rule": reason})]
    return "\n".join(lines)


def _who(record: Mapping[str, Any]) -> str:
    text = f"{plain(record.get('actor'))} (uid {plain(record.get('uid'))}) by the {plain(record.get('door'))} socket"
    if "login_uid" in record:
        text += f", logged in as uid {plain(record['login_uid'])}"
    if "peer_container" in record:
        text += f", from container {plain(record['peer_container'])[:12]}"
    return text


def _asked(record: Mapping[str, Any]) -> str:
    what = plain(record.get("operation") or record.get("target"))
    params = record.get("params") or {}
    named = ", ".join(f"{plain(key)}={plain(value)}" for key, value in params.items())
    return f"{plain(record.get('method'))} {what}" + (f" ({named})" if named else "")


def _reason(reason: Mapping[str, Any]) -> list[str]:
    rule = plain(reason.get("rule"))
    rows = [["rule", rule]]
    for key, title in (
        ("field", "field"),
        ("asked", "asked"),
        ("limit", "limit"),
        ("next_step", "next step"),
    ):
        if reason.get(key) not in (None, ""):
            rows.append([title, plain(reason[key])])
    if rule in PAGES:
        rows.append(["read more", f"docs/rules/{rule}.md"])
    return columns(rows, indent="  ")
