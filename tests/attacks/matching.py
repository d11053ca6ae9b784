"""What an object in the engine must look like, as the corpus writes it: `HostConfig/Binds` and what is wanted there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


def differences(found: Any, becomes: Mapping[str, Any]) -> list[str]:
    """One line for each path whose value is not as wanted."""
    return [
        f"{path} is {at(found, path)!r} in the engine, and not {wanted!r}"
        for path, wanted in becomes.items()
        if not matches(wanted, at(found, path))
    ]


def at(document: Any, path: str) -> Any:
    """The value at `HostConfig/Binds`, None where there is none."""
    for key in path.split("/"):
        document = document.get(key) if isinstance(document, dict) else None
    return document


def matches(wanted: Any, value: Any) -> bool:
    """Whether a value is as wanted: equal (null, empty and absent are the same), or as one of the words says."""
    if not isinstance(wanted, dict) or len(wanted) != 1:
        return bool((wanted or None) == (value or None))
    word, what = next(iter(wanted.items()))
    text = json.dumps(value)
    match word:
        case "has":
            return str(what) in text
        case "lacks":
            return str(what) not in text
        case "starts":
            return str(value).startswith(str(what))
        case "within":
            return isinstance(value, int) and what[0] <= value <= what[1]
    return bool(wanted == value)
