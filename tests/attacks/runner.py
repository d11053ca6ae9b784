"""Tries one attack and judges it by what the engine and the host hold afterwards, never by a status alone.

An attack is *refused* when every step ended as its file says and nothing shows success; *succeeded* when something does,
whatever the answers were; *unexplained* when nothing shows success and yet a step ended otherwise than its file says: the
defence may be another one than was meant, so somebody has to look.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from tests.attacks.matching import differences
from tests.attacks.model import Attack, Refused, Step, text_of
from tests.attacks.plays import PLAYS, Played
from tests.attacks.world import API, SECRET, World, WorldBroken
from tests.fakes.raw_socket import Answer, exchange, request

_ALWAYS_FOREIGN = ("bobc", "short", "bobn", "exec", "bobs", "bobsnames")
_LONGEST_SECONDS = 9.0  # a refusal that takes longer holds something up


class Result(StrEnum):
    """How an attack ended."""

    REFUSED = "refused"
    SUCCEEDED = "succeeded"
    UNEXPLAINED = "unexplained"


@dataclass(slots=True, kw_only=True)
class Outcome:
    """`harm`: what shows success. `odd`: steps that ended otherwise than their file says."""

    attack: Attack
    harm: list[str] = field(default_factory=list)
    odd: list[str] = field(default_factory=list)
    softened: bool = False

    @property
    def result(self) -> Result:
        if self.harm:
            return Result.SUCCEEDED
        return Result.UNEXPLAINED if self.odd else Result.REFUSED

    def text(self) -> str:
        return "; ".join([*self.harm, *self.odd])


def attempt(world: World, attack: Attack) -> Outcome:
    """Try `attack`, judge it, and put the world back. Raises: WorldBroken."""
    outcome = Outcome(attack=attack, softened=any(step.becomes for step in attack.steps))
    log_size = world.log_size()
    files = {path: _seen(Path(world.fill(path))) for path in attack.files}
    try:
        try:
            for step in attack.steps:
                _take(world, attack, step, outcome)
        except (WorldBroken, AssertionError, OSError, LookupError, ValueError) as error:
            outcome.odd.append(f"could not be tried to its end: {error!r}")
        _judge(world, attack, outcome, log_size=log_size, files=files)
    finally:
        world.tidy()
    return outcome


def _judge(
    world: World, attack: Attack, outcome: Outcome, *, log_size: int, files: Mapping[str, object]
) -> None:
    if "reached" in attack.shown_by and (calls := world.reached(log_size)):
        outcome.harm.append(f"dockerd was asked: {calls}")
    if "state" in attack.shown_by and (now := world.state()) != world.baseline:
        changed = [new for new, old in zip(now, world.baseline, strict=True) if new != old]
        outcome.harm.append(f"the engine holds something else now: {changed}")
    for path, before in files.items():
        if _seen(Path(world.fill(path))) != before:
            outcome.harm.append(f"{path} on the host has changed")


def _seen(path: Path) -> object:
    """What a path is and holds; None if nothing is there."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return None
    content = (
        path.read_bytes()[:65536]
        if path.is_file()
        else sorted(map(str, path.iterdir()))
        if path.is_dir()
        else None
    )
    return (status.st_ino, status.st_mode, status.st_uid, status.st_size if path.is_file() else 0, content)


def _take(world: World, attack: Attack, step: Step, outcome: Outcome) -> None:
    started = time.monotonic()
    if step.kind == "play":
        played = PLAYS[step.given["play"]](world, **world.filled(step.given.get("with") or {}))
        outcome.harm += played.harm
        answers, told = played.answers, json.dumps(step.given)
    else:
        data = _bytes_of(world, step)
        answers, told = [_send(world, step, data)], data.decode("latin-1")
        played = Played()
    for answer in answers:
        _search(world, attack, answer, told, outcome)
        _expect(world, step, answer, outcome)
    if step.kind != "play" and time.monotonic() - started > _LONGEST_SECONDS:
        outcome.odd.append(f"answered after {time.monotonic() - started:.0f} s")
    if step.twin:
        _compare_twins(world, step, answers[0], outcome)


