"""The middleware."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import django
import httpx
import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from fastapi import FastAPI
from fastapi.testclient import TestClient
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from patd import Token
from patd.asgi import AsgiGuard
from patd.asgi import caller as asgi_caller
from patd.django import DjangoGuard
from patd.django import caller as django_caller
from patd.fastapi import FastAPIGuard
from patd.guard import Guard, GuardConfig
from patd.testing import FakePatd
from patd.wsgi import WsgiGuard
from patd.wsgi import caller as wsgi_caller

CONFIG = GuardConfig(realm='the "reports"', renew_url="https://patd.example.com/page")
settings.configure(DEFAULT_CHARSET="utf-8", ALLOWED_HOSTS=["*"])
django.setup()

Answer = tuple[int, dict[str, str], Any]
Ask = Callable[[list[str], tuple[str, ...]], Answer]


def answer(r: httpx.Response) -> Answer:
    return r.status_code, {k.lower(): v for k, v in r.headers.items()}, r.json() if r.status_code != 200 else r.text


def raw(values: list[str]) -> list[tuple[str, str]]:
    return [("Authorization", value) for value in values]


def by_fastapi(patd: FakePatd) -> Ask:
    def ask(values: list[str], scopes: tuple[str, ...]) -> Answer:
        app, guard = FastAPI(), FastAPIGuard(patd.for_asyncio(), config=CONFIG)
        guard.install(app)

        @app.get("/")
        async def read(token: Annotated[Token, guard.requires(*scopes)]) -> str:
            return token.user

        status, headers, body = answer(TestClient(app).get("/", headers=raw(values)))
        return status, headers, body.strip('"') if status == 200 else body

    return ask


def by_starlette(patd: FakePatd) -> Ask:
    def ask(values: list[str], scopes: tuple[str, ...]) -> Answer:
        async def read(request: Request) -> PlainTextResponse:
            return PlainTextResponse(asgi_caller(request.scope).user)

        guard = Middleware(AsgiGuard, checker=patd, scopes=scopes, config=CONFIG)
        app = Starlette(routes=[Route("/", read, middleware=[guard])])
        return answer(TestClient(app).get("/", headers=raw(values)))

    return ask


def by_wsgi(patd: FakePatd) -> Ask:
    def ask(values: list[str], scopes: tuple[str, ...]) -> Answer:
        def app(environ: Any, start_response: Any) -> list[bytes]:
            start_response("200 OK", [("Content-Type", "text/plain")])
            return [wsgi_caller(environ).user.encode()]

        transport = httpx.WSGITransport(WsgiGuard(app, patd, scopes, config=CONFIG))
        with httpx.Client(transport=transport, base_url="http://test") as client:
            return answer(client.get("/", headers=raw([",".join(values)] if values else [])))

    return ask


def by_django(patd: FakePatd) -> Ask:
    def ask(values: list[str], scopes: tuple[str, ...]) -> Answer:
        @DjangoGuard(patd, config=CONFIG).requires(*scopes)
        def read(request: HttpRequest) -> HttpResponse:
            return HttpResponse(django_caller(request).user)

        request = RequestFactory().get("/", headers={"Authorization": ",".join(values)} if values else {})
        out = read(request)
        return answer(httpx.Response(out.status_code, headers=dict(out.headers), content=out.content))

    return ask


def by_django_asyncio(patd: FakePatd) -> Ask:
    def ask(values: list[str], scopes: tuple[str, ...]) -> Answer:
        @DjangoGuard(patd.for_asyncio(), config=CONFIG).requires(*scopes)
        async def read(request: HttpRequest) -> HttpResponse:
            return HttpResponse(django_caller(request).user)

        request = RequestFactory().get("/", headers={"Authorization": ",".join(values)} if values else {})
        out = asyncio.run(read(request))
        return answer(httpx.Response(out.status_code, headers=dict(out.headers), content=out.content))

    return ask


@pytest.mark.parametrize("ways", [by_fastapi, by_starlette, by_wsgi, by_django, by_django_asyncio])
def test_a_request_passes_with_its_scopes_alone(ways: Callable[[FakePatd], Ask]) -> None:
    patd = FakePatd()
    ask = ways(patd)
    soon = datetime.now(UTC) + timedelta(days=7)
    alice = patd.mint("alice", ["reports.read"], expire_time=soon)
    good = [f"bearer  {alice.secret}"]

    status, headers, body = ask(good, ("reports.read",))
    assert (status, body) == (200, "alice")
    assert headers["patd-token-renew"] == CONFIG.renew_url and headers["patd-token-expires-at"].endswith("Z")
    assert ask(good, ())[0] == 200

    status, headers, body = ask(good, ("reports.read", "reports.write"))
    assert (status, body["reason"], body["missing_scopes"]) == (403, "SCOPE_INSUFFICIENT", ["reports.write"])
    assert 'error="insufficient_scope"' in headers["www-authenticate"]
    assert 'scope="reports.read reports.write"' in headers["www-authenticate"]
    assert headers["cache-control"] == "no-store"

    status, headers, body = ask([], ("reports.read",))
    assert (status, body["reason"]) == (401, "CREDENTIAL_REQUIRED")
    assert headers["www-authenticate"] == "Bearer realm=\"the 'reports'\""
    assert ask(["Basic abc"], ())[0] == 401
    assert ask(["Bearer garbage"], ())[2]["reason"] == "CREDENTIAL_INVALID"
    assert ask([*good, *good], ())[0] == 400

    patd.revoke(alice.id)
    status, headers, body = ask(good, ("reports.read",))
    assert (status, body["reason"]) == (401, "TOKEN_REVOKED") and 'error="invalid_token"' in headers["www-authenticate"]
    patd.outage()
    status, headers, body = ask(good, ())
    assert (status, body, headers["retry-after"]) == (503, {"error": "temporarily_unavailable"}, "1")


class Broken:
    """A checker that says what it may not."""

    def verify(self, token: str, **call: Any) -> Any:
        return 7


def test_what_breaks_lets_nothing_pass() -> None:
    assert Guard(Broken()).decide(["Bearer x"], []).status == 503

    def address() -> str:
        raise RuntimeError("no address")

    assert Guard(FakePatd()).decide(["Bearer x"], [], address).status == 503


def test_scopes_are_a_list() -> None:
    for wrong in (
        lambda: WsgiGuard(lambda e, s: [], FakePatd(), "read"),
        lambda: FastAPIGuard(FakePatd()).requires(""),
    ):
        with pytest.raises(TypeError):
            wrong()
    with pytest.raises(TypeError):
        DjangoGuard(FakePatd().for_asyncio()).requires("read")(lambda request: HttpResponse())


def test_a_websocket_is_refused_before_it_is_accepted() -> None:
    patd, sent = FakePatd(), list[Any]()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})

    async def send(message: Any) -> None:
        sent.append(message["type"])

    async def receive() -> Any:
        return {}

    guard = AsgiGuard(app, patd.for_asyncio(), ["read"])
    secret = patd.mint("alice", ["read"]).secret
    for headers in ([], [(b"authorization", f"Bearer {secret}".encode())]):
        asyncio.run(guard({"type": "websocket", "headers": headers}, receive, send))
    assert sent == ["websocket.close", "websocket.accept"]


def test_the_scopes_stand_in_the_document_of_fastapi() -> None:
    app, guard = FastAPI(), FastAPIGuard(FakePatd().for_asyncio())

    @app.get("/reports")
    async def reports(token: Annotated[Token, guard.requires("reports.read")]) -> str:
        return token.user

    assert app.openapi()["paths"]["/reports"]["get"]["security"] == [{"patd": ["reports.read"]}]
