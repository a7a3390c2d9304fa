"""Middleware for WSGI: Flask, Bottle, Pyramid and others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .address import known_address
from .decision import Checker, Result, Token
from .guard import Guard, GuardConfig, check_scopes

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

_RESULT = "patd.result"


def connection_address(environ: WSGIEnvironment) -> str | None:
    """Returns the address of the connection, as the server names it."""
    return known_address(environ.get("REMOTE_ADDR"))


class WsgiGuard:
    """
    Lets requests to an application pass whose token has all scopes in effect; none: those with any active token.

    ``client_ip`` returns the address that a request comes from. By default that of the connection: anybody can write a
    header.
    """

    def __init__(
        self,
        app: WSGIApplication,
        checker: Checker,
        scopes: Sequence[str] = (),
        *,
        config: GuardConfig | None = None,
        client_ip: Callable[[WSGIEnvironment], str | None] = connection_address,
    ) -> None:
        if isinstance(scopes, str):
            raise TypeError("scopes is a list of texts, not one text")
        self._app = app
        self._guard = Guard(checker, config)
        if self._guard.is_async:
            raise TypeError("WSGI needs a Verifier, not an AsyncVerifier")
        self._scopes = check_scopes(scopes)
        self._client_ip = client_ip

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handles a request."""
        header = environ.get("HTTP_AUTHORIZATION")
        outcome = self._guard.decide([] if header is None else [header], self._scopes, lambda: self._client_ip(environ))
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
