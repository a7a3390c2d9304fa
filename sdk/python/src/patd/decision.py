"""What is decided about a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Protocol


class Decision(StrEnum):
    """What was decided about a token. Only ``ALLOW`` lets a call pass."""

    ALLOW = "ALLOW"
    INSUFFICIENT_SCOPE = "INSUFFICIENT_SCOPE"
    NOT_FOUND = "NOT_FOUND"
    EXPIRED = "EXPIRED"
    REVOKED = "REVOKED"
    SUPERSEDED = "SUPERSEDED"
    USER_SUSPENDED = "USER_SUSPENDED"
    AUDIENCE_MISMATCH = "AUDIENCE_MISMATCH"
    IP_NOT_ALLOWED = "IP_NOT_ALLOWED"
    POLICY_BLOCKED = "POLICY_BLOCKED"
    TOKEN_IDLE = "TOKEN_IDLE"

    @property
    def reason(self) -> str | None:
        """The stable reason of a refusal, as patd's own errors have it; None for ``ALLOW``."""
        return _reasons.get(self, self.value)

    @property
    def is_active(self) -> bool:
        """Whether it is about an active token."""
        return self in _active

    @property
    def is_final(self) -> bool:
        """Whether it is a refusal that will never be taken back for the same secret."""
        return self in _final


_reasons: dict[Decision, str | None] = {
    Decision.ALLOW: None,
    Decision.INSUFFICIENT_SCOPE: "SCOPE_INSUFFICIENT",
    Decision.NOT_FOUND: "CREDENTIAL_INVALID",
    Decision.EXPIRED: "TOKEN_EXPIRED",
    Decision.REVOKED: "TOKEN_REVOKED",
    Decision.SUPERSEDED: "TOKEN_SUPERSEDED",
}
_active = frozenset({Decision.ALLOW, Decision.INSUFFICIENT_SCOPE})
_final = frozenset({Decision.NOT_FOUND, Decision.EXPIRED, Decision.REVOKED, Decision.SUPERSEDED})
_no_labels: Mapping[str, str] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Token:
    """An active token. It is shared between checks, and cannot be changed."""

    id: str
    """The public id of the personal access token; safe to log."""
    user: str
    """The id of its owner."""
    name: str = ""
    scopes: tuple[str, ...] = ()
    """The scopes in effect: granted, and held by the user now. Sorted."""
    granted: tuple[str, ...] = ()
    """The scopes as granted. Sorted."""
    suspended: tuple[str, ...] = ()
    """Granted, but not held by the user now. Sorted."""
    paused: tuple[str, ...] = ()
    """Granted, but not in effect until the owner resumes them. Sorted."""
    audiences: tuple[str, ...] = ()
    """Empty: none in particular."""
    labels: Mapping[str, str] = field(default_factory=lambda: _no_labels, hash=False)
    issue_time: datetime | None = None
    expire_time: datetime | None = None
    """When the presented secret stops working; None: never."""
    access_token_id: str | None = None
    """The public id of the short-lived access token that was presented; None: a personal one was."""
    client_id: str | None = None
    """The client that a short-lived access token was given to, as it named itself."""
    stale: bool = False
    """The source of features does not respond: the scopes rest on its last answer."""


@dataclass(frozen=True, slots=True)
class Result:
    """A decision about a token."""

    decision: Decision
    token: Token | None = None
    """Of an active token, which is one whose decision is ``ALLOW`` or ``INSUFFICIENT_SCOPE``."""
    missing: tuple[str, ...] = ()
    """The required scopes that are not in effect. Sorted."""
    end_time: datetime | None = None
    """When the token expired, was revoked, or its secret stopped working; None: not known, or another decision."""
    expire_time: datetime | None = None
    """When the secret of a token that is not active stops working, or stopped; None: never, or not known."""

    @property
    def allowed(self) -> bool:
        """Whether the call may go on: the decision is ``ALLOW``."""
        return self.decision is Decision.ALLOW

    @property
    def reason(self) -> str | None:
        """The stable reason of a refusal, as patd's own errors have it; None for ``ALLOW``."""
        return self.decision.reason


class Checker(Protocol):
    """Decides about tokens. A decision is a value; an exception is a fault, and then the call must fail with 503."""

    def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
        timeout: float | None = None,
    ) -> Result:
        """Decides about a token, exactly as the client sent it. Raises Fault: nothing is known about the token."""
        ...


class AsyncChecker(Protocol):
    """A Checker for asyncio."""

    async def verify(
        self,
        token: str,
        *,
        scopes: Sequence[str] = (),
        audience: str | None = None,
        client_ip: str | None = None,
    ) -> Result:
        """Decides about a token, exactly as the client sent it. Raises Fault: nothing is known about the token."""
        ...


def decide(token: Token, required: Sequence[str]) -> Result:
    """Decides about an active token for one call."""
    missing = set(required).difference(token.scopes)
    if missing:
        return Result(Decision.INSUFFICIENT_SCOPE, token, tuple(sorted(missing)))
    return Result(Decision.ALLOW, token)
