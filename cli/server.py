"""One question to ds01 over a Unix socket: which socket, and what it answered."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.outcome import Exit, Failed
from host.tree import Tree

_PREFIX = "/ds01/v1/"
_OWN_WORDS = ("ds01: ", "No such image: ", "No such container: ")
_ANSWER_BYTES = 8 * 1024 * 1024
_LATER = "try again in a moment or tell the admin"


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long each answer may take, and what to do when none has come."""

    seconds: float = 15
    then: str = _LATER


_PATIENCE = Patience()


class _Connection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("ds01", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def tree_of(environment: Mapping[str, str] = os.environ) -> Tree:
    """The lab's tree if DS01_ROOT names one, else the installed one."""
    root = environment.get("DS01_ROOT")
    return Tree.under(Path(root)) if root else Tree.production()


def socket_of(environment: Mapping[str, str] = os.environ) -> Path:
    """DOCKER_HOST if it is a Unix socket, for it is where docker goes as well; else the front door."""
    host = environment.get("DOCKER_HOST", "")
    if host.startswith("unix://"):
        return Path(host.removeprefix("unix://"))
    return tree_of(environment).front_door


def ask(path: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """GET /ds01/v1/`path`.

    Raises: Failed: REFUSED with the server's message, UNAVAILABLE when nobody or something else answers.
    """
    return _answer(socket_of(environment), "GET", path, None)


def tell(path: str, wish: Mapping[str, Any], environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """POST a change to /ds01/v1/`path`. Raises: Failed, as `ask`."""
    return _answer(socket_of(environment), "POST", path, json.dumps(wish).encode())


def ask_allocator(
    path: str,
    wish: Mapping[str, Any] | None = None,
    *,
    method: str = "",
    patience: Patience | None = None,
    environment: Mapping[str, str] = os.environ,
) -> dict[str, Any]:
    """GET `path` of the allocator, or POST a wish to it, unless another method is named.

    Raises: Failed, as `ask`; REFUSED too when it cannot be had.
    """
    body = None if wish is None else json.dumps(wish).encode()
    where = tree_of(environment).allocator_socket
    method = method or ("GET" if wish is None else "POST")
    return _read(where, *_call(where, method, path, body, patience or _PATIENCE))


def look(name: str, environment: Mapping[str, str] = os.environ) -> dict[str, Any]:
    """What the allocator shows under /v1/`name`: to root and, through the proxy, which knows roles, to admins all of it; else what is theirs.

    Raises: Failed, as `ask_allocator`.
    """
    if os.geteuid() != 0:
        with suppress(Failed):  # no admin, or no proxy
            return ask(f"gpu/{name}", environment)
    return ask_allocator(f"/v1/{name}", environment=environment)


def _answer(where: Path, method: str, path: str, wish: bytes | None) -> dict[str, Any]:
    return _read(where, *_call(where, method, _PREFIX + path, wish))


def _read(where: Path, status: int, body: bytes) -> dict[str, Any]:
    answer = _object(body)
    message = answer.get("message") if answer else None
    if status in (200, 201) and answer is not None:
        return answer
    if status in (400, 403, 404, 405, 409) and isinstance(message, str) and message.startswith(_OWN_WORDS):
        raise Failed(Exit.REFUSED, message.removeprefix("ds01: "))
    if isinstance(message, str) and message.startswith("ds01: "):
        raise Failed(Exit.UNAVAILABLE, message.removeprefix("ds01: "))
    raise Failed(
        Exit.UNAVAILABLE, f"{where} answers, but is no socket of ds01; unset DOCKER_HOST or tell the admin"
    )


def fetch(where: Path, target: str) -> tuple[int, bytes]:
    """GET `target` on a Unix socket. Returns: status and body. Raises: Failed: REFUSED or UNAVAILABLE."""
    return _call(where, "GET", target, None)


def _call(
    where: Path, method: str, target: str, wish: bytes | None, patience: Patience = _PATIENCE
) -> tuple[int, bytes]:
    connection = _Connection(where, patience.seconds)
    try:
        connection.request(method, target, body=wish)
        response = connection.getresponse()
        return response.status, response.read(_ANSWER_BYTES)
    except PermissionError as error:
        raise Failed(
            Exit.REFUSED, f"{where} is not yours to open; unset DOCKER_HOST or use your own socket"
        ) from error
    except TimeoutError as error:
        raise Failed(
            Exit.UNAVAILABLE, f"{where}: no answer within {patience.seconds:g} seconds; {patience.then}"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        problem = getattr(error, "strerror", None) or "no whole answer"
        raise Failed(Exit.UNAVAILABLE, f"{where}: {problem}; {_LATER}") from error
    finally:
        connection.close()


def _object(body: bytes) -> dict[str, Any] | None:
    try:
        answer = json.loads(body)
    except ValueError:
        return None
    return answer if isinstance(answer, dict) else None
