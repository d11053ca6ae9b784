"""`ds01 break-glass`: root opens dockerd's own socket for a while, on record; or closes it again.

The audit line is on file before the permission is. The plugin reads the file (`authz_plugin.trusted`) and logs each
request that it lets through.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from authz_plugin.trusted import BREAK_GLASS_LIMIT_MS, parse_break_glass
from cli.outcome import Exit, Failed
from host.clock import boottime_ms
from host.files import write_atomic
from host.peercred import login_uid
from host.tree import Tree
from host.users import look_up_uid
from observability.audit import AuditLog, AuditUnavailable
from policy.model import Uid

_MINUTE_MS = 60_000
MOST_MINUTES = BREAK_GLASS_LIMIT_MS // _MINUTE_MS
_REASON_LETTERS = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Opened:
    """What was opened, for whom and until when (UTC, to the second)."""

    until: str
    by: str
    reason: str
    engine_socket: str


def who(environment: Mapping[str, str] = os.environ) -> str:
    """The person behind root: the login uid's account, else sudo's word, else root."""
    login = login_uid(os.getpid())
    sudo = environment.get("SUDO_UID", "")
    uid = login if login is not None else Uid(int(sudo)) if sudo.isascii() and sudo.isdecimal() else Uid(0)
    account = look_up_uid(uid)
    return account.name if account else f"uid {uid}"


def open_glass(tree: Tree, *, minutes: int, reason: str, by: str) -> Opened:
    """Record, then permit.

    Raises: Failed: USAGE: minutes or reason are wrong; UNAVAILABLE: nothing was opened.
    """
    reason = _checked(minutes, reason)
    until_ms = boottime_ms() + minutes * _MINUTE_MS
    content = json.dumps({"until_boottime_ms": until_ms, "reason": reason, "by": by}).encode() + b"\n"
    parse_break_glass(content)  # INVARIANT: what is written here is what the plugin reads
    _record(
        tree,
        {"event": "break_glass.opened", "minutes": minutes, "until_boottime_ms": until_ms, "reason": reason},
        by,
    )
    try:
        write_atomic(tree.break_glass, content, mode=0o644)
    except OSError as error:
        _record(tree, {"event": "break_glass.closed", "reason": "the file could not be written"}, by)
        raise Failed(Exit.UNAVAILABLE, f"{tree.break_glass}: {error.strerror}; nothing was opened") from error
    until = datetime.now(UTC) + timedelta(minutes=minutes)
    return Opened(
        until=until.strftime("%Y-%m-%dT%H:%M:%SZ"),
        by=by,
        reason=reason,
        engine_socket=str(tree.engine_socket),
    )


def close_glass(tree: Tree, *, by: str) -> bool:
    """Take the permission back, then record that. Returns: whether there was one.

    Raises: Failed: UNAVAILABLE: it could not be removed, or is removed and the record could not be written.
    """
    try:
        tree.break_glass.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise Failed(Exit.UNAVAILABLE, f"{tree.break_glass}: {error.strerror}; it is still open") from error
    _record(tree, {"event": "break_glass.closed", "reason": "closed by hand"}, by)
    return True


def shown(opened: Opened) -> str:
    """Until when, how to use it, how to close it."""
    return (
        f"open until {opened.until} for root, as {opened.by}: {opened.reason}\n"
        f"use:   docker -H unix://{opened.engine_socket} ps\n"
        "close: ds01 break-glass --close"
    )


def _checked(minutes: int, reason: str) -> str:
    if not 1 <= minutes <= MOST_MINUTES:
        raise Failed(Exit.USAGE, f"--minutes {minutes} is not permitted, limit is 1 to {MOST_MINUTES}")
    reason = reason.strip()
    if not reason or len(reason) > _REASON_LETTERS or not reason.isprintable():
        raise Failed(
            Exit.USAGE,
            f"--reason needs one line of 1 to {_REASON_LETTERS} characters; say what you are going to do",
        )
    return reason


def _record(tree: Tree, record: dict[str, object], by: str) -> None:
    try:
        log = AuditLog(tree.audit)
        try:
            log.append({**record, "by": by, "uid": os.getuid(), "pid": os.getpid()})
        finally:
            log.close()
    except AuditUnavailable as error:
        raise Failed(Exit.UNAVAILABLE, f"{error}; without a record nothing is opened") from error
