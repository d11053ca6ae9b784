"""Which containers their owners have shared, with whom, how much and until when.

Rows are durable (`records`) and held in memory. A share is of one container, by full id, and ends with it: an id never
comes again. What policy lets a group have is not kept here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from policy.model import ContainerId, Share, Uid
from socket_proxy.lasting_clock import LastingClock
from socket_proxy.records import Records

MOST_OF_OWNER = 256  # shares one user may have given out at once
MOST_OF_CONTAINER = 32


class TooManyShares(Exception):  # noqa: N818  named by what it is; the text says the limit
    """The owner has given out as many shares as there may be."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Granted:
    """One container for one grantee (`user:UID` or `group:NAME`)."""

    container: ContainerId
    grantee: str
    share: Share
    owner: Uid
    login: str  # the owner's, when it was shared
    until_ms: int  # on the lasting clock


class ContainerShares:
    """The record of shares. Only live ones are ever given out."""

    def __init__(self, records: Records, clock: LastingClock) -> None:
        """Raises: RecordsUnavailable."""
        self._records = records
        self._clock = clock
        self._granted: dict[ContainerId, dict[str, Granted]] = {}
        for container, grantee, share, owner, login, until_ms in records.container_shares():
            self._keep(
                Granted(
                    container=ContainerId(container),
                    grantee=grantee,
                    share=Share(share),
                    owner=owner,
                    login=login,
                    until_ms=until_ms,
                )
            )

    def _keep(self, granted: Granted) -> None:
        self._granted.setdefault(granted.container, {})[granted.grantee] = granted

    def __bool__(self) -> bool:
        return bool(self._granted)

    def of(self, container: ContainerId) -> list[Granted]:
        """The live shares of one container, by grantee."""
        now_ms = self._clock.now_ms()
        return sorted(
            (each for each in self._granted.get(container, {}).values() if now_ms < each.until_ms),
            key=lambda each: each.grantee,
        )

    def containers(self) -> tuple[ContainerId, ...]:
        """Every container that is, or was until lately, shared."""
        return tuple(self._granted)

    def left_seconds(self, granted: Granted) -> int:
        return max(0, granted.until_ms - self._clock.now_ms()) // 1000

    def grant(
        self,
        container: ContainerId,
        grantees: list[str],
        *,
        share: Share,
        owner: Uid,
        login: str,
        seconds: int,
    ) -> None:
        """Share, in place of what each grantee had of this container. Durable when this returns.

        Raises: TooManyShares: nothing was shared. RecordsUnavailable: some of it may be.
        """
        self.check_room(container, grantees, owner)
        self._clock.mark()  # INVARIANT: an end on record is never further from its mark than it was given for
        until_ms = self._clock.now_ms() + seconds * 1000
        for grantee in grantees:
            self._records.share_container(
                container, grantee, share=share, owner=owner, login=login, until_ms=until_ms
            )
            self._keep(
                Granted(
                    container=container,
                    grantee=grantee,
                    share=share,
                    owner=owner,
                    login=login,
                    until_ms=until_ms,
                )
            )

    def check_room(self, container: ContainerId, grantees: list[str], owner: Uid) -> None:
        """Raises: TooManyShares."""
        others = {each.grantee for each in self.of(container)} - {*grantees}
        if len(others) + len({*grantees}) > MOST_OF_CONTAINER:
            raise TooManyShares(f"{MOST_OF_CONTAINER} users and groups for one container; name a group")
        elsewhere = sum(
            len(self.of(other))
            for other, granted in self._granted.items()
            if other != container and any(each.owner == owner for each in granted.values())
        )
        if elsewhere + len(others) + len({*grantees}) > MOST_OF_OWNER:
            raise TooManyShares(f"{MOST_OF_OWNER} shares of one user; end some with ds01 unshare")

    def end(self, container: ContainerId, grantee: str) -> None:
        """Raises: RecordsUnavailable: it goes on."""
        self._records.unshare_container(container, grantee)
        self._drop(container, grantee)

    def _drop(self, container: ContainerId, grantee: str) -> None:
        granted = self._granted.get(container, {})
        granted.pop(grantee, None)
        if not granted:
            self._granted.pop(container, None)

    def sweep(self, exists: Callable[[ContainerId], bool]) -> list[Granted]:
        """Take shares off the record that are over, or whose container has gone. Raises: RecordsUnavailable."""
        over = list(self._over(exists))
        for granted in over:
            self.end(granted.container, granted.grantee)
        if self._granted:
            self._clock.mark_if_old()
        return over

    def _over(self, exists: Callable[[ContainerId], bool]) -> Iterator[Granted]:
        now_ms = self._clock.now_ms()
        for container, granted in self._granted.items():
            here = exists(container)
            yield from (each for each in granted.values() if not here or now_ms >= each.until_ms)
