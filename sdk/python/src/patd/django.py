"""A decorator for views of Django, and middleware for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, cast

from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.utils.decorators import sync_and_async_middleware

from .address import known_address
from .decision import AsyncChecker, Checker, Result, Token
from .guard import CLOSED, Guard, GuardConfig, Outcome, check_scopes
from .routes import RouteTable

View = TypeVar("View", bound=Callable[..., Any])


def connection_address(request: HttpRequest) -> str | None:
    """Returns the address of the connection, as the server names it."""
    return known_address(request.META.get("REMOTE_ADDR"))


class DjangoGuard:
    """
    Makes decorators that let requests pass by their token. With a Verifier they fit all views, those for asyncio in a
    thread; with an AsyncVerifier, views for asyncio. A view that does not begin a session needs no CSRF token: it is
    exempt, since a browser sends no bearer token by itself.

    ``client_ip`` returns the address that a request comes from. By default that of the connection: anybody can write a
    header.
    """

    def __init__(
        self,
        checker: Checker | AsyncChecker,
        *,
        config: GuardConfig | None = None,
        client_ip: Callable[[HttpRequest], str | None] = connection_address,
    ) -> None:
        self._guard = Guard(checker, config)
        self._client_ip = client_ip

    def requires(self, *scopes: str) -> Callable[[View], View]:
        """
        Returns a decorator for a view that needs a token with all these scopes in effect; none: any active token. In
        class-based views: ``@method_decorator(guard.requires("reports.read"), name="dispatch")``.
        """
        needed = check_scopes(scopes)

        def decorate(view: View) -> View:
            if iscoroutinefunction(view):

                @wraps(view)
                async def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
                    outcome = await self._guard.decide_async(*self._question(request, needed))
                    if outcome.result is None:
                        return _refuse(outcome)
                    return _pass(outcome, await view(_with(request, outcome.result), *args, **kwargs))

            else:
                if self._guard.is_async:
                    raise TypeError("a view that is not for asyncio needs a Verifier, not an AsyncVerifier")

                @wraps(view)
                def guarded(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
                    outcome = self._guard.decide(*self._question(request, needed))
                    if outcome.result is None:
                        return _refuse(outcome)
                    return _pass(outcome, view(_with(request, outcome.result), *args, **kwargs))

            guarded.csrf_exempt = True  # type: ignore[attr-defined]
            return cast(View, guarded)

        return decorate

    def routes(self, table: RouteTable) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """
        Returns middleware for all views, to be named in MIDDLEWARE: what a request needs is in a table of routes, which
        closes all others. A request that it lets pass needs no CSRF token.
        """

        @sync_and_async_middleware
        def middleware(get_response: Callable[..., Any]) -> Callable[..., Any]:
            def needed(request: HttpRequest) -> Sequence[str] | None:
                return table.find_decoded(request.method or "", request.path_info)

            if iscoroutinefunction(get_response):

                async def guarded_async(request: HttpRequest) -> HttpResponseBase:
                    scopes, outcome = needed(request), CLOSED
                    if scopes is not None:
                        outcome = await self._guard.decide_async(*self._question(request, scopes))
                    if outcome.result is None:
                        return _refuse(outcome)
                    return _pass(outcome, await get_response(_exempt(_with(request, outcome.result))))

                return guarded_async
            if self._guard.is_async:
                raise TypeError("a server that is not for asyncio needs a Verifier, not an AsyncVerifier")

            def guarded(request: HttpRequest) -> HttpResponseBase:
                scopes, outcome = needed(request), CLOSED
                if scopes is not None:
                    outcome = self._guard.decide(*self._question(request, scopes))
                if outcome.result is None:
                    return _refuse(outcome)
                return _pass(outcome, get_response(_exempt(_with(request, outcome.result))))

            return guarded

        return cast(Callable[[Callable[..., Any]], Callable[..., Any]], middleware)

    def _question(
        self, request: HttpRequest, scopes: Sequence[str]
    ) -> tuple[list[str], Sequence[str], Callable[[], str | None]]:
        header = request.META.get("HTTP_AUTHORIZATION")
        return [] if header is None else [header], scopes, lambda: self._client_ip(request)


def _with(request: HttpRequest, result: Result) -> HttpRequest:
    request.patd_result = result  # type: ignore[attr-defined]
    return request


def _exempt(request: HttpRequest) -> HttpRequest:
    request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
    return request


def _refuse(outcome: Outcome) -> HttpResponse:
    return HttpResponse(
        outcome.content, content_type="application/json", status=outcome.status, headers=dict(outcome.headers)
    )


def _pass(outcome: Outcome, response: HttpResponseBase) -> HttpResponseBase:
    for name, value in outcome.headers.items():
        response[name] = value
    return response


def result_of(request: HttpRequest) -> Result:
    """Returns the decision about a request that a DjangoGuard let pass. Raises LookupError for any other."""
    result = getattr(request, "patd_result", None)
    if not isinstance(result, Result):
        raise LookupError("no guard of patd let this request pass: put requires() in front of the view")
    return result


def caller(request: HttpRequest) -> Token:
    """Returns the token of a request that a DjangoGuard let pass."""
    token = result_of(request).token
    assert token is not None  # a guard let it pass
    return token