def _bytes_of(world: World, step: Step) -> bytes:
    given = step.given
    match step.kind:
        case "create":
            name = f"?name={world.fill(given['name'])}" if given.get("name") else ""
            body = {"Image": given.get("image", "busybox"), "Cmd": ["true"], **world.filled(given["create"])}
            return request("POST", f"/v{given.get('api', '1.41')}/containers/create{name}", body)
        case "ask":
            method, _, target = world.fill(given["ask"]).partition(" ")
            target = target if re.match(r"/v[0-9]|/_|/ds01|/session|/grpc", target) else API + target
            content = text_of(given["text"]) if "text" in given else world.filled(given.get("body"))
            return request(method, target, content, headers=world.filled(given.get("headers") or {}))
        case _:
            return world.fill(text_of(given["raw"]).decode("latin-1")).encode("latin-1")


def _send(world: World, step: Step, data: bytes) -> Answer:
    half_close = bool(step.given.get("half_close", step.kind == "raw" and not data.startswith(b"HEAD")))
    try:
        return exchange(
            world.socket(step.user, step.door),
            world.account(step.user),
            data,
            seconds=10,
            then_close=half_close,
        )
    except PermissionError as error:  # the kernel refuses the door itself
        return Answer(status=0, body=json.dumps({"message": str(error.strerror)}).encode())


def _search(world: World, attack: Attack, answer: Answer, told: str, outcome: Outcome) -> None:
    """Bob's secret, his ids and the attack's own words in what alice was told, unless she said them herself."""
    text = answer.body.decode("latin-1") + json.dumps(dict(answer.headers))
    if SECRET in text:
        outcome.harm.append("an answer holds bob's secret")
    for word in _ALWAYS_FOREIGN:
        if world.words[word] not in told and world.words[word] in text:
            outcome.harm.append(f"an answer holds {word}, a name or id of bob's")
    for word in attack.told:
        if world.fill(word) in text:
            outcome.harm.append(f"an answer holds {word}")


def _expect(world: World, step: Step, answer: Answer, outcome: Outcome) -> None:
    if step.refused is not None:
        _expect_refusal(world, step.refused, answer, outcome)
    elif step.becomes is not None:
        _expect_rewritten(world, step.becomes, answer, outcome)
    elif step.answered is not None and answer.status != step.answered:
        outcome.odd.append(f"answered {answer.status} {answer.message}, expected {step.answered}")
    elif step.ok and not 200 <= answer.status < 305:
        outcome.odd.append(f"a preparation failed: {answer.status} {answer.message}")


def _expect_refusal(world: World, refused: Refused, answer: Answer, outcome: Outcome) -> None:
    if answer.status not in refused.statuses:
        outcome.odd.append(
            f"answered {answer.status} {answer.body[:300]!r}, expected {sorted(refused.statuses)}"
        )
    elif (
        answer.status and answer.body and not any(world.fill(text) in answer.message for text in refused.says)
    ):
        outcome.odd.append(f"refused with {answer.message!r}, expected {refused.says!r}")


def _expect_rewritten(world: World, becomes: Mapping[str, Any], answer: Answer, outcome: Outcome) -> None:
    """The create went through: the container that root sees must be what the file says."""
    if answer.status != 201:
        outcome.odd.append(f"not created: {answer.status} {answer.message}")
        return
    found = world.root("GET", f"/containers/{answer.json['Id']}/json")
    outcome.harm += differences(found, world.filled(becomes))


def _compare_twins(world: World, step: Step, answer: Answer, outcome: Outcome) -> None:
    """What is bob's must be answered as what is not there: the same bytes but for the word itself."""
    words = {world.fill(old): world.fill(new) for old, new in step.twin.items()}
    data = _bytes_of(world, step)
    for old, new in words.items():
        data = data.replace(old.encode(), new.encode())
    twin = _send(world, step, data)
    expected = answer.body.decode("latin-1")
    for old, new in words.items():
        expected = expected.replace(old, new)
    mine, other = ({k: v for k, v in each.headers.items() if k != "date"} for each in (answer, twin))
    if (answer.status, expected, mine) != (twin.status, twin.body.decode("latin-1"), other):
        outcome.harm.append(
            f"what is bob's is answered otherwise than what is absent: {answer.status} {expected!r} {mine} "
            f"against {twin.status} {twin.body!r} {other}"
        )


__all__ = ["Outcome", "Result", "WorldBroken", "attempt"]
