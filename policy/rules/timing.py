"""Nothing of a container runs too often or keeps a stop waiting for long: health checks and stop times."""

from __future__ import annotations

from collections.abc import Iterable

from policy.ask import Ask, Finding
from policy.dockerapi.model import Operation
from policy.fields import as_int, as_object, as_text
from policy.model import Kind, Reference, SetField, SetQuery

RULE_ID = "timing"
OPERATIONS = frozenset({Operation.CONTAINER_CREATE, Operation.CONTAINER_STOP, Operation.CONTAINER_RESTART})
NEEDS_FACTS = False

SHORTEST_INTERVAL_NS = 5_000_000_000
LONGEST_STOP_SECONDS = 300


def decide(ask: Ask) -> Iterable[Finding]:
    """Clamp, without refusing."""
    if ask.request.operation is not Operation.CONTAINER_CREATE:
        yield from _stop_query(ask)
        return
    stop = as_int(ask.body.get("StopTimeout"))
    if not 0 <= stop <= LONGEST_STOP_SECONDS:
        yield SetField(path=("StopTimeout",), value=LONGEST_STOP_SECONDS, note="StopTimeout lowered to 300 s")
    check = as_object(ask.body.get("Healthcheck"))
    for name, of_image in zip(("Interval", "StartInterval"), _of_image(ask), strict=True):
        asked = as_int(check.get(name)) or of_image  # dockerd takes the image's where the request has none
        if 0 < asked < SHORTEST_INTERVAL_NS:
            yield SetField(
                path=("Healthcheck", name), value=SHORTEST_INTERVAL_NS, note=f"{name} raised to 5 s"
            )


def _of_image(ask: Ask) -> tuple[int, int]:
    """The intervals that the image brings; a create names one image, apart from those it mounts."""
    image = Reference(kind=Kind.IMAGE, text=as_text(ask.body.get("Image")))
    fact = ask.facts.objects.get(image) if ask.facts else None
    return fact.check_intervals_ns if fact else (0, 0)


def _stop_query(ask: Ask) -> Iterable[Finding]:
    text = (ask.request.query.get("t") or ("",))[0]
    if text and not (
        text.isascii() and text.isdigit() and int(text[:9]) <= LONGEST_STOP_SECONDS and len(text) < 9
    ):
        yield SetQuery(key="t", values=(str(LONGEST_STOP_SECONDS),))
