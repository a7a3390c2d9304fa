"""Middleware for ASGI: Starlette, FastAPI, Quart, Litestar and others."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from typing import Any

from .address import known_address
from .decision import AsyncChecker, Checker, Result, Token
from .guard import CLOSED, Guard, GuardConfig, Outcome, check_scopes
from .routes import RouteTable

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
ClientIp = Callable[[Scope], str | None]

_RESULT = "patd.result"


def connection_address(scope: Scope) -> str | None:
    """Returns the address of the connection, as the server names it."""
    client = scope.get("client")
    return known_address(client[0]) if client else None


def authorization(headers: Iterable[tuple[bytes, bytes]]) -> list[str]:
    """Returns the values of the Authorization header."""
    return [value.decode("latin-1") for name, value in headers if name.lower() == b"authorization"]


class AsgiGuard:
    """
    Lets requests to an application pass whose token has all scopes in effect; none: those with any active token. In
    Starlette: ``Route(…, middleware=[Middleware(AsgiGuard, checker=verifier, scopes=["reports.read"])])``. WebSockets
    are refused before they are accepted. With ``routes``, a table says which scopes each request needs, and closes all
    others: ``app.add_middleware(AsgiGuard, checker=verifier, routes=table)``.

    ``client_ip`` returns the address that a request comes from. By default that of the connection: anybody can write a
    header.
    """

    def __init__(
        self,
        app: App,
        checker: AsyncChecker | Checker,
        scopes: Sequence[str] = (),
        *,
        routes: RouteTable | None = None,
        config: GuardConfig | None = None,
        client_ip: ClientIp = connection_address,
    ) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of texts, not one text")
        if routes is not None and scopes:
            raise TypeError("scopes or routes, not both")
        self._app = app
        self._guard = Guard(checker, config)
        self._scopes = check_scopes(scopes)
        self._routes = routes
        self._client_ip = client_ip

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles a request, a WebSocket, or an event of the server."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        scopes: Sequence[str] | None = self._scopes
        if self._routes is not None:  # a WebSocket begins with a GET
            scopes = self._routes.find_decoded(scope.get("method", "GET"), _path(scope))
        outcome = CLOSED
        if scopes is not None:
            values = authorization(scope["headers"])
            outcome = await self._guard.decide_async(values, scopes, lambda: self._client_ip(scope))
        if outcome.result is None:
            await (_refuse if scope["type"] == "http" else _refuse_websocket)(outcome, scope, send)
            return
        await self._app({**scope, _RESULT: outcome.result}, receive, _with_headers(outcome, send))


def _path(scope: Scope) -> str:
    """Returns the path below that of the application, as its routes have it."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(root + "/") else path


def _raw(outcome: Outcome) -> list[tuple[bytes, bytes]]:
    return [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in outcome.headers.items()]


def _with_headers(outcome: Outcome, send: Send) -> Send:
    if not outcome.headers:
        return send

    async def wrapped(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            message = {**message, "headers": [*message.get("headers", ()), *_raw(outcome)]}
        await send(message)

    return wrapped


async def _refuse(outcome: Outcome, scope: Scope, send: Send, kind: str = "http.response") -> None:
    content = outcome.content
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(content)).encode()),
        *_raw(outcome),
    ]
    await send({"type": f"{kind}.start", "status": outcome.status, "headers": headers})
    await send({"type": f"{kind}.body", "body": content})


async def _refuse_websocket(outcome: Outcome, scope: Scope, send: Send) -> None:
    if "websocket.http.response" in (scope.get("extensions") or {}):
        await _refuse(outcome, scope, send, "websocket.http.response")
    else:
        await send({"type": "websocket.close", "code": 1008})


def result_of(scope: Scope) -> Result:
    """Returns the decision about a request that an AsgiGuard let pass. Raises LookupError for any other."""
    result = scope.get(_RESULT)
    if not isinstance(result, Result):
        raise LookupError("no guard of patd let this request pass: put one in front of the handler")
    return result


def caller(scope: Scope) -> Token:
    """Returns the token of a request that an AsgiGuard let pass: in Starlette, ``caller(request.scope)``."""
    token = result_of(scope).token
    assert token is not None  # a guard let it pass
    return token
