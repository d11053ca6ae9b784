"""`ds01-lab`: bring the whole of ds01 up on this machine, or take it down.

Exit codes: 0 done (also when it was up already, or down already) · 1 it did not come up, or something is left · 2 usage.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import sys
from typing import TYPE_CHECKING

from lab import play, sweep
from lab.session import Session, leave_nothing
from lab.settings import Settings, parse
from lab.tree import LabTree

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_STOP_SECONDS = 40


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one call of `script/server`."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["gpu"]:
        return play.main(given[1:])
    settings = parse(given)
    if os.geteuid() != 0:
        print("ds01-lab: starting dockerd needs root; try: sudo script/server", file=sys.stderr)
        return 2
    os.umask(0o022)
    tree = LabTree.at(settings.root)
    if settings.stop:
        return stop(tree)
    return _detached(settings, tree) if settings.detach else up(settings, tree, print)


def up(settings: Settings, tree: LabTree, ready: Callable[[str], None]) -> int:
    """Bring the lab up, say so by `ready`, keep it until a signal, take it down. Returns: the exit code."""
    lock = _take_lock(tree)
    if lock is None:
        ready(f"ds01-lab: already up below {tree.root}; end it with: script/server --stop --root {tree.root}")
        return 0
    session = Session(settings, tree)
    code = 0
    try:
        if left := sweep.sweep(tree, keep_lock=True):
            return _failed(f"an earlier lab left what cannot be removed: {', '.join(left)}")
        ready(session.up())
        session.run()
    except Exception as error:  # noqa: BLE001  whatever happened, what was started is taken down and the reason told
        code = _failed(str(error) or repr(error))
    finally:
        code = _report(session.down()) or code
        os.close(lock)
    return code


def stop(tree: LabTree) -> int:
    """End the lab of `tree`, by its supervisor if that lives, by sweeping in any case. Returns: the exit code."""
    supervisor = _supervisor(tree)
    if supervisor is not None:
        _end(supervisor)
    return _report(leave_nothing(tree))


def _detached(settings: Settings, tree: LabTree) -> int:
    """Leave the lab to a process of its own; return when it is ready or has failed."""
    reading, writing = os.pipe()
    if os.fork() == 0:
        os.close(reading)
        os.setsid()
        os._exit(_in_background(settings, tree, writing))
    os.close(writing)
    with os.fdopen(reading) as pipe:
        text = pipe.read()
    told, _, message = text.partition("\n")
    print(message.rstrip(), file=sys.stdout if told == "ready" else sys.stderr)
    return 0 if told == "ready" else 1


def _in_background(settings: Settings, tree: LabTree, writing: int) -> int:
    """`up` with its output in the lab's log; the first words go to whoever waits."""
    (tree.root / "log").mkdir(mode=0o700, parents=True, exist_ok=True)
    log = os.open(tree.log("lab"), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    start = os.fstat(log).st_size
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    told = False

    def ready(text: str) -> None:
        nonlocal told
        told = True
        print(text, flush=True)
        os.write(writing, f"ready\n{text}\n".encode())
        os.close(writing)

    code = up(settings, tree, ready)
    if not told:
        sys.stderr.flush()
        with tree.log("lab").open("rb") as file:
            file.seek(start)
            os.write(writing, b"failed\n" + file.read()[-4000:])
    return code


def _take_lock(tree: LabTree) -> int | None:
    """Become the one supervisor of this lab. Returns: a descriptor to keep, None if another has it."""
    tree.short.mkdir(mode=0o711, exist_ok=True)
    lock = os.open(tree.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        return None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock


def _supervisor(tree: LabTree) -> int | None:
    """A pidfd of the supervisor, None if none lives."""
    try:
        lock = os.open(tree.lock, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pidfd_open(int(os.read(lock, 32)))
    finally:
        os.close(lock)
    return None


def _end(supervisor: int) -> None:
    """SIGTERM, and SIGKILL if that does not do in time; `leave_nothing` ends what it had started."""
    ended = select.poll()
    ended.register(supervisor, select.POLLIN)
    for number, seconds in ((signal.SIGTERM, _STOP_SECONDS), (signal.SIGKILL, 5)):
        signal.pidfd_send_signal(supervisor, number)
        if ended.poll(seconds * 1000):
            break
    os.close(supervisor)


def _report(left: tuple[str, ...]) -> int:
    return _failed(f"could not be removed: {', '.join(left)}") if left else 0


def _failed(problem: str) -> int:
    print(f"ds01-lab: {problem}", file=sys.stderr, flush=True)
    return 1


if __name__ == "__main__":
    sys.exit(main())
