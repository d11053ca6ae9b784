"""A recording relay in front of a Unix socket: every byte that goes through, by direction."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Tap:
    """What clients sent and got since the last `take`. One buffer for each connection, so that nothing is torn."""

    path: Path
    target: Path
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _talks: list[tuple[bytearray, bytearray]] = field(default_factory=list)

    @property
    def address(self) -> str:
        return f"unix://{self.path}"

    def take(self) -> list[tuple[bytes, bytes]]:
        """Of each connection what was sent and what came back; forgets both."""
        with self._lock:
            taken = [(bytes(sent), bytes(got)) for sent, got in self._talks]
            for sent, got in self._talks:
                sent.clear()
                got.clear()
        return taken

    def accept(self, listener: socket.socket) -> None:
        """Serve until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._join, args=(client,), daemon=True).start()

    def _join(self, client: socket.socket) -> None:
        """One connection, until both sides have ended."""
        sent, got = bytearray(), bytearray()
        with self._lock:
            self._talks.append((sent, got))
        with client, socket.socket(socket.AF_UNIX) as server:
            server.connect(str(self.target))
            answers = threading.Thread(target=self._carry, args=(server, client, got), daemon=True)
            answers.start()
            self._carry(client, server, sent)
            answers.join()

    def _carry(self, source: socket.socket, sink: socket.socket, record: bytearray) -> None:
        """One direction, its half-close included."""
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    record += data
                sink.sendall(data)
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def tapped(path: Path, target: Path) -> Iterator[Tap]:
    """A tap at `path`, open to everybody, in front of the socket `target`."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        path.chmod(0o666)
        listener.listen(64)
        tap = Tap(path=path, target=target)
        thread = threading.Thread(target=tap.accept, args=(listener,), daemon=True)
        thread.start()
        try:
            yield tap
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            path.unlink(missing_ok=True)
