"""A checker without a patd, for tests of programs that accept tokens."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import NamedTuple

from .decision import Decision, Result, Token, decide
from .fault import Fault
from .form import is_plausible, random_token


class Minted(NamedTuple):
    """A token of the fake."""

    secret: str
    """What a client sends."""
    id: str


@dataclass(frozen=True, slots=True)
class Use:
    """A check that let a token pass."""

    token_id: str
    scopes: tuple[str, ...]
    client_ip: str | None


@dataclass(slots=True)
class _Known:
    token: Token
    client_ips: frozenset[str] | None
    revoked: bool = False


class FakePatd:
    """
    Decides about tokens that a test minted, as patd would: in the order of its decisions, with its reasons. It checks
    the form of a token too, so that a test with a made-up text sees ``NOT_FOUND``. It is a Checker; ``for_asyncio`` is
    an AsyncChecker of the same tokens.
    """

    def __init__(self, audience: str = "", now: Callable[[], float] = time.time) -> None:
        self.audience = audience
        self._now = now
        self._lock = threading.Lock()
        self._tokens: dict[str, _Known] = {}
        self._suspended: set[str] = set()
        self._down = False
        self.uses: list[Use] = []
        """All checks that let a token pass, in their order."""

    def mint(
        self,
        user: str,
        scopes: Iterable[str] = (),
        *,
        audiences: Iterable[str] = (),
        client_ips: Iterable[str] | None = None,
        expire_time: datetime | None = None,
        name: str = "a token of a test",
    ) -> Minted:
        """Makes a token. ``audiences``: none in particular; ``client_ips``: those that it works from, None: all."""
        secret, token_id = random_token()
        granted = tuple(sorted(scopes))
        token = Token(
            id=token_id,
            user=user,
            name=name,
            scopes=granted,
            granted=granted,
            audiences=tuple(audiences),
            issue_time=datetime.fromtimestamp(self._now(), UTC),
            expire_time=expire_time,
        )
        with self._lock:
            self._tokens[secret] = _Known(token, None if client_ips is None else frozenset(client_ips))
        return Minted(secret, token_id)

    def revoke(self, token_id: str) -> None:
        """Revokes a token by its id."""
        with self._lock:
            for known in self._tokens.values():
                if known.token.id == token_id:
                    known.revoked = True

    def suspend(self, user: str, suspended: bool = True) -> None:
        """Suspends a user, or ends that."""
        with self._lock:
            if suspended:
                self._suspended.add(user)
            else:
                self._suspended.discard(user)

    def outage(self, down: bool = True) -> None:
        """From now on, nothing is known about any token that has the form of one."""
        self._down = down

    def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Decides about a token."""
        if not is_plausible(token):
            return Result(Decision.NOT_FOUND)
        if self._down:
            raise Fault("unavailable", "the fake has an outage")
        with self._lock:
            known = self._tokens.get(token)
            if known is None:
                return Result(Decision.NOT_FOUND)
            refused = self._inactive(known, audience or self.audience, client_ip)
            if refused is not None:
                return Result(refused, expire_time=known.token.expire_time)
            out = decide(known.token, scopes)
            if out.allowed:
                self.uses.append(Use(known.token.id, tuple(scopes), client_ip))
            return out

    def _inactive(self, known: _Known, audience: str, client_ip: str | None) -> Decision | None:
        token = known.token
        if known.revoked:
            return Decision.REVOKED
        if token.expire_time is not None and token.expire_time.timestamp() <= self._now():
            return Decision.EXPIRED
        if token.user in self._suspended:
            return Decision.USER_SUSPENDED
        if audience and token.audiences and audience not in token.audiences:
            return Decision.AUDIENCE_MISMATCH
        if known.client_ips is not None and client_ip not in known.client_ips:
            return Decision.IP_NOT_ALLOWED
        return None

    def for_asyncio(self) -> AsyncFakePatd:
        """Returns an AsyncChecker of the same tokens."""
        return AsyncFakePatd(self)


class AsyncFakePatd:
    """An AsyncChecker of the tokens of a FakePatd."""

    def __init__(self, fake: FakePatd) -> None:
        self._fake = fake

    async def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
    ) -> Result:
        """Decides about a token."""
        return self._fake.verify(token, scopes=scopes, audience=audience, client_ip=client_ip)
