"""What the proxy learned of the engine and others must know when the proxy is not there to ask: `lib/engine.json`.

The plugin reads which runtime a create must name, the guard where the engine keeps its own files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from policy.dockerapi import strict_json
from policy.dockerapi.model import MalformedRequest
from policy.fields import as_object, as_text
from policy.model import GUARDED_RUNTIME, PLAIN_RUNTIME


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineNote:
    """runtime: what every create names. data_root: dockerd's, without symbolic links, as bundles spell it."""

    runtime: str
    data_root: str


def runtime_of(configured: Mapping[str, object]) -> str:
    """The runtime to name, of those the engine knows: the guarded one wherever it is there."""
    return GUARDED_RUNTIME if GUARDED_RUNTIME in configured else PLAIN_RUNTIME


def write(note: EngineNote) -> bytes:
    return strict_json.write(asdict(note)).encode() + b"\n"


def read(content: bytes) -> EngineNote:
    """Raises: ValueError: not what `write` wrote."""
    try:
        document = as_object(strict_json.parse(content.decode(), what="engine.json"))
        note = EngineNote(runtime=as_text(document["runtime"]), data_root=as_text(document["data_root"]))
    except (MalformedRequest, TypeError, KeyError) as error:
        raise ValueError("it is not in the form that ds01 writes") from error
    if note.runtime not in {PLAIN_RUNTIME, GUARDED_RUNTIME} or not note.data_root.startswith("/"):
        raise ValueError("it names no runtime or no data root")
    return note
