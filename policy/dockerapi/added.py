"""What the ADD lines of a Dockerfile would have the engine fetch, as the classic builder reads them.

Quotes, escapes and variables are taken off a word before the builder looks whether it is an address, so a word that holds one
before its host has ended could be any address. Source: moby 20.10 to 28, builder/dockerfile/copy.go: a source that begins with
http:// or https:// is fetched; buildkit `frontend/dockerfile/parser`: a list in brackets is JSON.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Final

_SCHEMES: Final = ("http://", "https://")
_PLAIN = re.compile(r"[^$\\`'\"]*")
_HOST_END = re.compile(r"[/?#]")


def addresses(arguments: str) -> tuple[tuple[str, ...], str | None]:
    """The addresses among the sources of one ADD line, and the first source that may or may not be one.

    Args: arguments: what stands behind the word ADD.
    """
    known: list[str] = []
    for word in _sources(arguments):
        plain = _plain(word)
        if plain == word.lower() and not plain.startswith(_SCHEMES):
            continue
        scheme = next((one for one in _SCHEMES if plain.startswith(one)), None)
        if scheme is None:
            if any(one.startswith(plain) for one in _SCHEMES):
                return tuple(known), word
        elif plain == word.lower() or _HOST_END.search(plain, len(scheme)):
            known.append(word[: len(plain)])
        else:
            return tuple(known), word
    return tuple(known), None


def _plain(word: str) -> str:
    """What stands before the first character that does not stay as it is."""
    found = _PLAIN.match(word)
    return found[0].lower() if found else ""


def _sources(arguments: str) -> Iterator[str]:
    """All words but flags and the last, which is where things go."""
    words = _words(arguments)
    flags = True
    for word in words[:-1]:
        flags = flags and word.startswith("--")
        if not flags:
            yield word


def _words(arguments: str) -> list[str]:
    flags: list[str] = []
    rest = arguments.strip()
    while rest.startswith("--"):
        flag, _, rest = rest.partition(" ") if " " in rest else (rest, "", "")
        flags.append(flag)
        rest = rest.strip()
    if rest.startswith("["):
        try:
            listed = json.loads(rest)
        except (ValueError, RecursionError):
            listed = None
        if isinstance(listed, list) and _are_texts(listed):
            return [*flags, *listed]
    return arguments.split()


def _are_texts(items: Iterable[object]) -> bool:
    return all(isinstance(item, str) for item in items)
