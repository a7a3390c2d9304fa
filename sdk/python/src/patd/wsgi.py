"""Middleware for WSGI: Flask, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .address import known_address
from .decision import Checker, Result, Token
from .guard import CLOSED, Guard, GuardConfig, check_scopes
from .routes import RouteTable

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_RESULT = "patd.result"


def connection_address(environ: WSGIEnvironment) -> str | None:
    """Returns the address of the connection, as the server names it."""
    return known_address(environ.get("REMOTE_ADDR"))


class WsgiGuard:
    """
    Lets requests to an application pass whose token has all scopes in effect; none: those with any active token. With
    ``routes``, a table says which scopes each request needs, and closes all others.

    ``client_ip`` returns the address that a request comes from. By default that of the connection: anybody can write a
    header.
    """

    def __init__(
        self,
        app: WSGIApplication,
        checker: Checker,
        scopes: Sequence[str] = (),
        *,
        routes: RouteTable | None = None,
        config: GuardConfig | None = None,
        client_ip: Callable[[WSGIEnvironment], str | None] = connection_address,
    ) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of texts, not one text")
        if routes is not None and scopes:
            raise TypeError("scopes or routes, not both")
        self._app = app
        self._guard = Guard(checker, config)
        if self._guard.is_async:
            raise TypeError("WSGI needs a Verifier, not an AsyncVerifier")
        self._scopes = check_scopes(scopes)
        self._routes = routes
        self._client_ip = client_ip

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handles a request."""
        header = environ.get("HTTP_AUTHORIZATION")
        scopes: Sequence[str] | None = self._scopes
        if self._routes is not None:
            scopes = self._routes.find_decoded(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""))
        outcome = CLOSED
        if scopes is not None:
            outcome = self._guard.decide([] if header is None else [header], scopes, lambda: self._client_ip(environ))
        more = list(outcome.headers.items())
        if outcome.result is None:
            content = outcome.content
            headers = [("Content-Type", "application/json"), ("Content-Length", str(len(content))), *more]
            start_response(f"{outcome.status} {HTTPStatus(outcome.status).phrase}", headers)
            return [content]
        environ[_RESULT] = outcome.result
        if not more:
            return self._app(environ, start_response)

        def start(status: str, headers: list[tuple[str, str]], exc_info: Any = None, /) -> Callable[[bytes], object]:
            return start_response(status, [*headers, *more], exc_info)

        return self._app(environ, start)


def result_of(environ: WSGIEnvironment) -> Result:
    """Returns the decision about a request that a WsgiGuard let pass. Raises LookupError for any other."""
    result = environ.get(_RESULT)
    if not isinstance(result, Result):
        raise LookupError("no guard of patd let this request pass: put one in front of the handler")
    return result


def caller(environ: WSGIEnvironment) -> Token:
    """Returns the token of a request that a WsgiGuard let pass: in Flask, ``caller(request.environ)``."""
    token = result_of(environ).token
    assert token is not None  # a guard let it pass
    return token
