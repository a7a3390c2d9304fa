"""Why a token is refused, in the words of patd, for its bearer."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from .decision import Decision, Result


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a token is refused."""

    reason: str
    text: str
    """Printable ASCII without quotes and backslashes, as long as scopes have their syntax."""
    missing: tuple[str, ...]
    """Required, and never granted."""
    suspended: tuple[str, ...]
    """Required and granted, but not held by the user now."""
    paused: tuple[str, ...]
    """Required and granted, but paused: the owner may resume them."""


_fixed = {
    Decision.USER_SUSPENDED: "the user of the token is suspended",
    Decision.POLICY_BLOCKED: "the operator has blocked the token, since it exceeds the policy of an audience",
    Decision.TOKEN_IDLE: "the token is paused, since it was not used for long; its owner can resume it",
    Decision.AUDIENCE_MISMATCH: "the token is not for this audience",
    Decision.IP_NOT_ALLOWED: "the token is not allowed from this address",
}
_ended = {
    Decision.EXPIRED: ("the token expired", "the token has expired"),
    Decision.REVOKED: ("the token was revoked", "the token was revoked"),
    Decision.SUPERSEDED: (
        "the token was rotated, and this secret stopped working",
        "the token was rotated, and this secret has stopped working",
    ),
}


def refusal_of(r: Result) -> Refusal:
    """Says why a result is a refusal."""
    granted, paused = (r.token.granted, r.token.paused) if r.token else ((), ())
    lists = (
        tuple(s for s in r.missing if s not in paused and s not in granted),
        tuple(s for s in r.missing if s not in paused and s in granted),
        tuple(s for s in r.missing if s in paused),
    )
    return Refusal(r.reason or "", _text_of(r, *lists), *lists)


def _text_of(r: Result, missing: tuple[str, ...], suspended: tuple[str, ...], paused: tuple[str, ...]) -> str:
    if r.decision is Decision.INSUFFICIENT_SCOPE:
        parts = []
        if missing:
            parts.append(f"the token was not granted {' '.join(missing)}")
        if suspended:
            parts.append(f"its user does not hold {' '.join(suspended)} now")
        if paused:
            parts.append(f"its owner can resume {' '.join(paused)}, which was paused")
        return "; ".join(parts) or "the token lacks a scope that this request needs"
    if r.decision in _ended:
        when, without = _ended[r.decision]
        return f"{when} at {seconds(r.end_time)}" if r.end_time else without
    return _fixed.get(r.decision, "the token is not valid")


def seconds(time: datetime) -> str:
    """Returns a time in RFC 3339, cut to whole seconds, so that a token never seems to last longer than it does."""
    return time.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
