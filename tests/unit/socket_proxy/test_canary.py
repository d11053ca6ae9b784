"""Only the plugin's own refusal of an unstamped request means that it is on guard."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from policy import stamp
from socket_proxy import canary
from socket_proxy.canary import Canary
from tests.fakes.scripted_dockerd import Talk, scripted_dockerd

if TYPE_CHECKING:
    from pathlib import Path

DENIED = b'{"message":"authorization denied by plugin ds01: ds01: no stamp"}'


@pytest.mark.parametrize(
    ("status", "body", "singing"),
    [
        pytest.param("403 Forbidden", DENIED, True, id="denied"),
        pytest.param("200 OK", b"{}", False, id="served"),
        pytest.param("200 OK", DENIED, False, id="served-with-its-words"),
        pytest.param("403 Forbidden", b'{"message":"no"}', False, id="denied-by-another"),
        pytest.param(
            "403 Forbidden",
            b'{"message":"authorization denied by plugin other: no"}',
            False,
            id="denied-by-another-plugin",
        ),
        pytest.param("500 X", DENIED, False, id="another-status"),
    ],
)
async def test_what_counts_as_guarded(tmp_path: Path, status: str, body: bytes, *, singing: bool) -> None:
    """The status and the plugin's words, both."""

    async def script(talk: Talk) -> None:
        assert stamp.HEADER.lower() not in (await talk.head()).decode().lower()
        await talk.answer(body, status=status)

    bird = Canary(str(tmp_path / "s"), wake=asyncio.Event())
    async with scripted_dockerd(tmp_path / "s", script):
        assert await bird.probe() is singing
    bird._pool.close()


async def test_no_engine_is_unknown(tmp_path: Path) -> None:
    """Neither guarded nor open: there is nobody to guard."""
    assert await Canary(str(tmp_path / "s"), wake=asyncio.Event()).probe() is None


async def test_a_plugin_that_hangs_is_no_guard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer in time is as bad as a wrong one."""
    monkeypatch.setattr(canary, "_ANSWER_SECONDS", 0.05)

    async def script(talk: Talk) -> None:
        await talk.head()
        await talk.reader.read()

    async with scripted_dockerd(tmp_path / "s", script):
        assert await Canary(str(tmp_path / "s"), wake=asyncio.Event()).probe() is False


async def test_waking_it_asks_at_once(tmp_path: Path) -> None:
    """A reload of dockerd's settings that drops the plugin is seen long before the minute is over."""
    bodies = iter([("403 Forbidden", DENIED), ("200 OK", b"{}")])
    wake = asyncio.Event()
    bird = Canary(str(tmp_path / "s"), wake=wake)

    async def script(talk: Talk) -> None:
        while True:
            await talk.head()
            status, body = next(bodies, ("200 OK", b"{}"))
            await talk.answer(body, status=status)

    async def until(*, singing: bool) -> None:
        while bird.singing is not singing:  # noqa: ASYNC110  the canary has no event for it
            await asyncio.sleep(0.002)

    async with scripted_dockerd(tmp_path / "s", script), asyncio.timeout(5), asyncio.TaskGroup() as tasks:
        running = tasks.create_task(bird.run())
        await bird.asked.wait()
        assert bird.singing is True
        wake.set()
        await until(singing=False)
        running.cancel()
    bird._pool.close()
