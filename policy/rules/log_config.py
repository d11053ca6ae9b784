"""Logs stay on this machine and cannot fill its disk."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_object, as_text, shown, size_bytes
from policy.model import Json, Reason, SetField

RULE_ID = "log_config"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE})
NEEDS_FACTS = False

ROTATED = ("json-file", "local")
HARMLESS = frozenset(
    {"labels", "labels-regex", "env", "env-regex", "tag", "compress", "mode", "max-buffer-size"}
)
MOST_FILES = 10


def decide(ask: Ask) -> Iterable[Finding]:
    """Only drivers that write here (others dial out, or read the host's files), with sizes bounded."""
    asked = as_object(ask.host_config.get("LogConfig"))
    driver = as_text(asked.get("Type"))
    options = {key: as_text(value) for key, value in as_object(asked.get("Config")).items()}
    if driver == "none":
        return
    if driver not in {"", *ROTATED}:
        yield _refused("Type", driver, "json-file, local or none", "leave out --log-driver")
        return
    for key, value in options.items():
        if key not in HARMLESS | {"max-size", "max-file"}:
            yield _refused(f"Config.{shown(key)}", value, "max-size, max-file and labels", "leave it out")
    files, size = _bounded(options, ask.grants.limits.log_bytes)
    kept: dict[str, Json] = {key: value for key, value in options.items() if key in HARMLESS}
    bounded = {**kept, "max-file": str(files), "max-size": f"{size}b" if size % 1024 else f"{size // 1024}k"}
    yield SetField(path=("HostConfig", "LogConfig"), value={"Type": driver or "json-file", "Config": bounded})


def _bounded(options: dict[str, str], limit_bytes: int) -> tuple[int, int]:
    """Number of files and bytes of each, together within the limit."""
    number = options.get("max-file", "")
    files = int(number) if number.isascii() and number.isdigit() and len(number) <= 3 else 3
    files = min(max(files, 1), MOST_FILES)
    share = limit_bytes // files // 1024 * 1024
    size = size_bytes(options.get("max-size", ""))
    return files, size if 1024 <= size <= share else share


def _refused(name: str, asked: str, limit: str, next_step: str) -> Reason:
    return Reason(
        rule=RULE_ID,
        field=f"HostConfig.LogConfig.{name}",
        asked=shown(asked),
        limit=limit,
        next_step=next_step,
    )
