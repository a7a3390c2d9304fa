"""Tables of routes, with the requests that the libraries of all languages must decide alike."""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import django
import httpx
import pytest
from django.conf import settings
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from patd import RouteTable
from patd.asgi import AsgiGuard
from patd.asgi import caller as asgi_caller
from patd.django import DjangoGuard
from patd.django import caller as django_caller
from patd.testing import FakePatd
from patd.wsgi import WsgiGuard
from patd.wsgi import caller as wsgi_caller

if not settings.configured:
    settings.configure(DEFAULT_CHARSET="utf-8", ALLOWED_HOSTS=["*"])
    django.setup()

VECTORS = json.loads((Path(__file__).parents[2] / "conformance" / "routes.json").read_text())
TABLE = RouteTable(
    {
        "version": 1,
        "routes": [
            {"method": "GET", "path": "/reports/{id}", "scopes": ["reports.read"]},
            {"method": "POST", "path": "/reports/{id}", "scopes": ["reports.read"]},
            {"method": "GET", "path": "/reports/secret", "scopes": []},
        ],
    }
)


@pytest.mark.parametrize("r", VECTORS["requests"], ids=lambda r: r["why"])
def test_a_table_opens_what_it_lists_and_nothing_else(r: dict[str, Any]) -> None:
    table = RouteTable.parse(json.dumps(VECTORS["table"]))
    want = r["scopes"] and tuple(r["scopes"])
    if r.get("decoded") != "only":
        assert table.find(r["method"], r["path"]) == want
    if r.get("decoded") != "no":
        assert table.find_decoded(r["method"], r["path"]) == want


@pytest.mark.parametrize("b", VECTORS["bad"], ids=lambda b: b["why"])
def test_a_table_that_is_not_understood_is_refused(b: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        RouteTable.parse(json.dumps(b["table"]))


def test_a_table_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "routes.json"
    file.write_text(json.dumps(VECTORS["table"]))
    assert RouteTable.read(file).find("GET", "/reports") == ("reports.read",)
    file.write_text("{")
    with pytest.raises(ValueError):
        RouteTable.read(file)


Send = Callable[[str, str, str], httpx.Response]


def by_fastapi(patd: FakePatd) -> Send:
    app = FastAPI()
    app.add_middleware(AsgiGuard, checker=patd.for_asyncio(), routes=TABLE)

    @app.api_route("/{rest:path}", methods=["GET", "POST", "PUT"])
    async def read(request: Request) -> str:
        return asgi_caller(request.scope).user

    client = TestClient(app)
    return lambda method, path, secret: client.request(method, path, headers={"Authorization": f"Bearer {secret}"})


def by_wsgi(patd: FakePatd) -> Send:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [wsgi_caller(environ).user.encode()]

    client = httpx.Client(
        transport=httpx.WSGITransport(WsgiGuard(app, patd, routes=TABLE)), base_url="http://test"
    )
    return lambda method, path, secret: client.request(method, path, headers={"Authorization": f"Bearer {secret}"})


def request_of(method: str, path: str, secret: str) -> HttpRequest:
    return RequestFactory().generic(method, path, headers={"Authorization": f"Bearer {secret}"})


def answer(out: Any) -> httpx.Response:
    return httpx.Response(out.status_code, headers=dict(out.headers), content=out.content)


def by_django(patd: FakePatd) -> Send:
    def view(request: HttpRequest) -> HttpResponse:
        assert getattr(request, "_dont_enforce_csrf_checks", False)
        return HttpResponse(django_caller(request).user)

    guarded = DjangoGuard(patd).routes(TABLE)(view)
    return lambda method, path, secret: answer(guarded(request_of(method, path, secret)))


def by_django_asyncio(patd: FakePatd) -> Send:
    async def view(request: HttpRequest) -> HttpResponse:
        return HttpResponse(django_caller(request).user)

    guarded = DjangoGuard(patd.for_asyncio()).routes(TABLE)(view)
    return lambda method, path, secret: answer(asyncio.run(guarded(request_of(method, path, secret))))


@pytest.mark.parametrize("ways", [by_fastapi, by_wsgi, by_django, by_django_asyncio])
def test_a_table_guards_a_whole_application(ways: Callable[[FakePatd], Send]) -> None:
    patd = FakePatd()
    send = ways(patd)
    alice = patd.mint("alice", ["reports.read"]).secret
    bob = patd.mint("bob", ["reports.write"]).secret
    for method, path, secret, status, reason in (
        ("GET", "/reports/7?x=/reports/secret", alice, 200, ""),
        ("POST", "/reports/7", alice, 200, ""),
        ("GET", "/reports/7", bob, 403, "SCOPE_INSUFFICIENT"),
        ("GET", "/reports/7", "x", 401, "CREDENTIAL_INVALID"),
        ("GET", "/reports/secret", alice, 403, "ROUTE_CLOSED"),
        ("GET", "/reports/%73ecret", alice, 403, "ROUTE_CLOSED"),
        ("GET", "/reports/SECRET", alice, 403, "ROUTE_CLOSED"),
        ("PUT", "/reports/7", alice, 403, "ROUTE_CLOSED"),
        ("GET", "/other", alice, 403, "ROUTE_CLOSED"),
    ):
        out = send(method, path, secret)
        assert (out.status_code, reason in out.text) == (status, True), f"{method} {path}"
        if status == 200:
            assert "alice" in out.text


def test_scopes_and_routes_exclude_each_other() -> None:
    for guard in (AsgiGuard, WsgiGuard):
        with pytest.raises(TypeError):
            guard(lambda *_: [], FakePatd(), ["read"], routes=TABLE)  # type: ignore
    with pytest.raises(TypeError):
        DjangoGuard(FakePatd().for_asyncio()).routes(TABLE)(lambda request: HttpResponse())
