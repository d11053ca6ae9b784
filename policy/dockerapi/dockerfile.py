"""Which images a Dockerfile would read and what it would have the engine fetch, as the classic builder reads it.

Engines differ in what continues a line and what is a comment in it, so besides the reading the engine takes (`stages`,
`copied`) there are the others it might take: what an image names in one of those is `suspected`, and counts if it exists.
`pinned` writes ids for names, since a build can last and a name can be moved meanwhile.

Source: moby buildkit `frontend/dockerfile/parser` and `shell` as vendored in 20.10 to 28; Dockerfile reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile

from policy.dockerapi.added import addresses

MAX_CHARACTERS = 256 * 1024
MAX_IMAGES = 128

_BLANK = " \t\v\f\r"
_DIRECTIVE = re.compile(r"#\s*([a-zA-Z][a-zA-Z0-9]*)\s*=\s*(.+?)\s*")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])([^{}$]*))?\})")
_STAGE = re.compile(r"[a-z][a-z0-9-_.]*", re.ASCII)
_COPIED = re.compile(r"--from=(\S*)", re.IGNORECASE)
_PLAIN = re.compile(r"[A-Za-z0-9._/:@\[\]-]+", re.ASCII)
_LIKE_ASCII = str.maketrans({"\u0130": "I", "\u212a": "K"})  # what Go lowers to ASCII letters
_NAMING = frozenset({"FROM", "COPY", "ADD", "ONBUILD"})
_LOOK_AHEAD = 20  # lines


class UnreadableDockerfile(Exception):  # noqa: N818  names what happened, as MalformedRequest does
    """A name or an address that cannot be known before the build; the message says which, and what to write instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM of an image: its name, and the stages that stand before it, which its ONBUILD lines may name."""

    image: str
    before: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """References as they stand. The build runs the ONBUILD lines of `stages` too."""

    stages: tuple[Stage, ...] = ()  # FROM
    copied: tuple[str, ...] = ()  # COPY --from
    suspected: tuple[str, ...] = ()  # either, in a reading the engine probably does not take
    fetched: tuple[str, ...] = ()  # ADD of an address, in any reading

    @property
    def named(self) -> tuple[str, ...]:
        """Every image the build reads, each once."""
        return tuple(dict.fromkeys((*(stage.image for stage in self.stages), *self.copied)))


def bases(text: str, *, arguments: Mapping[str, str | None]) -> Bases:
    """Every image that building `text` may read, without the stages it makes itself, and every address it may fetch.

    Args: arguments: the build arguments of the request.
    Raises: UnreadableDockerfile.
    """
    if len(text) > MAX_CHARACTERS:
        raise UnreadableDockerfile("it is over 256 KiB; write less")
    lines = text.removeprefix("\ufeff").split("\n")
    likely = _escape(lines)
    taken = _Reading(arguments, strict=True).read(_joined(lines, likely))
    if len(taken.named) > MAX_IMAGES:
        raise UnreadableDockerfile(f"it names over {MAX_IMAGES} images; name fewer")
    suspected: dict[str, None] = {}
    fetched = dict.fromkeys(taken.fetched)
    for escape in ("\\", "`"):
        for reading in (
            _joined(lines, escape),
            _joined(lines, escape, doubled=True),
            _started(lines, escape),
        ):
            other = _Reading(arguments, strict=False).read(reading)
            suspected |= dict.fromkeys(other.named)
            fetched |= dict.fromkeys(other.fetched)
    known = set(taken.named)
    return Bases(
        stages=taken.stages,
        copied=taken.copied,
        suspected=tuple(each for each in suspected if each not in known),
        fetched=tuple(fetched),
    )


def pinned(text: str, ids: Mapping[str, str], *, arguments: Mapping[str, str | None]) -> str:
    """The same Dockerfile with these images named by id; a text that `bases` has read."""
    bom = "\ufeff" * text.startswith("\ufeff")
    lines = text.removeprefix("\ufeff").split("\n")
    reading = _Reading(arguments, strict=True)
    written: list[str] = []
    for instruction, raw in _grouped(lines, _escape(lines)):
        fresh = reading.pin(instruction, ids)
        # Comments above it stay, since the first of them may be the one that sets the escape character.
        written += raw if fresh is None else [*takewhile(_is_remark, raw), fresh]
    return bom + "\n".join(written)


def check_triggers(stage: Stage, triggers: Iterable[str]) -> tuple[str, ...]:
    """ONBUILD lines of a base may copy from stages only: they cannot be rewritten, and a name can be moved.

    Returns: the addresses that they fetch. Raises: UnreadableDockerfile.
    """
    found = _Reading({}, strict=True, stages=stage.before).read(triggers)
    for name in found.copied:
        raise _moving(stage.image, name)
    return found.fetched


def _moving(base: str, name: str) -> UnreadableDockerfile:
    return UnreadableDockerfile(
        f"an ONBUILD line of {base[:80]} copies from the image {name[:80]}; copy from it in the Dockerfile itself"
    )


def _escape(lines: Iterable[str]) -> str:
    """The escape character: a directive at the very top may change it."""
    for line in lines:
        found = _DIRECTIVE.fullmatch(line.strip(_BLANK))
        if found is None:
            break
        if found[1].lower() == "escape":
            return "`" if found[2] == "`" else "\\"
    return "\\"


def _continuation(escape: str, *, doubled: bool = False) -> re.Pattern[str]:
    """What at the end of a line continues it. `doubled`: newer engines do not count an escaped escape."""
    end = re.escape(escape)
    return re.compile(rf"{f'(?<!{end})' if doubled else ''}{end}[ \t]*\r?$")


def _joined(lines: Sequence[str], escape: str, *, doubled: bool = False) -> Iterator[str]:
    """The instructions, one a line.

    SECURITY: comments and blank lines inside an instruction do not end it: FR, a comment, OM can be one FROM.
    """
    return (instruction for instruction, _ in _grouped(lines, escape, doubled=doubled))


def _grouped(lines: Sequence[str], escape: str, *, doubled: bool = False) -> Iterator[tuple[str, list[str]]]:
    """Each instruction with the lines it stands on; comments and blank lines before it belong to it."""
    continued = _continuation(escape, doubled=doubled)
    whole: list[str] = []
    raw: list[str] = []
    for line in lines:
        raw.append(line)
        if _is_remark(line):
            continue
        end = continued.search(line)
        whole.append(line[: end.start()] if end else line)
        if not end:
            yield "".join(whole), raw
            whole, raw = [], []
    yield "".join(whole), raw


def _is_remark(line: str) -> bool:
    plain = line.strip(_BLANK)
    return not plain or plain.startswith("#")


def _started(lines: Sequence[str], escape: str) -> Iterator[str]:
    """What begins with a word that can name an image, wherever an instruction begins."""
    for number, line in enumerate(lines):
        if _command(line) in _NAMING:
            yield next(_joined(lines[number : number + _LOOK_AHEAD], escape))


def _command(line: str) -> str:
    words = line.split(None, 1)
    return words[0].translate(_LIKE_ASCII).upper() if words else ""


class _Reading:
    """One walk over the instructions: arguments before the first FROM, stages by name and number."""

    def __init__(
        self, arguments: Mapping[str, str | None], *, strict: bool, stages: Iterable[str] = ()
    ) -> None:
        """`strict`: a name that cannot be known is an error; else it is left out. `stages`: known before."""
        self._given = arguments
        self._strict = strict
        self._values: dict[str, str | None] = {}  # None: not known
        self._stages = set(stages)
        self._count = 0
        self._triggers: dict[str, list[str]] = {}  # by stage, its number or name
        self._bases: list[Stage] = []
        self._copied: dict[str, None] = {}
        self._fetched: dict[str, None] = {}

    def read(self, instructions: Iterable[str]) -> Bases:
        for instruction in instructions:
            self.instruction(instruction)
        return Bases(stages=tuple(self._bases), copied=tuple(self._copied), fetched=tuple(self._fetched))

    def pin(self, instruction: str, ids: Mapping[str, str]) -> str | None:
        """Take the next instruction; what to write for it if it names one of `ids`."""
        count = len(self._bases)
        self.instruction(instruction)
        if len(self._bases) > count and self._bases[-1].image in ids:
            words = instruction.split()
            at = next(i for i, word in enumerate(words) if i and not word.startswith("--"))
            return " ".join([*words[:at], ids[self._bases[-1].image], *words[at + 1 :]])
        if _command(instruction) in ("COPY", "ADD"):
            fresh = _COPIED.sub(lambda match: f"--from={ids.get(match[1], match[1])}", instruction)
            return fresh if fresh != instruction else None
        return None

    def instruction(self, instruction: str) -> None:
        """Take the next instruction."""
        # Between words and flags engines take any white space of Unicode, some only a few.
        rest = instruction.split(None, 1)[1] if len(instruction.split(None, 1)) > 1 else ""
        command = _command(instruction)
        if command == "ADD":
            self._add(rest)
        match command:
            case "ONBUILD":
                self._triggers.setdefault(str(self._count - 1), []).append(rest)
            case "ARG" if not self._count:
                for word in rest.split():
                    self._argument(word)
            case "FROM":
                self._from(rest.split())
            case "COPY" | "ADD":
                for found in _COPIED.finditer(rest):
                    self._copy(found[1])
                # SECURITY: in a flag a backslash is left out, so that one can stand in the middle of --from=.
                if len(_COPIED.findall(rest.replace("\\", ""))) > len(_COPIED.findall(rest)):
                    self._unknown(rest)
            case _:
                pass

    def _argument(self, word: str) -> None:
        key, equals, default = word.partition("=")
        given = self._given.get(key)
        if given is not None:
            self._values[key] = given
        elif equals:
            self._values[key] = self._expanded(default)
        else:
            self._values.pop(key, None)

    def _from(self, words: list[str]) -> None:
        while words and words[0].startswith("--"):
            flag = words.pop(0)
            if not {'"', "'", "\\"}.isdisjoint(flag):
                self._unknown(flag)
        if not words:
            return
        name = self._expanded(words[0])
        if name is None:
            self._unknown(words[0])
        elif name and name.lower() in self._stages:
            self._run_triggers(name.lower())
        elif name and name != "scratch":
            self._bases.append(Stage(image=name, before=frozenset(self._stages)))
        if len(words) == 3 and words[1].lower() == "as" and _STAGE.fullmatch(words[2].lower()):
            self._stages.add(words[2].lower())
            self._triggers[words[2].lower()] = self._triggers.setdefault(str(self._count), [])
        self._count += 1

    def _run_triggers(self, stage: str) -> None:
        """A stage of this file is a base: what it says for whoever builds on it counts now."""
        reading = _Reading({}, strict=self._strict, stages=self._stages)
        found = reading.read(self._triggers.get(stage, ()))
        self._fetched |= dict.fromkeys(found.fetched)
        for name in found.copied:
            if self._strict:
                raise _moving(f"stage {stage}", name)
            self._copied[name] = None

    def _add(self, arguments: str) -> None:
        known, unknown = addresses(arguments)
        self._fetched |= dict.fromkeys(known)
        if unknown is not None and self._strict:
            raise UnreadableDockerfile(
                f"whether ADD {unknown[:80]} is an address, and of which host, cannot be known before the build; "
                "write ./ before a file, the host of an address out, or use COPY"
            )

    def _copy(self, name: str) -> None:
        """Not expanded by the classic builder."""
        if not name or name.lower() in self._stages or (name.isdecimal() and int(name) < self._count):
            return
        if _PLAIN.fullmatch(name):
            self._copied[name] = None
        else:
            self._unknown(f"--from={name}")

    def _unknown(self, word: str) -> None:
        if self._strict:
            raise UnreadableDockerfile(
                f"the image of {word[:80]} cannot be known before the build; write its name out, or with plain ARGs"
            )

    def _expanded(self, word: str) -> str | None:
        """The word with its variables in place; None where it is more than plain text and variables."""
        text = word
        if len(word) > 1 and word[0] == word[-1] == '"':
            text = word[1:-1]
        missing = False

        def value(match: re.Match[str]) -> str:
            nonlocal missing
            known = self._values.get(match[1] or match[2], "")
            missing = missing or known is None
            return _substituted(known or "", set_=(match[1] or match[2]) in self._values, match=match)

        expanded = _VARIABLE.sub(value, text)
        return None if missing or (expanded and not _PLAIN.fullmatch(expanded)) else expanded


def _substituted(value: str, *, set_: bool, match: re.Match[str]) -> str:
    """`$X`, `${X}`, `${X:-other}`, `${X:+other}`, and without the colon."""
    operator, other = match[3] or "", match[4] or ""
    there = set_ and (value != "" or not operator.startswith(":"))
    if operator.endswith("+"):
        return other if there else ""
    if operator.endswith("-"):
        return value if there else other
    return value
