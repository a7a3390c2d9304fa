"""Decisions about HTTP requests, which the middleware is made of."""

from __future__ import annotations

import asyncio
import inspect
import json
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from .decision import AsyncChecker, Checker, Decision, Result
from .refusal import Refusal, refusal_of, seconds

log = logging.getLogger("patd")

_RENEW_BEFORE = timedelta(days=30)
_unprintable = re.compile(r"[^ -~]|\\")


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardConfig:
    """Configures a Guard, and all middleware."""

    audience: str | None = None
    """The API of the handlers; None: that of the checker."""
    realm: str = ""
    """Is sent in WWW-Authenticate."""
    renew_url: str = ""
    """The page where users renew tokens. Clients get it in Patd-Token-Renew in a token's last 30 days."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a guard decided about a request."""

    result: Result | None
    """Of a request that may pass; None: the response is made of the other members."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """Are set on the response, of a request that may pass too."""
    status: int = 200
    body: Mapping[str, Any] = field(default_factory=dict)

    @property
    def content(self) -> bytes:
        """The body of a refusal, as JSON."""
        return json.dumps(self.body, separators=(",", ":")).encode()


CLOSED = Outcome(
    None,
    {"Cache-Control": "no-store"},
    403,
    {
        "error": "forbidden",
        "error_description": "no token opens this route: it is not in the table of routes, or has no scope there",
        "reason": "ROUTE_CLOSED",
    },
)
"""Is the outcome for a request that a table of routes closes, whatever its token."""


class Guard:
    """
    Decides about requests by their bearer token, and makes the responses to those that may not pass, as RFC 6750
    requires: 401 without a token or for one that is not active, 403 for one that lacks a scope, 400 for more than one
    credential, 503 when nothing is known about the token. The token is read from the Authorization header alone.

    A method never raises: whatever breaks is a 503. The address may be a function, which is called if it is needed.
    """

    def __init__(self, checker: Checker | AsyncChecker, config: GuardConfig | None = None) -> None:
        self.checker = checker
        self.config = config or GuardConfig()
        self.is_async = inspect.iscoroutinefunction(checker.verify)
        """Whether the checker is one for asyncio."""

    def decide(
        self,
        authorization: Sequence[str],
        scopes: Sequence[str],
        client_ip: str | Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Decides about a request with these values of the Authorization header. The checker is not for asyncio."""
        token = self._bearer(authorization)
        if isinstance(token, Outcome):
            return token
        try:
            ip = client_ip() if callable(client_ip) else client_ip
            out = self.checker.verify(token, audience=self.config.audience, scopes=scopes, client_ip=ip)
            if not isinstance(out, Result):
                out.close()  # a coroutine
                raise TypeError("a checker for asyncio needs a handler for asyncio")
            return self._outcome(out, scopes)
        except Exception as err:
            return _unavailable(err)

    async def decide_async(
        self,
        authorization: Sequence[str],
        scopes: Sequence[str],
        client_ip: str | Callable[[], str | None] | None = None,
    ) -> Outcome:
        """Decides about a request in an event loop. Another checker than one for asyncio runs in a thread."""
        if not self.is_async:
            return await asyncio.to_thread(self.decide, authorization, scopes, client_ip)
        token = self._bearer(authorization)
        if isinstance(token, Outcome):
            return token
        try:
            ip = client_ip() if callable(client_ip) else client_ip
            out = self.checker.verify(token, audience=self.config.audience, scopes=scopes, client_ip=ip)
            assert not isinstance(out, Result)
            return self._outcome(await out, scopes)
        except Exception as err:
            return _unavailable(err)

    def _bearer(self, values: Sequence[str]) -> str | Outcome:
        """Reads the Authorization header (RFC 9110 section 11.4): a scheme, one or more spaces, a credential."""
        scheme, space, token = values[0].partition(" ") if values else ("", "", "")
        token = token.lstrip(" ")
        if len(values) > 1 or (space and scheme.lower() == "bearer" and "," in token):  # or two, joined
            text = "give one token, once"
            return self._refuse(
                400,
                {"error": "invalid_request"},
                {"error": "invalid_request", "error_description": text, "reason": "CREDENTIAL_INVALID"},
            )
        if not space or scheme.lower() != "bearer":
            text = "this request needs a token: Authorization: Bearer and a token"
            return self._refuse(
                401, {}, {"error": "unauthorized", "error_description": text, "reason": "CREDENTIAL_REQUIRED"}
            )
        return token

    def _outcome(self, r: Result, scopes: Sequence[str]) -> Outcome:
        if r.decision.is_active != (r.token is not None):
            raise ValueError("the checker contradicts itself")
        headers = self._renewal(r)
        if r.decision is Decision.ALLOW:
            return Outcome(r, headers)
        why = refusal_of(r)
        if r.decision is Decision.INSUFFICIENT_SCOPE:
            challenge = {"error": "insufficient_scope", "error_description": why.text, "scope": " ".join(scopes)}
            return self._refuse(403, challenge, _body_of("insufficient_scope", why), headers)
        challenge = {"error": "invalid_token", "error_description": why.text}
        return self._refuse(401, challenge, _body_of("invalid_token", why), headers)

    def _refuse(
        self, status: int, challenge: Mapping[str, str], body: Mapping[str, Any], more: Mapping[str, str] | None = None
    ) -> Outcome:
        params = [
            f'{name}="{_printable(value)}"'
            for name, value in {"realm": self.config.realm, **challenge}.items()
            if value
        ]
        text = f"Bearer {', '.join(params)}".strip()
        return Outcome(None, {"Cache-Control": "no-store", "WWW-Authenticate": text, **(more or {})}, status, body)

    def _renewal(self, r: Result) -> Mapping[str, str]:
        expires = r.token.expire_time if r.token else r.expire_time
        if expires is None:
            return _no_headers
        out = {"Patd-Token-Expires-At": seconds(expires)}
        if self.config.renew_url and datetime.now(UTC) >= expires - _RENEW_BEFORE:
            out["Patd-Token-Renew"] = self.config.renew_url
        return out


_no_headers: Mapping[str, str] = {}


def _unavailable(err: Exception) -> Outcome:
    log.warning("nothing is known about a token: %s: %s", type(err).__name__, err)
    headers = {"Cache-Control": "no-store", "Retry-After": "1"}
    return Outcome(None, headers, 503, {"error": "temporarily_unavailable"})


def _body_of(error: str, why: Refusal) -> Mapping[str, Any]:
    out: dict[str, Any] = {"error": error, "error_description": why.text, "reason": why.reason}
    for name, some in (
        ("missing_scopes", why.missing),
        ("suspended_scopes", why.suspended),
        ("paused_scopes", why.paused),
    ):
        if some:
            out[name] = list(some)
    return out


def _printable(text: str) -> str:
    """Keeps what a quoted-string of a challenge may contain (RFC 6750 section 3)."""
    return _unprintable.sub("?", text.replace('"', "'").replace("`", "'"))


def check_scopes(scopes: Sequence[str]) -> tuple[str, ...]:
    """Returns the scopes of a route. Raises TypeError for what is no list of texts."""
    if not all(isinstance(s, str) and s for s in scopes):
        raise TypeError("a scope is a text")
    return tuple(scopes)
