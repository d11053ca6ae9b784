"""Decisions in words: the one line a client shows, the notes of an answer, and the page of `ds01 explain`."""

from __future__ import annotations

from policy.model import Decision, Effect, Kind, Reference, RequestId, SetField, SetQuery

SWARM_READ_MESSAGE = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)


def message(decision: Decision, request_id: RequestId) -> str:
    """The `message` of a refused request: every reason on one line.

    Raises: ValueError: the decision allows.
    """
    match decision.effect:
        case Effect.ALLOW:
            raise ValueError("an allowed request has no refusal")
        case Effect.NOT_VISIBLE if decision.missing:
            return not_visible(decision.missing)
        case _:
            reasons = "; also: ".join(reason.text() for reason in decision.reasons)
            return f"ds01: {reasons}; more: ds01 explain {request_id}"


def not_visible(reference: Reference) -> str:
    """What dockerd itself says of an object that is not there."""
    text = reference.text
    match reference.kind:
        case Kind.CONTAINER:
            return f"No such container: {text}"
        case Kind.EXEC:
            return f"No such exec instance: {text}"
        case Kind.VOLUME:
            return f"get {text}: no such volume"
        case Kind.NETWORK:
            return f"network {text} not found"
        case Kind.IMAGE:
            return f"No such image: {_with_tag(text)}"


def _with_tag(text: str) -> str:
    tagged = "@" in text or ":" in text.rpartition("/")[2]
    return text if tagged else f"{text}:latest"


def notes(decision: Decision) -> tuple[str, ...]:
    """What was changed and the user should know; goes into Warnings."""
    found = (one.note for one in decision.obligations if isinstance(one, SetField | SetQuery))
    return tuple(dict.fromkeys(f"ds01: {note}" for note in found if note))


def explain(decision: Decision) -> str:
    """Several lines: the outcome, then each reason with the page that describes its rule."""
    lines = [f"decision: {decision.effect}"]
    lines += [f"- {reason.text()} (docs/rules/{reason.rule}.md)" for reason in decision.reasons]
    if decision.missing:
        lines.append(f"- {not_visible(decision.missing)}")
    lines += [f"- changed: {note}" for note in notes(decision)]
    return "\n".join(lines)
