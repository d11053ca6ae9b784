"""A thread for one piece of work, for what must end with it: an account's rights, a mount namespace."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


def in_own_thread(work: Callable[[], T], *, name: str) -> T:
    """Run `work` in a thread that is never used again, and wait for it. Raises: whatever `work` raises.

    SECURITY: what `work` takes on by raw system calls (credentials, namespaces, root directory) is that thread's alone.
    """
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(work())
        except BaseException as error:  # noqa: BLE001  carried to the caller's thread
            failure.append(error)

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
