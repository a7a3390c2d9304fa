"""Dependencies for FastAPI."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from fastapi import Depends, FastAPI, HTTPException, Request, Response, Security
from fastapi.security import HTTPBearer, SecurityScopes

from .asgi import ClientIp, authorization, connection_address
from .decision import AsyncChecker, Checker, Token
from .guard import Guard, GuardConfig, Outcome, check_scopes

_bearer = HTTPBearer(scheme_name="patd", description="A personal access token.", auto_error=False)


class Refused(HTTPException):
    """A request that may not pass. Its response has the body of patd where FastAPIGuard.install was called."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.status, dict(outcome.body), dict(outcome.headers))
        self.outcome = outcome


class FastAPIGuard:
    """
    Makes dependencies that let requests pass by their token: ``Annotated[Token, guard.requires("reports.read")]``. The
    scopes stand in the OpenAPI document of the application.

    ``client_ip`` returns the address that a request comes from. By default that of the connection: anybody can write a
    header.
    """

    def __init__(
        self,
        checker: AsyncChecker | Checker,
        *,
        config: GuardConfig | None = None,
        client_ip: ClientIp = connection_address,
    ) -> None:
        self._guard = Guard(checker, config)
        self._client_ip = client_ip

    def requires(self, *scopes: str) -> Any:
        """Returns a dependency for a token with all these scopes in effect; none: any active token."""
        return Security(self, scopes=check_scopes(scopes))

    async def __call__(
        self,
        request: Request,
        response: Response,
        scopes: SecurityScopes,
        _: Annotated[object, Depends(_bearer)],
    ) -> Token:
        """Returns the token of a request. Raises Refused."""
        outcome = await self._guard.decide_async(
            authorization(request.headers.raw), scopes.scopes, lambda: self._client_ip(request.scope)
        )
        if outcome.result is None or outcome.result.token is None:
            raise Refused(outcome)
        for name, value in outcome.headers.items():
            response.headers[name] = value
        return outcome.result.token

    @staticmethod
    def install(app: FastAPI) -> None:
        """Makes the bodies of refusals those of patd. Without it they are in ``detail``, as FastAPI has errors."""
        handler: Callable[[Request, Exception], Response] = _respond
        app.add_exception_handler(Refused, handler)


def _respond(request: Request, err: Exception) -> Response:
    assert isinstance(err, Refused)
    out = err.outcome
    return Response(out.content, out.status, dict(out.headers), "application/json")
