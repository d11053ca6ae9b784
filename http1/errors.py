"""What can go wrong on a connection, told apart by who can do something about it."""

from __future__ import annotations


class BadRequest(Exception):  # noqa: N818  the name says whose fault it is (400)
    """The client's bytes break HTTP/1.1 or a limit; the connection cannot go on.

    status: 400, 408, 413, 417, 431 or 505.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


class ClientGone(Exception):  # noqa: N818  not a fault: people press Ctrl-C
    """The client closed its connection before its answer was complete."""


class UpstreamError(Exception):
    """The upstream server did not give an answer."""


class UpstreamUnavailable(UpstreamError):  # noqa: N818  a state of the upstream, told apart by name
    """No connection could be made: nothing was sent, nothing happened."""


class UpstreamLost(UpstreamError):  # noqa: N818  same
    """The connection ended before the answer was complete: the request may have taken effect."""


class BadResponse(UpstreamLost):
    """The upstream's bytes are not HTTP/1.1, or its answer is larger than the caller accepts."""
