"""A thread for one piece of work: its result, its error, and nothing left of it."""

from __future__ import annotations

import threading

import pytest

from host.thread import in_own_thread


def test_work_runs_elsewhere_and_its_result_comes_back() -> None:
    """The thread is another, and has ended."""
    worker = in_own_thread(threading.current_thread, name="work")
    assert worker is not threading.current_thread()
    assert (worker.name, worker.is_alive()) == ("work", False)


@pytest.mark.parametrize("error", [ValueError("no"), SystemExit(3)])
def test_what_work_raises_is_raised(error: BaseException) -> None:
    """In the caller's thread, whatever it is."""

    def work() -> None:
        raise error

    with pytest.raises(type(error)):
        in_own_thread(work, name="work")
